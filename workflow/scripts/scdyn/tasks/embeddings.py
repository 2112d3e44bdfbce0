"""Comparison of embeddings of the same cells: scores and two-dimensional layouts."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import NearestNeighbors

from scdyn.errors import InputError
from scdyn.pp.neighbours import compute_pca, compute_umap

# Key of obsm to the prefix of its scores and its readable name.
EMBEDDINGS = {
    "X_scdyn": ("", "scDynOmics"),
    "X_pca": ("pca_", "PCA of RNA"),
    "X_pca_both": ("pca_both_", "PCA of RNA and promoters"),
    "X_scvi": ("scvi_", "scVI"),
}
SCORE_COLUMNS = ["space", "label", "kind", "metric", "value"]
MEAN = "mean"  # kind of the mean over a kind of metrics
OWN_METRICS = ("Neighbour accuracy", "Library size R2")
LIBRARY_SIZE = "library_size"


def gather_embeddings(
    embedded: ad.AnnData, cells: ad.AnnData, scvi: np.ndarray | None, seed: int
) -> ad.AnnData:
    """Collect the embeddings of a corpus in one AnnData.

    Parameters
    ----------
    embedded
        The model's, in ``obsm["X_scdyn"]``.
    cells
        The corpus, the same cells.
    scvi
        scVI's, (cells, latents); None if there is none.
    seed
        Seed of the PCA.

    Returns
    -------
    AnnData
        Without ``X``; the keys of :data:`EMBEDDINGS` in ``obsm``, RNA counts per cell in
        ``obs["library_size"]``.

    Raises
    ------
    InputError
        If the cells differ.
    """
    if not embedded.obs_names.equals(cells.obs_names):
        raise InputError(
            "CORPUS",
            "the cells of the embedding differ from those of the corpus; remove the embedding and "
            "run the workflow again.",
        )
    both = ("rna_log", "promoter_log")
    table = ad.AnnData(
        obs=cells.obs[["sample"]].copy(),
        obsm={
            "X_scdyn": embedded.obsm["X_scdyn"],
            "X_pca": compute_pca(cells, seed),
            "X_pca_both": compute_pca(cells, seed, layers=both),
        },
    )
    if scvi is not None:
        table.obsm["X_scvi"] = scvi
    table.obs[LIBRARY_SIZE] = np.asarray(sparse.csr_matrix(cells.X).sum(1)).ravel()
    return table


def neighbour_accuracy(values: np.ndarray, labels: np.ndarray, n_neighbours: int = 15) -> float:
    """Leave-one-out accuracy of a majority vote of nearest neighbours.

    Parameters
    ----------
    values
        (cells, features), such as an embedding.
    labels
        (cells,).
    n_neighbours
        Number of neighbours.

    Returns
    -------
    float
        0 to 1.
    """
    n_neighbours = min(n_neighbours, len(values) - 1)
    nearest = NearestNeighbors(n_neighbors=n_neighbours).fit(values).kneighbors()[1]
    votes = pd.DataFrame(np.asarray(labels)[nearest]).mode(axis=1)[0]
    return float((votes.to_numpy() == labels).mean())


def library_size_r2(values: np.ndarray, library_size: np.ndarray, n_components: int = 10) -> float:
    """Share of the variance of sequencing depth that an embedding explains.

    R2 of a linear regression of log counts on the embedding's first principal components. It is
    invariant under rotation and scaling of the embedding, unlike a correlation with single
    components.

    Parameters
    ----------
    values
        (cells, features).
    library_size
        (cells,) counts.
    n_components
        Largest number of principal components.

    Returns
    -------
    float
        0 to 1.
    """
    components = PCA(min(n_components, *values.shape), random_state=0).fit_transform(values)
    log_counts = np.log1p(library_size)
    return float(LinearRegression().fit(components, log_counts).score(components, log_counts))


def score_embeddings(table: ad.AnnData, labels: Sequence[str]) -> pd.DataFrame:
    """Score each embedding by neighbour accuracy and library size R2.

    Parameters
    ----------
    table
        As :func:`gather_embeddings` returns it, with the labels in ``obs``.
    labels
        Columns of ``obs``; cells without a label are left out.

    Returns
    -------
    DataFrame
        :data:`SCORE_COLUMNS`: key of :data:`EMBEDDINGS`, label ("" if the metric has none), kind,
        metric and value.
    """
    rows = []
    for key in filter(table.obsm.__contains__, EMBEDDINGS):
        values = np.asarray(table.obsm[key])
        for label in labels:
            labelled = table.obs[label].notna().to_numpy()
            names = table.obs.loc[labelled, label].astype(str).to_numpy()
            accuracy = neighbour_accuracy(values[labelled], names)
            rows.append((key, label, "labels kept", "Neighbour accuracy", accuracy))
        r2 = library_size_r2(values, table.obs[LIBRARY_SIZE].to_numpy())
        rows.append((key, "", "library size", "Library size R2", r2))
    return pd.DataFrame(rows, columns=SCORE_COLUMNS)


def flatten_scores(scores: pd.DataFrame) -> dict[str, float]:
    """Select the scores for scores.json: ``label.prefix_metric`` to the value.

    Parameters
    ----------
    scores
        Of :func:`score_embeddings`, and of scib-metrics if it was run, of which the means are
        taken.
    """
    result = {}
    for key, label, kind, metric, value in scores[SCORE_COLUMNS].itertuples(index=False):
        if kind == MEAN:
            metric = f"scib {metric}"
        elif metric not in OWN_METRICS:
            continue
        name = EMBEDDINGS[key][0] + metric.lower().replace(" ", "_")
        result[f"{label}.{name}" if label else name] = value
    return result


def lay_out_embeddings(table: ad.AnnData, seed: int) -> dict[str, np.ndarray]:
    """Compute the UMAP of each embedding: its key to (cells, 2).

    Parameters
    ----------
    table
        As :func:`gather_embeddings` returns it.
    seed
        See :func:`scdyn.pp.neighbours.compute_umap`.
    """
    return {key: compute_umap(table.obsm[key], seed) for key in EMBEDDINGS if key in table.obsm}
