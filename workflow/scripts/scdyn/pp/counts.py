"""Raw counts of an AnnData, their genes in the vocabulary, and normalisation."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from scdyn.errors import InputError
from scdyn.io.checks import (
    are_counts,
    check_counts,
    find_non_counts,
    list_name_columns,
    read_first_values,
)
from scdyn.io.shards import CELLS_AT_ONCE, sum_duplicates
from scdyn.log import logger
from scdyn.pp.reference import find_genes

# ``promoter_source`` of cells without promoter accessibility.
NO_SOURCE = "none"
# Column of ``obs`` with the counts of a modality, summed over the genes of a cell.
SIZES = {"rna": "rna_counts", "promoter": "promoter_counts"}
# Places in an AnnData where raw RNA counts are searched, in this order.
USUAL_PLACES = ("spliced", "counts", "X", "raw")
# Names of other layers that may have raw counts.
COUNT_NAMES = re.compile("count|raw|umi", re.IGNORECASE)


def promoters_measured(obs: pd.DataFrame) -> np.ndarray:
    """Tell per cell whether promoters were measured, from ``promoter_source``: (cells,) bool."""
    return (obs["promoter_source"].astype(str) != NO_SOURCE).to_numpy()


def choose_rna_source(
    layers: Mapping[str, Any], x: Any, raw: Any, rna_layer: str, origin: str
) -> str:
    """Choose the matrix with the raw RNA counts of an AnnData, for preflight and ingestion.

    Parameters
    ----------
    layers
        Its layers, in memory or on the disk.
    x, raw
        ``X`` and ``raw.X``, or None.
    rna_layer
        A layer, "raw" or "X". If empty, the first of :data:`USUAL_PLACES` whose first values are
        counts and not all zero, because scVelo normalises the layer "spliced", and scanpy ``X``.
        If ``X`` is binary and ``.raw`` is not, ``.raw`` is used.
    origin
        The file, for messages.

    Returns
    -------
    str
        Its path in the file: "layers/NAME", "X" or "raw/X".

    Raises
    ------
    InputError
        If the layer does not exist, no counts are found, or ``X`` is binary and another layer may
        have the counts.
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
    usual = [name for name in USUAL_PLACES if name in known]
    seen = {name: read_first_values(values[name]) for name in usual}
    usable = [name for name in usual if are_counts(seen[name])]
    held = [name for name in usable if seen[name].any()]
    if held[:1] == ["X"] and seen["X"].max() <= 1:
        if "raw" in held and seen["raw"].max() > 1:
            logger.info("%s: X is binary; using the counts in .raw", origin)
            return known["raw"]
        refuse_binary({name: layers[name] for name in layers if name not in USUAL_PLACES}, origin)
    if usable:
        return known[(held or usable)[0]]
    if not usual:
        raise InputError(
            "LAYER",
            f"{origin}: no X and no layer 'spliced' or 'counts', only {', '.join(known) or 'none'};"
            " name a layer as rna_layer in the sample sheet.",
        )
    bad = find_non_counts(seen[usual[-1]])[0]
    others = [name for name in known if name != "promoter"]
    counted = [name for name in others if are_counts(read_first_values(values[name]))]
    raise InputError(
        "COUNTS",
        f"{origin}: the counts in {' and '.join(usual)} are not integers (found {bad:.4g}); raw "
        "counts are needed, not normalised values: name the layer with raw counts "
        f"({', '.join(counted) or 'none'} here) as rna_layer in the sample sheet, or write them "
        "into X.",
    )


def refuse_binary(layers: Mapping[str, Any], origin: str) -> None:
    """Refuse a binary ``X`` if a layer seems to have the original counts.

    Raises
    ------
    InputError
        Naming the layers.
    """
    named = {name: read_first_values(layers[name]) for name in layers if COUNT_NAMES.search(name)}
    more = [name for name, v in named.items() if are_counts(v) and v.max(initial=0) > 1]
    if more:
        raise InputError(
            "LAYER",
            f"{origin}: X is binary (only 0 and 1), but there are counts in {', '.join(more)}; "
            "name one of these, or X, as rna_layer in the sample sheet.",
        )


def require_layer(name: str, layers: Collection[str], origin: str) -> None:
    """Refuse a layer that does not exist.

    Raises
    ------
    InputError
        Naming the existing layers.
    """
    if name not in layers:
        raise InputError(
            "LAYER",
            f"{origin}: has no layer '{name}' (layers: {', '.join(layers) or 'none'}); check "
            "rna_layer and promoter_layer in the sample sheet.",
        )


def require_same_genes(n_raw: int, n_layer: int, origin: str) -> None:
    """Refuse RNA counts in ``.raw`` with other genes than the promoter counts in a layer.

    Raises
    ------
    InputError
        With both numbers of genes.
    """
    if n_raw != n_layer:
        raise InputError(
            "LAYER",
            f"{origin}: the RNA counts in .raw have {n_raw} genes, but the layer of promoter "
            f"counts has {n_layer}; write both as layers with the same genes.",
        )


def extract_counts(
    table: ad.AnnData, origin: str, rna_layer: str = "", promoter_layer: str | None = None
) -> ad.AnnData:
    """Extract the raw counts of an AnnData: RNA in ``X``, promoters in ``layers["promoter"]``.

    ``obs`` and the positions (:func:`read_positions`) are kept.

    Parameters
    ----------
    table
        In memory or backed by a file.
    origin
        The file, for messages.
    rna_layer
        See :func:`choose_rna_source`.
    promoter_layer
        Layer of the promoter counts; None if they are not in a layer.

    Raises
    ------
    InputError
        If a layer does not exist, or its values are not counts.
    """
    raw = table.raw
    source = choose_rna_source(
        table.layers, table.X, None if raw is None else raw.X, rna_layer, origin
    )
    var, values = table.var, table.X
    if source == "raw/X":
        var, values = raw.var, raw.X
        logger.info("%s: using the counts in .raw, not X", origin)
    elif source != "X":
        values = table.layers[source.removeprefix("layers/")]
    obsm = {} if (places := read_positions(table, origin)) is None else {"spatial": places}
    counts = ad.AnnData(check_counts(values, origin), obs=table.obs, var=var, obsm=obsm)
    if promoter_layer is not None:
        require_layer(promoter_layer, table.layers, origin)
        require_same_genes(counts.n_vars, table.n_vars, origin)
        place = f"{origin}, layer {promoter_layer}"
        counts.layers["promoter"] = check_counts(table.layers[promoter_layer], place)
    return counts


def read_positions(table: ad.AnnData, origin: str) -> np.ndarray | None:
    """Read the positions of cells from ``obsm["spatial"]``, an array or a DataFrame.

    Parameters
    ----------
    table
        The cells.
    origin
        The file, for the log.

    Returns
    -------
    ndarray or None
        (cells, 2 or more). None, with a warning unless the key is missing, if they are not
        numbers or have fewer than two columns.
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
        why = "is not numeric"
    if why:
        logger.warning("%s: obsm['spatial'] %s; ignoring the positions", origin, why)
        return None
    return places


def align_genes(
    var: pd.DataFrame, genes: pd.DataFrame, min_overlap: float, name: str, setting: str
) -> sparse.csr_matrix:
    """Map the genes of a table to the vocabulary; see :func:`scdyn.pp.reference.find_genes`.

    Parameters
    ----------
    var
        Of the table, with ids or symbols in its index or in any text column.
    genes
        The vocabulary.
    min_overlap
        Minimum share of genes in common, relative to the smaller of table and vocabulary.
    name, setting
        Name of the table and config key of ``min_overlap``, for messages.

    Returns
    -------
    csr_matrix
        (genes of the table, genes of the vocabulary) with ones for matching genes. Multiplied
        by it, counts are reordered, and those of duplicate genes summed.

    Raises
    ------
    InputError
        If the share is below ``min_overlap``.
    """
    best = find_genes(list_name_columns(var), genes)
    n_found = len(np.unique(best[best >= 0]))
    share = n_found / max(1, min(len(genes), len(var)))
    logger.info(
        "%s: %d of %d genes are in the vocabulary of %d", name, n_found, len(var), len(genes)
    )
    if share < min_overlap:
        raise InputError(
            "GENES",
            f"{name}: only {n_found} of its {len(var)} genes (such as "
            f"{', '.join(var.index[:3])}) are in the vocabulary (such as "
            f"{', '.join(genes['symbol'][:3])}), {share:.0%} where {setting} requires "
            f"{min_overlap:.0%}; use the annotation of the same species and build.",
        )
    rows = np.flatnonzero(best >= 0)
    ones = np.ones(len(rows), np.int32)
    return sparse.csr_matrix((ones, (rows, best[rows])), shape=(len(var), len(genes)))


def sum_cells(counts: sparse.csr_matrix) -> np.ndarray:
    """Sum the counts of each cell: (cells,) int64.

    In blocks of cells, because SciPy copies what it sums as int64.
    """
    sums = np.zeros(counts.shape[0], dtype=np.int64)
    for start in range(0, len(sums), CELLS_AT_ONCE):
        part = slice(start, start + CELLS_AT_ONCE)
        sums[part] = np.asarray(counts[part].sum(1)).ravel()
    return sums


def find_depth(sizes: np.ndarray) -> float:
    """Return the median of the cells' total counts (cells,) above zero; 1 if there are none."""
    return float(np.median(sizes[sizes > 0])) if (sizes > 0).any() else 1.0


def log_normalise(counts: sparse.csr_matrix, sizes: np.ndarray, depth: float) -> sparse.csr_matrix:
    """Scale the counts of each cell to a common depth, and take log1p.

    As scanpy's ``pp.normalize_total`` and ``pp.log1p``. Counts are not divided by the lengths of
    genes, because UMIs at the 3' end of transcripts do not grow with them.

    Parameters
    ----------
    counts
        (cells, genes).
    sizes
        (cells,) total counts over all genes, also if ``counts`` has only some.
    depth
        Of :func:`find_depth`: one UMI is log 2 in a cell of this depth.

    Returns
    -------
    csr_matrix of float32
        With the indices of ``counts``. Cells without counts stay zero.
    """
    scale = depth / np.where(sizes > 0, sizes, 1.0)
    values = counts.data * np.repeat(scale, np.diff(counts.indptr))
    logs = np.log1p(values, out=values).astype(np.float32)
    return sparse.csr_matrix((logs, counts.indices, counts.indptr), counts.shape)


def describe_sizes(cells: ad.AnnData) -> ad.AnnData:
    """Add the total counts of each cell, which normalisation needs.

    Parameters
    ----------
    cells
        One sample, from :func:`scdyn.pp.qc.filter_cells`.

    Returns
    -------
    AnnData
        With the same matrices, and :data:`SIZES` in ``obs``, without that of the promoters if they
        were measured in no cell.
    """
    rna, promoter = (sum_duplicates(part) for part in (cells.X, cells.layers["promoter"]))
    sizes = {SIZES["rna"]: sum_cells(rna)}
    if promoters_measured(cells.obs).any():
        sizes[SIZES["promoter"]] = sum_cells(promoter)
    return ad.AnnData(
        rna,
        obs=cells.obs.assign(**sizes),
        var=cells.var,
        obsm=dict(cells.obsm),
        layers={"promoter": promoter},
    )


def normalise(cells: ad.AnnData) -> None:
    """Add ``layers["rna_log"]`` and ``layers["promoter_log"]``: log1p of counts to median depth.

    The depth is that of these cells (:func:`find_depth`).

    Parameters
    ----------
    cells
        Counts in memory. Changed in place.
    """
    for modality in SIZES:
        counts = sparse.csr_matrix(cells.X if modality == "rna" else cells.layers["promoter"])
        sizes = sum_cells(counts)
        cells.layers[f"{modality}_log"] = log_normalise(counts, sizes, find_depth(sizes))
