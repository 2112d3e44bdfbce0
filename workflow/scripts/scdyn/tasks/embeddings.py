"""Embeddings of the same cells side by side, and how good each of them is."""

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

# Keys of obsm: what begins the names of its scores, and what it is called.
EMBEDDINGS = {
    "X_scdyn": ("", "scDynOmics"),
    "X_pca": ("pca_", "PCA of RNA"),
    "X_pca_both": ("pca_both_", "PCA of RNA and promoters"),
    "X_scvi": ("scvi_", "scVI"),
}
SCORE_COLUMNS = ["space", "label", "kind", "metric", "value"]
MEAN = "mean"  # the kind of what sums up a kind
OWN_METRICS = ("Neighbour accuracy", "Library size R2")
LIBRARY_SIZE = "library_size"


def gather_embeddings(
    embedded: ad.AnnData, cells: ad.AnnData, scvi: np.ndarray | None, seed: int
) -> ad.AnnData:
    """Put the embeddings of a corpus' cells beside each other.

    Parameters
    ----------
    embedded
        The model's, in ``obsm["X_scdyn"]``.
    cells
        The corpus, the same cells.
    scvi
        scVI's, (cells, latents); None if there is none.
    seed
        Of the principal components.

    Returns
    -------
    AnnData
        Without ``X``; the keys of :data:`EMBEDDINGS` in ``obsm``, RNA counts a cell in
        ``obs["library_size"]``.

    Raises
    ------
    InputError
        If the cells are others.
    """
    if not embedded.obs_names.equals(cells.obs_names):
        raise InputError(
            "CORPUS",
            "the embedding has other cells than the corpus; remove it and run the workflow again.",
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
    """How often the nearest other cells, by majority, have a cell's label.

    Parameters
    ----------
    values
        (cells, features), such as an embedding.
    labels
        (cells,).
    n_neighbours
        Neighbours that vote.

    Returns
    -------
    float
        Share of cells, 0 to 1.
    """
    n_neighbours = min(n_neighbours, len(values) - 1)
    nearest = NearestNeighbors(n_neighbors=n_neighbours).fit(values).kneighbors()[1]
    votes = pd.DataFrame(np.asarray(labels)[nearest]).mode(axis=1)[0]
    return float((votes.to_numpy() == labels).mean())


def library_size_r2(values: np.ndarray, library_size: np.ndarray, n_components: int = 10) -> float:
    """Tell how much of an embedding's main directions is the depth of sequencing.

    The share of the variance of log counts that a linear regression on the embedding's first
    principal components explains, the square of their multiple correlation. It does not change
    if the embedding is turned or scaled, as a correlation with single components would.

    Parameters
    ----------
    values
        (cells, features).
    library_size
        (cells,) counts.
    n_components
        Principal components, or as many as there are features.

    Returns
    -------
    float
        0 (none) to 1.
    """
    components = PCA(min(n_components, *values.shape), random_state=0).fit_transform(values)
    log_counts = np.log1p(library_size)
    return float(LinearRegression().fit(components, log_counts).score(components, log_counts))


def score_embeddings(table: ad.AnnData, labels: Sequence[str]) -> pd.DataFrame:
    """Score each embedding by what needs no further library.

    Parameters
    ----------
    table
        As :func:`gather_embeddings` returns it, with the labels in ``obs``.
    labels
        Columns of the cells; those without a label are left out.

    Returns
    -------
    DataFrame
        :data:`SCORE_COLUMNS`: key of :data:`EMBEDDINGS`, label ("" where the metric is of none), kind,
        metric and value.
    """
    rows = []
    for space in filter(table.obsm.__contains__, EMBEDDINGS):
        values = np.asarray(table.obsm[space])
        for label in labels:
            known = table.obs[label].notna().to_numpy()
            names = table.obs.loc[known, label].astype(str).to_numpy()
            accuracy = neighbour_accuracy(values[known], names)
            rows.append((space, label, "labels kept", "Neighbour accuracy", accuracy))
        r2 = library_size_r2(values, table.obs[LIBRARY_SIZE].to_numpy())
        rows.append((space, "", "library size", "Library size R2", r2))
    return pd.DataFrame(rows, columns=SCORE_COLUMNS)


def flatten_scores(scores: pd.DataFrame) -> dict[str, float]:
    """Name what a reader asks first as scores.json does: ``label.prefix_metric`` to the value.

    Parameters
    ----------
    scores
        Of :func:`score_embeddings`, and of scib-metrics where it was run; of the latter the means
        are taken.
    """
    result = {}
    for space, label, kind, metric, value in scores[SCORE_COLUMNS].itertuples(index=False):
        if kind == MEAN:
            metric = f"scib {metric}"
        elif metric not in OWN_METRICS:
            continue
        name = EMBEDDINGS[space][0] + metric.lower().replace(" ", "_")
        result[f"{label}.{name}" if label else name] = value
    return result


def lay_out_embeddings(table: ad.AnnData, seed: int) -> dict[str, np.ndarray]:
    """Lay the cells out in two dimensions by each embedding: its key to (cells, 2).

    Parameters
    ----------
    table
        As :func:`gather_embeddings` returns it.
    seed
        Of :func:`scdyn.pp.neighbours.compute_umap`.
    """
    return {
        space: compute_umap(table.obsm[space], seed) for space in EMBEDDINGS if space in table.obsm
    }
