"""Scrublet in blocks of cells, with the same doublet scores as scanpy's.

scanpy makes observed and simulated cells dense, which needs 12 GiB for 25,000 cells. Here counts
stay sparse, simulated doublets exist a block at a time, and neighbours are searched only for
observed cells.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.random import sample_without_replacement
from sklearn.utils.sparsefuncs import mean_variance_axis

from scdyn.log import logger

# Scrublet uses at most this many genes, the most variable ones.
VARIABLE_GENES = 3000
# Genes with counts in fewer cells are not used.
FEWEST_CELLS = 3
# Number of principal components for Scrublet's neighbours, scanpy's default.
MOST_COMPONENTS = 30
# From a larger library this many cells are drawn. They decide genes and components, and doublets
# are simulated from them; all cells are scored among them and the doublets.
MOST_CELLS = 25_000
# scanpy's defaults: simulated doublets per cell, and the expected share of doublets.
DOUBLETS_PER_CELL, EXPECTED_SHARE = 2.0, 0.05
CELLS_AT_ONCE = 1024


def run_scrublet(
    counts: sparse.csr_matrix, seed: int, rows: np.ndarray | None = None
) -> np.ndarray:
    """Compute Scrublet doublet scores from counts of one modality (Wolock et al. 2019).

    They are those of :func:`scanpy.pp.scrublet` with exact neighbours, except that at most
    :data:`VARIABLE_GENES` genes and :data:`MOST_CELLS` cells are used, so that memory does not
    grow with a large library.

    Parameters
    ----------
    counts
        (cells, genes).
    seed
        Of the simulated doublets, and of the cells drawn from a large library.
    rows
        The cells of one library, because doublets form only within a library; None for all.

    Returns
    -------
    ndarray, (rows,)
        Zeros if there are too few cells or variable genes for a principal component.
    """
    counts = sparse.csr_matrix(counts)
    rows = np.arange(counts.shape[0]) if rows is None else rows
    is_drawn = mark_drawn_cells(len(rows), seed)
    drawn, n_drawn = rows[is_drawn], int(is_drawn.sum())
    is_used = count_cells(counts, drawn) >= FEWEST_CELLS
    if not is_used.any():
        return skip_scrublet(len(rows), 0)
    totals = np.concatenate([counts[part] @ is_used for part in split(drawn)])
    depth = float(np.median(totals.astype(np.float32)))
    means, variances = compute_moments(counts, drawn, totals, depth)
    genes = np.flatnonzero(is_used)[choose_variable(means[is_used], variances[is_used])]
    if min(n_drawn, len(genes)) < 2:
        return skip_scrublet(len(rows), len(genes))
    raw = sparse.vstack([counts[part][:, genes] for part in split(drawn)], format="csr")
    observed = scale_to_million(divide_cells(raw, totals, depth))
    weights = compute_weights(observed)
    n_components = min(MOST_COMPONENTS, min(observed.shape) - 1)
    pca = PCA(n_components, svd_solver="arpack", random_state=seed).fit(observed @ weights)
    places = pca.transform(observed @ weights)
    pairs = draw_pairs(n_drawn, seed)
    doublets = [
        pca.transform(scale_to_million(raw[part[:, 0]] + raw[part[:, 1]]) @ weights)
        for part in split(pairs)
    ]
    manifold = NearestNeighbors(algorithm="brute").fit(np.concatenate([places, *doublets]))
    ratio = len(pairs) / n_drawn
    k = round(round(0.5 * np.sqrt(n_drawn)) * (1 + ratio))
    n_doublets = np.empty(len(rows))
    # The first neighbour of a cell is the cell itself. As in scanpy, one more is searched than is
    # used, and all cells at once, so that ties are broken in the same way.
    nearest = manifold.kneighbors(places, k + 1, return_distance=False)[:, 1:k]
    n_doublets[is_drawn] = (nearest >= n_drawn).sum(1)
    for part in split(np.flatnonzero(~is_drawn)):
        cells = counts[rows[part]]
        cells = scale_to_million(divide_cells(cells[:, genes], cells @ is_used, depth))
        nearest = manifold.kneighbors(pca.transform(cells @ weights), k - 1, return_distance=False)
        n_doublets[part] = (nearest >= n_drawn).sum(1)
    q = (n_doublets + 1) / (k + 2)
    rho = EXPECTED_SHARE
    return q * rho / ratio / (1 - rho - q * (1 - rho - rho / ratio))


def skip_scrublet(n_cells: int, n_genes: int) -> np.ndarray:
    """Log that there are too few cells or variable genes for Scrublet, and return zeros."""
    logger.info(
        "doublet scores are zero: %d cells with %d variable genes are too few",
        *(n_cells, n_genes),
    )
    return np.zeros(n_cells)


def split(items: np.ndarray) -> Iterator[np.ndarray]:
    """Split an array into blocks of :data:`CELLS_AT_ONCE` items."""
    for start in range(0, len(items), CELLS_AT_ONCE):
        yield items[start : start + CELLS_AT_ONCE]


def mark_drawn_cells(n_cells: int, seed: int) -> np.ndarray:
    """Mark at most :data:`MOST_CELLS` randomly drawn cells: (cells,) bool."""
    is_drawn = np.ones(n_cells, dtype=bool)
    if n_cells > MOST_CELLS:
        order = np.random.default_rng(seed).permutation(n_cells)
        is_drawn[order[MOST_CELLS:]] = False
        logger.info("doublets are simulated from %d drawn cells of %d", MOST_CELLS, n_cells)
    return is_drawn


def draw_pairs(n_cells: int, seed: int) -> np.ndarray:
    """Draw the pairs of cells whose sums are doublets, as scanpy does: (doublets, 2)."""
    n_pairs = int(DOUBLETS_PER_CELL * n_cells)
    drawn = sample_without_replacement(n_cells**2, n_pairs, random_state=seed)
    return np.stack(np.unravel_index(drawn, (n_cells, n_cells)), axis=1)


def count_cells(counts: sparse.csr_matrix, rows: np.ndarray) -> np.ndarray:
    """Count the cells with counts of each gene: (genes,)."""
    n_cells = np.zeros(counts.shape[1], dtype=np.int64)
    for part in split(rows):
        n_cells += np.bincount(counts[part].indices, minlength=len(n_cells))
    return n_cells


def divide_cells(cells: sparse.csr_matrix, totals: np.ndarray, depth: float) -> sparse.csr_matrix:
    """Divide counts by the cells' totals over the median depth, in float32 as scanpy does."""
    sizes = totals.astype(np.float32) / np.float32(depth)
    sizes[sizes == 0] = 1
    values = cells.data.astype(np.float32) / np.repeat(sizes, np.diff(cells.indptr))
    return sparse.csr_matrix((values, cells.indices, cells.indptr), cells.shape)


def scale_to_million(cells: sparse.csr_matrix) -> sparse.csr_matrix:
    """Scale the values of each cell to a sum of one million: float64 of what scanpy rounds to."""
    totals = np.asarray(cells.astype(np.float64).sum(1)).ravel()
    return divide_cells(cells, totals, 1e6).astype(np.float64)


def compute_moments(
    counts: sparse.csr_matrix, rows: np.ndarray, totals: np.ndarray, depth: float
) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and variance of each gene's normalised counts: (genes,) each."""
    sums, squares = np.zeros((2, counts.shape[1]))
    for part, of_part in zip(split(rows), split(totals), strict=True):
        cells = divide_cells(counts[part], of_part, depth)
        # Back from the logarithms, because scanpy chooses the genes from these, rounded.
        values = np.expm1(np.log1p(cells.data))
        sums += np.bincount(cells.indices, values, len(sums))
        squares += np.bincount(cells.indices, values * values, len(sums))
    means, n = sums / len(rows), len(rows)
    return means, (squares / n - means**2) * (n / max(n - 1, 1))


def choose_variable(means: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Choose variable genes by Seurat's dispersions, as :func:`scanpy.pp.highly_variable_genes`.

    Parameters
    ----------
    means, variances
        (genes,) of normalised counts.

    Returns
    -------
    ndarray of int
        Sorted rows of at most :data:`VARIABLE_GENES` genes.
    """
    means = np.where(means == 0, 1e-12, means)
    dispersions = variances / means
    dispersions[dispersions == 0] = np.nan
    genes = pd.DataFrame({"mean": np.log1p(means), "dispersion": np.log(dispersions)})
    in_bin = genes.groupby(pd.cut(genes["mean"], 20), observed=True)["dispersion"]
    mean, deviation = in_bin.transform("mean"), in_bin.transform("std")
    # The only gene of a bin gets 1.
    is_only = deviation.isna()
    mean[is_only], deviation[is_only] = 0, mean[is_only]
    normalised = (genes["dispersion"] - mean) / deviation
    is_variable = genes["mean"].between(0.0125, 3, inclusive="neither") & (normalised > 0.5)
    return np.sort(normalised[is_variable].nlargest(VARIABLE_GENES).index.to_numpy())


def compute_weights(cells: sparse.csr_matrix) -> sparse.dia_array:
    """Compute the diagonal matrix that scales genes to a variance of one."""
    _, variances = mean_variance_axis(cells, axis=0)
    return sparse.diags_array(np.sqrt((cells.shape[0] - 1) / cells.shape[0] / variances))
