"""Counts: told from other values, brought to the vocabulary, and normalised as the paper does."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from scdyn.errors import InputError
from scdyn.log import logger
from scdyn.reference import strip_version

# Where a cell's promoter counts are from, if they were not measured.
NO_SOURCE = "none"
CELLS_AT_ONCE = 4096


def promoters_measured(obs: pd.DataFrame) -> np.ndarray:
    """Tell in which cells promoters were measured, by their ``promoter_source``: (cells,)."""
    return (obs["promoter_source"].astype(str) != NO_SOURCE).to_numpy()


def check_counts(counts: sparse.spmatrix | np.ndarray, origin: str) -> sparse.csr_matrix:
    """Return raw counts as CSR of int32, refusing what cannot be counts.

    Raises
    ------
    InputError
        Naming ``origin``, if a value is negative, fractional or not a number.
    """
    counts = sparse.csr_matrix(counts)
    values = counts.data
    if not np.isfinite(values).all() or (values < 0).any() or (values != np.rint(values)).any():
        raise InputError(
            f"{origin}: holds values that are no counts (negative, fractional or NaN); raw counts "
            "are needed, not normalised values."
        )
    counts = counts.astype(np.int32)
    counts.eliminate_zeros()
    return counts


def raw_counts(
    table: ad.AnnData, origin: str, rna_layer: str = "", promoter_layer: str = ""
) -> ad.AnnData:
    """Return an AnnData of counts alone, of RNA in ``X`` and of promoters in their layer.

    What is known of the cells is kept, and where they lie (``obsm["spatial"]``).

    Parameters
    ----------
    table
        Counts in layers, or in ``X``.
    origin
        The file, for messages.
    rna_layer
        Name of the RNA's layer; "spliced", "counts" or ``X``, the first that is there, if empty.
    promoter_layer
        Name of the promoters' layer; "promoter" or "unspliced", or none, if empty.

    Raises
    ------
    InputError
        If a layer is not there, or its values are no counts.
    """
    for name in filter(None, (rna_layer, promoter_layer)):
        if name not in table.layers:
            raise InputError(
                f"{origin}: has no layer '{name}' but {', '.join(table.layers) or 'none'}; check "
                "the sample sheet's rna_layer and promoter_layer."
            )
    rna_layers = [rna_layer] if rna_layer else ["spliced", "counts"]
    source = next((name for name in rna_layers if name in table.layers), None)
    values = table.layers[source] if source else table.X
    if values is None:
        raise InputError(
            f"{origin}: has no X and no layer 'spliced' or 'counts' but "
            f"{', '.join(table.layers) or 'none'}; name one in the sample sheet's rna_layer."
        )
    places = {name: table.obsm[name] for name in ("spatial",) if name in table.obsm}
    counts = ad.AnnData(check_counts(values, origin), obs=table.obs, var=table.var, obsm=places)
    promoter_layers = [promoter_layer] if promoter_layer else ["promoter", "unspliced"]
    source = next((name for name in promoter_layers if name in table.layers), None)
    if source:
        counts.layers["promoter"] = check_counts(table.layers[source], origin)
    return counts


def align_genes(
    table: ad.AnnData, genes: pd.DataFrame, min_overlap: float, name: str, setting: str
) -> sparse.csr_matrix:
    """Find each gene of a table in the vocabulary, by id or by symbol, whichever finds more.

    Parameters
    ----------
    table
        Names in ``var_names``, ids in ``var["gene_ids"]`` if there.
    genes
        The vocabulary.
    min_overlap
        Smallest share of the genes (of the table or the vocabulary, whichever has
        fewer) that must be found.
    name, setting
        The table, and where ``min_overlap`` can be set, for messages.

    Returns
    -------
    csr_matrix
        (genes of the table, genes of the vocabulary) with a one where they are the same;
        a product with it orders the columns and sums duplicates.

    Raises
    ------
    InputError
        If fewer than ``min_overlap`` are found.
    """
    names = [pd.Series(table.var_names)]
    if "gene_ids" in table.var:
        names.append(table.var["gene_ids"].reset_index(drop=True))
    best = np.full(table.n_vars, -1)
    for known in (genes["gene_id"], genes["symbol"]):
        index = pd.Series(np.arange(len(genes)), index=known)
        index = index[~index.index.duplicated()]
        for candidates in names:
            found = index.reindex(strip_version(candidates)).fillna(-1).to_numpy(dtype=int)
            best = found if (found >= 0).sum() > (best >= 0).sum() else best
    n_found = len(np.unique(best[best >= 0]))
    share = n_found / min(len(genes), table.n_vars)
    logger.info(
        "%s: %d of %d genes are in the vocabulary of %d", name, n_found, table.n_vars, len(genes)
    )
    if share < min_overlap:
        raise InputError(
            f"{name}: only {n_found} of its {table.n_vars} genes (such as "
            f"{', '.join(table.var_names[:3])}) are in the vocabulary (such as "
            f"{', '.join(genes['symbol'][:3])}), {share:.0%} where at least {min_overlap:.0%} is "
            f"asked for ({setting}): another species or build?"
        )
    rows = np.flatnonzero(best >= 0)
    ones = np.ones(len(rows), np.int32)
    return sparse.csr_matrix((ones, (rows, best[rows])), shape=(table.n_vars, len(genes)))


def log_scaled(counts: sparse.spmatrix, divisor: np.ndarray) -> sparse.csr_matrix:
    """Divide each gene by its size, scale each cell to a million, and take log1p.

    With lengths in kb as ``divisor`` this is log1p(TPM); with numbers of TSSs it is
    the paper's promoter value (both: Yu et al. 2026, Methods).

    Parameters
    ----------
    counts
        (cells, genes).
    divisor
        (genes,) positive.

    Returns
    -------
    csr_matrix of float32
        A cell without counts stays zero.
    """
    counts = sparse.csr_matrix(counts)
    logs = np.empty(counts.nnz, dtype=np.float32)
    # Some cells at a time: in float64 and whole, a large corpus would not fit into memory.
    for start in range(0, counts.shape[0], CELLS_AT_ONCE):
        cells = counts[start : start + CELLS_AT_ONCE]
        rates = cells.data * (1.0 / divisor)[cells.indices]
        of_genes = sparse.csr_matrix((rates, cells.indices, cells.indptr), cells.shape)
        totals = np.asarray(of_genes.sum(1)).ravel()
        scale = np.repeat(1e6 / np.where(totals > 0, totals, 1.0), np.diff(cells.indptr))
        part = slice(counts.indptr[start], counts.indptr[start] + cells.nnz)
        logs[part] = np.log1p(rates * scale)
    return sparse.csr_matrix((logs, counts.indices.copy(), counts.indptr.copy()), counts.shape)


def normalise(cells: ad.AnnData) -> None:
    """Add ``layers["rna_log"]`` (TPM, log1p) and ``layers["promoter_log"]`` (per TSS, CPM, log1p).

    Parameters
    ----------
    cells
        Counts as :func:`scdyn.ingest.ingest` gives them; ``var`` has ``length`` (bp) and
        ``n_tss``. Changed in place.
    """
    cells.layers["rna_log"] = log_scaled(cells.X, cells.var["length"].to_numpy() / 1000)
    cells.layers["promoter_log"] = log_scaled(
        cells.layers["promoter"], cells.var["n_tss"].to_numpy()
    )
