"""Predictions on tissue sections: positions, and spatial autocorrelation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scanpy as sc
from sklearn.neighbors import kneighbors_graph

from scdyn.log import logger
from scdyn.studies.common import (
    BASELINE,
    INTERVAL,
    MODEL,
    as_text,
    extract_probabilities,
    get_positions,
    get_sections,
    select_predicted,
    tabulate_cells,
    tile_sections,
)

NEIGHBOURS_ON_SECTION = 10
N_PERMUTATIONS = 199
MIN_CELLS_PER_SECTION = 30  # smaller sections are left out


def measure_coherence(
    positions: np.ndarray, values: pd.DataFrame, seed: int, n_permutations: int = N_PERMUTATIONS
) -> pd.DataFrame:
    """Compute Moran's I of values over nearest neighbours, with a permutation null.

    Parameters
    ----------
    positions
        (cells, 2).
    values
        (cells, classes), such as probabilities. Cells are permuted with all their classes.
    seed, n_permutations
        Seed and number of permutations.

    Returns
    -------
    DataFrame
        By class: ``morans_i`` (0 without, 1 with perfect autocorrelation; NaN for a constant),
        ``null_low``, ``null_high`` (95% of the permutations), ``p_value`` (share of permutations
        with a value at least as high, the observed one included).
    """
    rng = np.random.default_rng(seed)
    graph = kneighbors_graph(positions, min(NEIGHBOURS_ON_SECTION, len(positions) - 1))
    table = values.to_numpy(dtype=float).T
    varied = np.ptp(table, axis=1) > 0
    found = np.full(len(table), np.nan)
    null = np.full((n_permutations, len(table)), np.nan)
    if varied.any():
        found[varied] = sc.metrics.morans_i(graph, table[varied])
        for draw in null:
            permuted = table[varied][:, rng.permutation(len(positions))]
            draw[varied] = sc.metrics.morans_i(graph, permuted)
    result = pd.DataFrame({"morans_i": found}, index=values.columns)
    result["null_low"], result["null_high"] = np.percentile(null, INTERVAL, axis=0)
    higher = (null >= found).sum(0)
    result["p_value"] = np.where(varied, (1 + higher) / (1 + n_permutations), np.nan)
    return result


def coherence_table(
    positions: pd.DataFrame,
    section: pd.Series,
    predictions: pd.DataFrame,
    methods: Sequence[str],
    seed: int,
) -> pd.DataFrame:
    """Tabulate Moran's I of each class's probability, by section and method.

    Parameters
    ----------
    positions
        (cells, 2), NaN for cells without a position; indexed by cell.
    section
        Section of each cell.
    predictions
        The task's predictions.
    methods
        Methods to include.
    seed
        Seed of the permutations; the same for all methods.

    Returns
    -------
    DataFrame
        ``section``, ``method``, ``class``, ``n_cells``, ``n_predicted`` and the columns of
        :func:`measure_coherence`. Sections with fewer than ``MIN_CELLS_PER_SECTION`` predicted
        cells are left out.
    """
    placed = positions.index[positions.notna().all(axis=1)]
    parts = []
    for name, names in section.loc[placed].groupby(section.loc[placed]).groups.items():
        for method in methods:
            model = select_predicted(predictions, method)
            model = model.loc[model.index.intersection(names)]
            if len(model) < MIN_CELLS_PER_SECTION:
                continue
            part = measure_coherence(
                positions.loc[model.index].to_numpy(), extract_probabilities(model), seed
            )
            counts = model["predicted"].value_counts().reindex(part.index, fill_value=0)
            part.insert(0, "n_predicted", counts)
            part.insert(0, "n_cells", len(model))
            part = part.rename_axis("class").reset_index()
            part.insert(0, "method", method)
            part.insert(0, "section", name)
            parts.append(part)
    columns = ["section", "method", "class", "n_cells", "n_predicted", "morans_i"]
    columns += ["null_low", "null_high", "p_value"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def tabulate_placed_cells(
    obs: pd.DataFrame,
    positions: pd.DataFrame,
    section: pd.Series,
    predictions: pd.DataFrame,
    label: str,
) -> pd.DataFrame:
    """Tabulate all cells with a position on the sections that have predicted cells.

    Parameters
    ----------
    obs
        The table of cells.
    positions, section, predictions
        As :func:`coherence_table`.
    label
        Column of the task's label.

    Returns
    -------
    DataFrame
        Indexed by cell: ``label``; ``predicted``, ``confidence`` and ``logistic_regression``
        (missing for other cells than predicted ones); ``section``.
    """
    queries = select_predicted(predictions, MODEL).index
    placed = positions.notna().all(axis=1)
    logger.info("%d cells have no position", (~placed).sum())
    shown = placed & section.isin(section[section.index.isin(queries)].unique())
    names = obs.index[shown]
    table = pd.DataFrame({"label": as_text(obs.loc[names, label])})
    found = tabulate_cells(obs, predictions, label).set_index("cell")
    found = found.loc[found.index.isin(queries), ["predicted", "confidence", "logistic_regression"]]
    return table.join(found).assign(section=section[names])


@dataclass(frozen=True)
class Spatial:
    """Results of a spatial study."""

    coherence: pd.DataFrame
    """As :func:`coherence_table`, of the model and the baseline."""
    cells: pd.DataFrame
    """Every shown cell, as :func:`tabulate_placed_cells`."""
    positions: np.ndarray
    """(cells, 2) positions of these cells on their section."""
    layout: np.ndarray
    """(cells, 2) layout of these cells, sections in a grid."""


def study_sections(
    obs: pd.DataFrame, predictions: pd.DataFrame, *, label: str, section: str, seed: int
) -> Spatial:
    """Study predictions on tissue sections: their layout and spatial autocorrelation.

    Parameters
    ----------
    obs
        The table of cells, with their positions ``x`` and ``y``.
    predictions
        The task's predictions.
    label
        Column of the task's label.
    section
        Column of the sections.
    seed
        Seed of the permutations.
    """
    section_of = get_sections(obs, section)
    positions = pd.DataFrame(get_positions(obs), index=obs.index)
    coherence = coherence_table(positions, section_of, predictions, [MODEL, BASELINE], seed)
    table = tabulate_placed_cells(obs, positions, section_of, predictions, label)
    of_cells = positions.loc[table.index].to_numpy()
    return Spatial(coherence, table, of_cells, tile_sections(of_cells, table["section"]))
