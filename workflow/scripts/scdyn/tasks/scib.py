"""Metrics of scib-metrics, in an environment of their own: it pulls igraph, under the GPL."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
from scib_metrics.benchmark import BatchCorrection, Benchmarker, BioConservation
from scib_metrics.nearest_neighbors import NeighborsResults
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from scdyn.errors import InputError
from scdyn.log import logger
from scdyn.tasks.embeddings import MEAN, SCORE_COLUMNS

# Some metrics take time and memory by the square of the cells.
MAX_CELLS = 20_000
# A wider embedding is reduced to its principal components, as genes would be.
MAX_DIMENSIONS = 50
# Its kinds of metrics, and what they are called here.
KIND_OF = {"Bio conservation": "labels kept", "Batch correction": "batches mixed"}
SCIB_NEIGHBOURS = 90  # which its metrics ask for


def score_with_scib(
    table: ad.AnnData, spaces: Sequence[str], label: str, batch: str, seed: int
) -> pd.DataFrame:
    """Score embeddings by scib-metrics (Luecken et al. 2022, Nat Methods 19:41).

    Parameters
    ----------
    table
        Cells with embeddings in ``obsm``; ``X_pca`` is what batches explain before any mixing.
    spaces
        Keys of the embeddings that are scored.
    label, batch
        Columns of the cells; those without a label are left out, and of more than 20,000 as many
        are drawn. With one batch, what says how well batches are mixed is left out.
    seed
        Of the draw.

    Returns
    -------
    DataFrame
        ``space``, ``label``, ``kind``, ``metric`` and ``value``: 0 to 1, the more the better.
        The means of "labels kept" and "batches mixed" are of the kind "mean".

    Raises
    ------
    InputError
        If fewer cells have a label than its metrics look at neighbours.
    """
    rows = np.flatnonzero(table.obs[label].notna())
    if len(rows) < SCIB_NEIGHBOURS:
        raise InputError(
            "PEERS",
            f"{len(rows)} cells have a '{label}', and scib-metrics looks at {SCIB_NEIGHBOURS} "
            "neighbours; set peers to false in the config to do without it.",
        )
    if len(rows) > MAX_CELLS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_CELLS, replace=False))
    chosen = ad.AnnData(obs=table.obs.iloc[rows][[label, batch]].astype(str).astype("category"))
    for key in {*spaces, "X_pca"}:
        chosen.obsm[key] = reduce_dimensions(np.asarray(table.obsm[key])[rows])
    several = chosen.obs[batch].nunique() > 1
    if not several:
        logger.info("column '%s' has one value: how batches mix is not measured", batch)
    benchmark = Benchmarker(
        chosen,
        batch,
        label,
        list(spaces),
        BioConservation(),
        BatchCorrection() if several else None,
        pre_integrated_embedding_obsm_key="X_pca",
        progress_bar=False,
    )
    benchmark.prepare(find_nearest)
    benchmark.benchmark()
    return melt_scores(benchmark.get_results(min_max_scale=False), label)


def reduce_dimensions(values: np.ndarray) -> np.ndarray:
    """Reduce an embedding (cells, features) to 50 principal components, if it has more."""
    if values.shape[1] <= MAX_DIMENSIONS:
        return values
    return PCA(MAX_DIMENSIONS, random_state=0).fit_transform(values)


def find_nearest(values: np.ndarray, n_neighbours: int) -> NeighborsResults:
    """Find each cell's nearest, itself first, exactly: the same on every machine."""
    distances, indices = NearestNeighbors(n_neighbors=n_neighbours).fit(values).kneighbors(values)
    return NeighborsResults(indices=indices, distances=distances)


def melt_scores(wide: pd.DataFrame, label: str) -> pd.DataFrame:
    """Turn scib-metrics' table, a row an embedding and a column a metric, into a row a value."""
    kinds = wide.loc["Metric Type"].replace({**KIND_OF, "Aggregate score": MEAN})
    # The means are kept in the order of their kinds.
    metrics = [name for name in wide if name not in KIND_OF] + [n for n in KIND_OF if n in wide]
    table = wide.drop(index="Metric Type")[metrics].rename_axis("space").reset_index()
    table = table.melt("space", var_name="metric")
    table["kind"] = table["metric"].map(kinds)
    table = table[table["metric"] != "Total"].replace({"metric": KIND_OF}).assign(label=label)
    return table.astype({"value": float})[SCORE_COLUMNS]
