"""Cells and genes for GRN inference: a stratified sample of the cells, or metacells."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.cluster import MiniBatchKMeans

from scdyn.data.corpus import Corpus
from scdyn.errors import InputError
from scdyn.io.artefacts import STAMP, make_stamp
from scdyn.io.files import atomic
from scdyn.log import logger
from scdyn.pp.counts import normalise, promoters_measured
from scdyn.pp.selection import draw_cells

# Coarse clusters of a corpus: enough to separate a rare cell type from its neighbours.
N_CLUSTERS = 20
# Most cells from which their centres are found.
CLUSTERED = 100_000


def find_coarse_clusters(components: np.ndarray, seed: int) -> np.ndarray:
    """Cluster cells by k-means on principal components (cells, components): (cells,) of int.

    The centres are those of at most :data:`CLUSTERED` cells.
    """
    rng = np.random.default_rng(seed)
    n_cells = len(components)
    chosen = np.sort(rng.permutation(n_cells)[:CLUSTERED])
    kmeans = MiniBatchKMeans(min(N_CLUSTERS, n_cells), random_state=seed, n_init=3)
    kmeans.fit(components[chosen])
    return kmeans.predict(components)


def make_metacells(corpus: Corpus, components: np.ndarray, max_cells: int, seed: int) -> ad.AnnData:
    """Sum the counts of similar cells of a sample, and normalise the sums.

    Cells are grouped by k-means on the principal components, per sample. Promoter counts are
    summed over the cells in which promoters were measured.

    Parameters
    ----------
    corpus
        The cells.
    components
        (cells, components) of the RNA.
    max_cells
        Number of metacells in total.
    seed
        Seed of k-means.

    Returns
    -------
    AnnData
        One row per metacell, with ``sample`` and ``n_cells``.
    """
    n_cells = len(corpus)
    share = min(1.0, max_cells / n_cells)
    group = np.full(n_cells, -1)
    for start, stop in zip(corpus.offsets, corpus.offsets[1:], strict=False):
        n_groups = max(1, int(share * (stop - start)))
        kmeans = MiniBatchKMeans(n_groups, random_state=seed, n_init=1)
        labels = np.unique(kmeans.fit_predict(components[start:stop]), return_inverse=True)[1]
        group[start:stop] = labels + group.max() + 1
    n_groups = group.max() + 1
    sums = {name: np.zeros((n_groups, corpus.n_genes), np.float32) for name in ("rna", "promoter")}
    for block in corpus.iter_blocks():
        here, of_block = np.unique(group[block.rows], return_inverse=True)
        ones = np.ones(len(of_block), np.int32)
        membership = sparse.csr_matrix((ones, (of_block, np.arange(len(of_block)))))
        for name, counts in block.layers.items():
            sums[name][here] += (membership @ counts.astype(np.int32)).toarray()
    # A metacell's promoters count as measured if those of any of its cells were.
    order = np.argsort(~corpus.measured, kind="stable")
    first = order[np.unique(group[order], return_index=True)[1]]
    obs = corpus.obs[["sample", "promoter_source"]].iloc[first]
    obs = obs.assign(n_cells=np.bincount(group))
    obs.index = pd.Index([f"metacell{i}" for i in range(len(obs))])
    result = ad.AnnData(
        sparse.csr_matrix(sums["rna"]), obs=obs, var=corpus.genes.set_index("gene_id")
    )
    result.layers["promoter"] = sparse.csr_matrix(sums["promoter"])
    normalise(result)
    return result


def choose_cells(
    corpus: Corpus, components: np.ndarray, how: str, max_cells: int, seed: int
) -> tuple[ad.AnnData, pd.DataFrame]:
    """Select the cells, or make the metacells, for GRN inference.

    Parameters
    ----------
    corpus
        The cells.
    components
        (cells, components) of the RNA.
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
        The cells or metacells, with the layers ``rna_log`` and ``promoter_log``.
    report : DataFrame
        One row per stratum: ``sample``, ``cluster`` (``drawn`` only), ``n_cells``, ``n_used``.
    """
    strata = corpus.obs[["sample"]].reset_index(drop=True)
    if how == "metacells":
        used = make_metacells(corpus, components, max_cells, seed)
        taken = used.obs[["sample"]]
    else:
        strata = strata.assign(cluster=find_coarse_clusters(components, seed))
        rows = draw_cells(strata, max_cells, seed)
        used, taken = corpus.to_memory(rows, ["rna_log", "promoter_log"]), strata.iloc[rows]
    name = "metacells" if how == "metacells" else "cells"
    logger.info("GRN inference on %d %s from %d cells", used.n_obs, name, len(corpus))
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
