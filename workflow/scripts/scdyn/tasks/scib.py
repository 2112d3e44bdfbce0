"""Metrics of scib-metrics, in a separate environment because it requires igraph (GPL)."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
from scib_metrics.benchmark import BatchCorrection, Benchmarker, BioConservation
from scib_metrics.nearest_neighbors import NeighborsResults
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from scdyn.log import logger
from scdyn.tasks.embeddings import MEAN, SCORE_COLUMNS

# A wider embedding is reduced to this many principal components.
MAX_DIMENSIONS = 50
# Kinds of metrics in scib-metrics, and their names here.
KIND_OF = {"Bio conservation": "labels kept", "Batch correction": "batches mixed"}
SCIB_NEIGHBOURS = 90  # required by its metrics


def score_with_scib(
    table: ad.AnnData, embeddings: Sequence[str], label: str, batch: str
) -> pd.DataFrame:
    """Score embeddings by scib-metrics (Luecken et al. 2022, Nat Methods 19:41).

    Parameters
    ----------
    table
        Cells with embeddings in ``obsm``, not many, because time and memory of some metrics grow
        with the square of their number; ``X_pca`` is the embedding without batch correction.
    embeddings
        Keys of the embeddings that are scored.
    label, batch
        Columns of the cells; cells without a label are left out. With a single batch the metrics of
        batch correction are left out.

    Returns
    -------
    DataFrame
        ``embedding``, ``label``, ``kind``, ``metric`` and ``value``: 0 to 1, higher is better. The
        means of "labels kept" and "batches mixed" are of the kind "mean". If fewer than 90 cells
        have a label, only the mean of "labels kept", NaN.
    """
    rows = np.flatnonzero(table.obs[label].notna())
    if len(rows) < SCIB_NEIGHBOURS:
        logger.warning(
            "'%s' is not scored: %d cells have a value, and scib-metrics needs %d neighbours per "
            "cell", label, len(rows), SCIB_NEIGHBOURS,
        )  # fmt: skip
        missing = (label, MEAN, KIND_OF["Bio conservation"], np.nan)
        return pd.DataFrame([(key, *missing) for key in embeddings], columns=SCORE_COLUMNS)
    chosen = ad.AnnData(obs=table.obs.iloc[rows][[label, batch]].astype(str).astype("category"))
    for key in {*embeddings, "X_pca"}:
        chosen.obsm[key] = reduce_dimensions(np.asarray(table.obsm[key])[rows])
    several = chosen.obs[batch].nunique() > 1
    if not several:
        logger.info("column '%s' has a single value: batch correction is not scored", batch)
    benchmark = Benchmarker(
        chosen,
        batch,
        label,
        list(embeddings),
        BioConservation(),
        BatchCorrection() if several else None,
        pre_integrated_embedding_obsm_key="X_pca",
        progress_bar=False,
    )
    benchmark.prepare(find_nearest)
    benchmark.benchmark()
    return melt_scores(benchmark.get_results(min_max_scale=False), label)


def reduce_dimensions(values: np.ndarray) -> np.ndarray:
    """Reduce an embedding (cells, features) with more than 50 features by PCA."""
    if values.shape[1] <= MAX_DIMENSIONS:
        return values
    return PCA(MAX_DIMENSIONS, random_state=0).fit_transform(values)


def find_nearest(values: np.ndarray, n_neighbours: int) -> NeighborsResults:
    """Find the exact nearest neighbours of each cell, itself first; deterministic."""
    distances, indices = NearestNeighbors(n_neighbors=n_neighbours).fit(values).kneighbors(values)
    return NeighborsResults(indices=indices, distances=distances)


def melt_scores(wide: pd.DataFrame, label: str) -> pd.DataFrame:
    """Melt scib-metrics' table (embeddings, metrics) to one row per value."""
    kinds = wide.loc["Metric Type"].replace({**KIND_OF, "Aggregate score": MEAN})
    # Means follow in the order of their kinds.
    metrics = [name for name in wide if name not in KIND_OF] + [n for n in KIND_OF if n in wide]
    table = wide.drop(index="Metric Type")[metrics].rename_axis("embedding").reset_index()
    table = table.melt("embedding", var_name="metric")
    table["kind"] = table["metric"].map(kinds)
    table = table[table["metric"] != "Total"].replace({"metric": KIND_OF}).assign(label=label)
    return table.astype({"value": float})[SCORE_COLUMNS]
