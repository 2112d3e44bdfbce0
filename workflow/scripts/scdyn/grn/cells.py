"""Cells and genes for GRN inference: a stratified sample of the cells, or metacells."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.cluster import MiniBatchKMeans

from scdyn.errors import InputError
from scdyn.io.artefacts import STAMP, make_stamp
from scdyn.io.files import atomic
from scdyn.log import logger
from scdyn.pp.counts import normalise, promoters_measured
from scdyn.pp.neighbours import compute_pca

# Coarse clusters of a corpus: enough to separate a rare cell type from its neighbours.
N_CLUSTERS = 20
# Fewest cells sampled per stratum; all of a smaller stratum.
LEAST_OF_STRATUM = 10


def coarse_clusters(cells: ad.AnnData, seed: int) -> np.ndarray:
    """Cluster cells by k-means on the principal components of the RNA: (cells,) of int."""
    components = compute_pca(cells, seed)
    n_clusters = min(N_CLUSTERS, len(components))
    kmeans = MiniBatchKMeans(n_clusters, random_state=seed, n_init=3)
    return kmeans.fit_predict(components)


def draw_cells(strata: pd.DataFrame, max_cells: int, seed: int) -> np.ndarray:
    """Sample cells from all strata in proportion, but at least a few per stratum.

    Parameters
    ----------
    strata
        One row per cell; a stratum is the cells that agree in all columns.
    max_cells
        Number of cells to sample.
    seed
        Seed of the sample.

    Returns
    -------
    ndarray
        Rows of the sampled cells, ascending; ``max_cells`` of them, or all if there are fewer.
    """
    rng = np.random.default_rng(seed)
    groups = list(strata.groupby(list(strata), observed=True, sort=True).indices.values())
    sizes = np.array([len(group) for group in groups])
    if sizes.sum() <= max_cells:
        return np.arange(len(strata))
    least = min(LEAST_OF_STRATUM, max_cells // len(groups))
    expected = np.maximum(sizes * (max_cells / sizes.sum()), np.minimum(least, sizes))
    floor = np.minimum(least, sizes)
    # Scale the shares above the minimum so that the sum is max_cells.
    spare = (max_cells - floor.sum()) / max((expected - floor).sum(), 1e-12)
    expected = floor + (expected - floor) * spare
    numbers = np.floor(expected).astype(int)
    remainder = max_cells - numbers.sum()
    numbers[np.argsort(numbers - expected, kind="stable")[:remainder]] += 1
    drawn = [
        rng.choice(group, number, replace=False)
        for group, number in zip(groups, numbers, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def make_metacells(cells: ad.AnnData, max_cells: int, seed: int) -> ad.AnnData:
    """Sum the counts of similar cells of a sample, and normalise the sums.

    Cells are grouped by k-means on the principal components, per sample. Promoter counts are
    summed over the cells in which promoters were measured.

    Parameters
    ----------
    cells
        Counts in ``X`` and ``layers["promoter"]``, and ``layers["rna_log"]``.
    max_cells
        Number of metacells in total.
    seed
        Seed of the principal components and of k-means.

    Returns
    -------
    AnnData
        One row per metacell, with ``sample`` and ``n_cells``.
    """
    components = compute_pca(cells, seed)
    share = min(1.0, max_cells / cells.n_obs)
    group = np.full(cells.n_obs, -1)
    for members in cells.obs.groupby("sample", observed=True).indices.values():
        n_groups = max(1, int(share * len(members)))
        kmeans = MiniBatchKMeans(n_groups, random_state=seed, n_init=1)
        labels = np.unique(kmeans.fit_predict(components[members]), return_inverse=True)[1]
        group[members] = labels + group.max() + 1
    n_cells = np.bincount(group)
    membership = sparse.csr_matrix(
        (np.ones(cells.n_obs, np.int64), (group, np.arange(cells.n_obs)))
    )
    # A metacell's promoters count as measured if those of any of its cells were.
    order = np.argsort(~promoters_measured(cells.obs), kind="stable")
    first = order[np.unique(group[order], return_index=True)[1]]
    obs = cells.obs[["sample", "promoter_source"]].iloc[first].assign(n_cells=n_cells)
    obs.index = [f"metacell{i}" for i in range(len(obs))]
    result = ad.AnnData(membership @ cells.X, obs=obs, var=cells.var)
    result.layers["promoter"] = membership @ cells.layers["promoter"]
    normalise(result)
    return result


def choose_cells(
    cells: ad.AnnData, how: str, max_cells: int, seed: int
) -> tuple[ad.AnnData, pd.DataFrame]:
    """Select the cells, or make the metacells, for GRN inference.

    Parameters
    ----------
    cells
        The corpus.
    how
        ``drawn``: a sample of the cells, stratified by sample and coarse cluster; ``metacells``:
        sums of similar cells.
    max_cells
        Most rows of the result; all cells of a smaller corpus (``drawn``).
    seed
        Seed of clusters, sampling and metacells.

    Returns
    -------
    used : AnnData
        The cells or metacells.
    report : DataFrame
        One row per stratum: ``sample``, ``cluster`` (``drawn`` only), ``n_cells``, ``n_used``.
    """
    if how == "metacells":
        strata, used = cells.obs[["sample"]], make_metacells(cells, max_cells, seed)
        taken = used.obs[["sample"]]
    else:
        strata = cells.obs[["sample"]].assign(cluster=coarse_clusters(cells, seed))
        rows = draw_cells(strata, max_cells, seed)
        used, taken = cells[rows], strata.iloc[rows]
    name = "metacells" if how == "metacells" else "cells"
    logger.info("GRN inference on %d %s from %d cells", used.n_obs, name, cells.n_obs)
    sizes = [table.groupby(list(table), observed=True).size() for table in (strata, taken)]
    report = pd.concat(sizes, axis=1, keys=["n_cells", "n_used"]).fillna(0).astype(int)
    return used, report.reset_index()


def choose_genes(cells: ad.AnnData, min_cells_share: float) -> np.ndarray:
    """Find the genes for GRN inference: detected in enough cells, and not constant.

    Parameters
    ----------
    cells
        ``layers["rna_log"]``; ``var["symbol"]``, ``var["is_tf"]``.
    min_cells_share
        Genes detected in a smaller share of the cells are left out.

    Returns
    -------
    ndarray of bool, (genes,)

    Raises
    ------
    InputError
        If no TF is among them.
    """
    values = sparse.csc_matrix(cells.layers["rna_log"])
    detected = values.getnnz(0) >= max(3, min_cells_share * cells.n_obs)
    varies = values.max(0).toarray().ravel() > values.min(0).toarray().ravel()
    # cisTarget databases have symbols; of several gene ids with one symbol the first is used.
    kept = detected & varies & ~cells.var["symbol"].astype(str).duplicated().to_numpy()
    is_tf = cells.var["is_tf"].to_numpy()
    logger.info(
        "GRN inference on %d genes, including %d of %d TFs; left out: %d genes detected in too few "
        "cells, %d constant genes",
        *(kept.sum(), (kept & is_tf).sum(), is_tf.sum()),
        *((~detected).sum(), (detected & ~varies).sum()),
    )
    if not (kept & is_tf).any():
        raise InputError(
            "TFS",
            f"none of the {is_tf.sum()} TFs is detected in {min_cells_share:.1%} of the cells; "
            "lower grn.min_cells_share, or check reference.tfs.",
        )
    return kept


def write_expression(cells: ad.AnnData, genes: np.ndarray, path: Path) -> None:
    """Write expression and promoter accessibility of the selected cells and genes.

    :func:`scdyn.grn.expression.read_expression` reads the expression.

    Parameters
    ----------
    cells
        ``layers["rna_log"]``, ``layers["promoter_log"]``, ``obs["promoter_source"]``.
    genes
        (genes,) of bool: the columns to write.
    path
        The h5ad file: ``X`` is the RNA (CSC), ``layers["promoter_log"]`` the promoters (CSC).
    """
    chosen = cells[:, genes]
    table = ad.AnnData(
        sparse.csc_matrix(chosen.layers["rna_log"]),
        # Plain strings, because h5py reads categories as their codes.
        obs=pd.DataFrame(
            {
                "sample": cells.obs["sample"].astype(object),
                "promoters_measured": promoters_measured(cells.obs),
            }
        ),
        var=chosen.var[["symbol", "is_tf"]].astype({"symbol": object}),
        layers={"promoter_log": sparse.csc_matrix(chosen.layers["promoter_log"])},
    )
    with atomic(path) as temporary:
        table.uns[STAMP] = make_stamp()
        table.write_h5ad(temporary, convert_strings_to_categoricals=False)
