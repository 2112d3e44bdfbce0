"""Counts: told from other values, brought to the vocabulary, and normalised as the paper does."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from scdyn.errors import InputError
from scdyn.io.checks import are_counts, check_counts, columns_of_names, first_values
from scdyn.log import logger
from scdyn.pp.reference import find_genes

# Where a cell's promoter counts are from, if they were not measured.
NO_SOURCE = "none"
CELLS_AT_ONCE = 4096
# Where RNA counts of an AnnData are looked for, in this order.
USUAL = ("spliced", "counts", "X", "raw")
# What other layers are called that may hold counts.
OF_COUNTS = re.compile("count|raw|umi", re.IGNORECASE)


def promoters_measured(obs: pd.DataFrame) -> np.ndarray:
    """Tell in which cells promoters were measured, by their ``promoter_source``: (cells,)."""
    return (obs["promoter_source"].astype(str) != NO_SOURCE).to_numpy()


def rna_source(layers: Mapping[str, Any], x: Any, raw: Any, rna_layer: str, origin: str) -> str:
    """Say where RNA counts lie in an AnnData, as preflight says it and ingestion reads it.

    Parameters
    ----------
    layers
        Its layers, in memory or on the disk.
    x, raw
        ``X`` and ``.raw``'s, or None.
    rna_layer
        A layer, "raw" or "X". If empty: the first of :data:`USUAL` whose first values are counts
        and not all zero, since scVelo normalises the layer "spliced", and scanpy ``X``. An ``X``
        of 0 and 1 alone gives way to ``.raw`` if that holds more.
    origin
        The file, for messages.

    Returns
    -------
    str
        "layers/NAME", "X" or "raw/X", as it is called in the file.

    Raises
    ------
    InputError
        If the layer is not there, none of those that are looked at holds counts, or ``X`` holds
        0 and 1 alone and layers of any name more.
    """
    values = {"X": x, "raw": raw, **layers}
    known = {
        **({"X": "X"} if x is not None else {}),
        **({"raw": "raw/X"} if raw is not None else {}),
        **{name: f"layers/{name}" for name in layers},
    }
    if rna_layer:
        require_layer(rna_layer, known, origin)
        return known[rna_layer]
    usual = [name for name in USUAL if name in known]
    seen = {name: first_values(values[name]) for name in usual}
    usable = [name for name in usual if are_counts(seen[name])]
    held = [name for name in usable if seen[name].any()]
    if held[:1] == ["X"] and seen["X"].max() <= 1:
        if "raw" in held and seen["raw"].max() > 1:
            logger.info("%s: X holds 0 and 1 alone, .raw counts; .raw is read", origin)
            return known["raw"]
        refuse_flags({name: layers[name] for name in layers if name not in USUAL}, origin)
    if usable:
        return known[(held or usable)[0]]
    if not usual:
        raise InputError(
            "LAYER",
            f"{origin}: has no X and no layer 'spliced' or 'counts' but "
            f"{', '.join(known) or 'none'}; name one in the sample sheet's rna_layer.",
        )
    counted = [name for name in known if are_counts(first_values(values[name]))]
    raise InputError(
        "COUNTS",
        f"{origin}: holds values that are no counts (negative, fractional or NaN) in "
        f"{' and '.join(usual)}; raw counts are needed, not normalised values: name the layer that "
        f"holds them ({', '.join(counted) or 'none does'}) in the sample sheet's rna_layer, or "
        "write them into X.",
    )


def refuse_flags(layers: Mapping[str, Any], origin: str) -> None:
    """Refuse an ``X`` of 0 and 1 alone if a layer seems to hold the counts that it was made of.

    Raises
    ------
    InputError
        Naming the layers.
    """
    named = {name: first_values(layers[name]) for name in layers if OF_COUNTS.search(name)}
    more = [name for name, v in named.items() if are_counts(v) and v.max(initial=0) > 1]
    if more:
        raise InputError(
            "LAYER",
            f"{origin}: X holds 0 and 1 alone, and the layers {', '.join(more)} counts; name one "
            "of these, or X, in the sample sheet's rna_layer.",
        )


def require_layer(name: str, layers: Collection[str], origin: str) -> None:
    """Refuse a layer that is not there.

    Raises
    ------
    InputError
        Naming those that are.
    """
    if name not in layers:
        raise InputError(
            "LAYER",
            f"{origin}: has no layer '{name}' but {', '.join(layers) or 'none'}; check the sample "
            "sheet's rna_layer and promoter_layer.",
        )


def require_same_genes(n_raw: int, n_layer: int, origin: str) -> None:
    """Refuse RNA counts in ``.raw`` beside promoter counts of other genes in a layer.

    Raises
    ------
    InputError
        With how many genes each has.
    """
    if n_raw != n_layer:
        raise InputError(
            "LAYER",
            f"{origin}: has its RNA counts in .raw, of {n_raw} genes, and promoter counts in a "
            f"layer, of {n_layer}; write both as layers of the same genes.",
        )


def raw_counts(
    table: ad.AnnData, origin: str, rna_layer: str = "", promoter_layer: str | None = None
) -> ad.AnnData:
    """Return an AnnData of counts alone, of RNA in ``X`` and of promoters in their layer.

    What is known of the cells is kept, and where they lie (:func:`positions`).

    Parameters
    ----------
    table
        In memory or backed by a file.
    origin
        The file, for messages.
    rna_layer
        See :func:`rna_source`.
    promoter_layer
        Name of the promoters' layer, None if promoters are not in a layer.

    Raises
    ------
    InputError
        If a layer is not there, or its values are no counts.
    """
    raw = table.raw
    source = rna_source(table.layers, table.X, None if raw is None else raw.X, rna_layer, origin)
    var, values = table.var, table.X
    if source == "raw/X":
        var, values = raw.var, raw.X
        logger.info("%s: its counts lie in .raw, not in X", origin)
    elif source != "X":
        values = table.layers[source.removeprefix("layers/")]
    obsm = {} if (places := positions(table, origin)) is None else {"spatial": places}
    counts = ad.AnnData(check_counts(values, origin), obs=table.obs, var=var, obsm=obsm)
    if promoter_layer is not None:
        require_layer(promoter_layer, table.layers, origin)
        require_same_genes(counts.n_vars, table.n_vars, origin)
        place = f"{origin}, layer {promoter_layer}"
        counts.layers["promoter"] = check_counts(table.layers[promoter_layer], place)
    return counts


def positions(table: ad.AnnData, origin: str) -> np.ndarray | None:
    """Read where cells lie: ``obsm["spatial"]`` as numbers, (cells, 2 or more).

    Parameters
    ----------
    table
        May have them as an array or a DataFrame.
    origin
        The file, for the log.

    Returns
    -------
    ndarray or None
        None if there are none, or none of use, which the log says.
    """
    if "spatial" not in table.obsm:
        return None
    places, why = table.obsm["spatial"], ""
    try:
        if isinstance(places, pd.DataFrame):
            places = places.to_numpy(dtype=float, na_value=np.nan)
        places = np.asarray(places, dtype=float)
        if places.ndim != 2 or places.shape[1] < 2:
            why = "has fewer than two columns"
    except (TypeError, ValueError):
        why = "is no table of numbers"
    if why:
        logger.warning("%s: obsm['spatial'] %s: positions are left out", origin, why)
        return None
    return places


def align_genes(
    table: ad.AnnData, genes: pd.DataFrame, min_overlap: float, name: str, setting: str
) -> sparse.csr_matrix:
    """Find each gene of a table in the vocabulary; see :func:`scdyn.pp.reference.find_genes`.

    Parameters
    ----------
    table
        Ids or symbols in ``var_names``, or in any column of text of ``var``.
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
    best = find_genes(columns_of_names(table.var), genes)
    n_found = len(np.unique(best[best >= 0]))
    share = n_found / max(1, min(len(genes), table.n_vars))
    logger.info(
        "%s: %d of %d genes are in the vocabulary of %d", name, n_found, table.n_vars, len(genes)
    )
    if share < min_overlap:
        raise InputError(
            "GENES",
            f"{name}: only {n_found} of its {table.n_vars} genes (such as "
            f"{', '.join(table.var_names[:3])}) are in the vocabulary (such as "
            f"{', '.join(genes['symbol'][:3])}), {share:.0%} where at least {min_overlap:.0%} is "
            f"asked for ({setting}): another species or build?",
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
        Counts as :func:`scdyn.pp.ingest.ingest` gives them; ``var`` has ``length`` (bp) and
        ``n_tss``. Changed in place.
    """
    cells.layers["rna_log"] = log_scaled(cells.X, cells.var["length"].to_numpy() / 1000)
    cells.layers["promoter_log"] = log_scaled(
        cells.layers["promoter"], cells.var["n_tss"].to_numpy()
    )
