"""Comparison of embeddings of the same cells: scores and two-dimensional layouts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import NearestNeighbors

from scdyn.data.corpus import Corpus
from scdyn.data.pca import Pca
from scdyn.errors import InputError
from scdyn.io.artefacts import STAMP, open_zarr, reading_artefact
from scdyn.pp.neighbours import compute_umap
from scdyn.pp.selection import draw_cells

# Most cells on which embeddings are compared. The time of scib-metrics grows with their square.
MAX_COMPARED = 20_000
# Key of obsm to the space of the principal components.
OF_PCA = {
    "X_pca": "rna",
    "X_pca_scaled": "rna_scaled",
    "X_pca_both": "both",
    "X_pca_both_scaled": "both_scaled",
}
# Key of obsm to the prefix of its scores and its readable name.
EMBEDDINGS = {
    "X_scdyn": ("", "scDynOmics"),
    "X_pca": ("pca_", "PCA of RNA"),
    "X_pca_scaled": ("pca_scaled_", "PCA of scaled RNA"),
    "X_pca_both": ("pca_both_", "PCA of RNA and promoters"),
    "X_pca_both_scaled": ("pca_both_scaled_", "PCA of scaled RNA and promoters"),
    "X_scvi": ("scvi_", "scVI"),
}
SCORE_COLUMNS = ["embedding", "label", "kind", "metric", "value"]
MEAN = "mean"  # kind of the mean over a kind of metrics
OWN_METRICS = ("Neighbour accuracy", "Library size R2", "Library size R2 within")
LIBRARY_SIZE = "library_size"


def draw_compared(
    corpus: Corpus, cells: pd.DataFrame, labels: Sequence[str], seed: int
) -> np.ndarray:
    """Draw the cells on which embeddings are compared, cells with a label first.

    Most scores need labels, and a draw of all cells may have hardly any.

    Parameters
    ----------
    corpus
        The cells.
    cells
        Of :func:`scdyn.pp.metadata.read_cells_table`.
    labels
        Columns of it, each of which gets the same number of cells, of its values in proportion; a
        column that it does not have is left out. The rest are other cells, of all samples in
        proportion.
    seed
        Seed of the draw.

    Returns
    -------
    ndarray
        Rows of at most :data:`MAX_COMPARED` cells, ascending.
    """
    obs = cells.reindex(corpus.obs.index)
    labels = [name for name in labels if name in obs]
    is_drawn = np.zeros(len(obs), dtype=bool)
    for label in labels:
        rows = np.flatnonzero(obs[label].notna())
        drawn = draw_cells(obs[[label]].iloc[rows], MAX_COMPARED // len(labels), seed)
        is_drawn[rows[drawn]] = True
    others = np.flatnonzero(~is_drawn)
    n_left = MAX_COMPARED - int(is_drawn.sum())
    is_drawn[others[draw_cells(corpus.obs[["sample"]].iloc[others], n_left, seed)]] = True
    return np.flatnonzero(is_drawn)


def read_embedding(path: str | Path, corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    """Read the model's embedding of some cells.

    Parameters
    ----------
    path
        Folder of :func:`scdyn.model.embedding.write_embedding`.
    corpus, rows
        Its corpus, and ascending rows of it.

    Returns
    -------
    ndarray of float32, (rows, components)

    Raises
    ------
    InputError
        If the folder cannot be read, or is of another corpus.
    """
    with reading_artefact(path):
        group = open_zarr(path)
        made_from = group.attrs[STAMP]["corpus"]
    if made_from != corpus.id:
        raise InputError(
            "CORPUS",
            f"{path}: is the embedding of another corpus than {corpus.folder}; remove the folder "
            "and run the workflow again.",
        )
    with reading_artefact(path):
        values: np.ndarray = group["obsm/X_scdyn"].oindex[rows]
        return values.astype(np.float32)


def gather_embeddings(
    corpus: Corpus, pca: Pca, path: str | Path, scvi: ad.AnnData | None, rows: np.ndarray
) -> ad.AnnData:
    """Collect the embeddings of the cells on which they are compared.

    Parameters
    ----------
    corpus, pca
        The corpus and its principal components.
    path
        The model's embedding, as :func:`read_embedding` reads it.
    scvi
        The same cells with ``obsm["X_scvi"]``; None if there is none.
    rows
        The cells, of :func:`draw_compared`.

    Returns
    -------
    AnnData
        Without ``X``; the keys of :data:`EMBEDDINGS` in ``obsm``, ``sample`` and ``library_size``
        (RNA counts per cell) in ``obs``.

    Raises
    ------
    InputError
        If an embedding is of another corpus.
    """
    obs = corpus.obs[["sample", "rna_counts"]].iloc[rows]
    table = ad.AnnData(
        obs=obs.rename(columns={"rna_counts": LIBRARY_SIZE}).set_axis(obs.index.astype(object)),
        obsm={
            "X_scdyn": read_embedding(path, corpus, rows),
            **{key: pca.select(rows, space) for key, space in OF_PCA.items()},
        },
    )
    if scvi is not None:
        if not scvi.obs_names.equals(table.obs_names):
            raise InputError(
                "CORPUS",
                "the cells of scVI's embedding are not those drawn from the corpus; remove the "
                "embedding and run the workflow again.",
            )
        table.obsm["X_scvi"] = scvi.obsm["X_scvi"]
    return table


def neighbour_accuracy(values: np.ndarray, labels: np.ndarray, n_neighbours: int = 15) -> float:
    """Mean share of a cell's nearest neighbours that have its label.

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
        0 to 1; NaN if there are fewer than two cells.
    """
    n_neighbours = min(n_neighbours, len(values) - 1)
    if n_neighbours < 1:
        return float("nan")
    nearest = NearestNeighbors(n_neighbors=n_neighbours).fit(values).kneighbors()[1]
    labels = np.asarray(labels)
    return float((labels[nearest] == labels[:, None]).mean())


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
    return compute_r2(values, np.log1p(library_size), n_components)


def compute_r2(values: np.ndarray, target: np.ndarray, n_components: int = 10) -> float:
    """Share of the variance of a number (cells,) that the first principal components explain."""
    components = PCA(min(n_components, *values.shape), random_state=0).fit_transform(values)
    return float(LinearRegression().fit(components, target).score(components, target))


def centre_by_label(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Subtract the mean of each label from its cells: values (cells, features)."""
    values = np.asarray(values, dtype=np.float64)
    numbers, places = np.unique(labels, return_inverse=True)
    sums = np.zeros((len(numbers), values.shape[1]))
    np.add.at(sums, places, values)
    return values - (sums / np.bincount(places)[:, None])[places]


def library_size_r2_within(
    values: np.ndarray, library_size: np.ndarray, labels: np.ndarray
) -> float:
    """Compute :func:`library_size_r2` within labels, which differ in depth themselves.

    Embedding and log counts are both centred per label (cells,).
    """
    log_counts = centre_by_label(np.log1p(library_size)[:, None], labels)[:, 0]
    return compute_r2(centre_by_label(values, labels), log_counts)


def score_embeddings(table: ad.AnnData, labels: Sequence[str]) -> pd.DataFrame:
    """Score each embedding by neighbour accuracy and library size R2, overall and within labels.

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
        metric and value; NaN if too few cells have the label.
    """
    rows = []
    for key in filter(table.obsm.__contains__, EMBEDDINGS):
        values = np.asarray(table.obsm[key])
        for label in labels:
            labelled = table.obs[label].notna().to_numpy()
            names = table.obs.loc[labelled, label].astype(str).to_numpy()
            accuracy = neighbour_accuracy(values[labelled], names)
            rows.append((key, label, "labels kept", "Neighbour accuracy", accuracy))
            within = np.nan
            if len(names) > 1:
                depth = table.obs.loc[labelled, LIBRARY_SIZE].to_numpy()
                within = library_size_r2_within(values[labelled], depth, names)
            rows.append((key, label, "library size", "Library size R2 within", within))
        r2 = library_size_r2(values, table.obs[LIBRARY_SIZE].to_numpy())
        rows.append((key, "", "library size", "Library size R2", r2))
    return pd.DataFrame(rows, columns=SCORE_COLUMNS)


def flatten_scores(scores: pd.DataFrame) -> dict[str, float]:
    """Select the scores for scores.json: ``label.prefix_metric`` to the value; none that is NaN.

    Parameters
    ----------
    scores
        Of :func:`score_embeddings`, and of scib-metrics if it was run, of which the means are
        taken.
    """
    result = {}
    for key, label, kind, metric, value in (
        scores[SCORE_COLUMNS].dropna(subset="value").itertuples(index=False)
    ):
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
