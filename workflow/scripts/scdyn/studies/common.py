"""Shared by all studies: selection of predictions, layouts, sections, and intervals of means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from scdyn.errors import InputError
from scdyn.io.artefacts import read_columns
from scdyn.pp.metadata import read_selected_cells

MODEL, BASELINE = "scdynomics", "logistic_regression"
# Most cells of a layout and of a pseudotime, which need their nearest neighbours.
MAX_SHOWN = 50_000
GROUPS = ("control", "perturbed")
INTERVAL = (2.5, 97.5)  # percentiles of a 95% interval


def read_study_cells(path: str | Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read what a study needs of the table of cells: some columns, the sample and positions.

    Parameters
    ----------
    path
        Of :func:`scdyn.pp.metadata.write_cells`.
    columns
        The columns.
    """
    positions = {"x", "y"}.intersection(read_columns(path))
    return read_selected_cells(path, ["sample", *sorted(positions), *columns])


def select_method(predictions: pd.DataFrame, method: str) -> pd.DataFrame:
    """Select all predictions of a method, indexed by cell.

    Raises
    ------
    InputError
        If the method has no predictions.
    """
    table = predictions[predictions["method"] == method]
    if table.empty:
        raise InputError(
            "STUDY",
            f"the task has no predictions by '{method}'; add it to the task's baselines.",
        )
    return table.set_index("cell")


def select_predicted(predictions: pd.DataFrame, method: str) -> pd.DataFrame:
    """Select a method's predictions of new cells, or of held-out cells if there are no new ones."""
    table = select_method(predictions, method)
    part = "predict" if (table["part"] == "predict").any() else "test"
    return table[table["part"] == part]


def extract_probabilities(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns ``p_<class>`` of a table of predictions, named by class."""
    return table.filter(regex="^p_").rename(columns=lambda name: name[2:])


def as_text(column: pd.Series) -> pd.Series:
    """Convert a column to text; missing values become ""."""
    return column.astype(object).where(column.notna(), "").astype(str)


def tabulate_cells(obs: pd.DataFrame, predictions: pd.DataFrame, label: str) -> pd.DataFrame:
    """Tabulate the labels and predictions of each predicted cell.

    Parameters
    ----------
    obs
        The table of cells.
    predictions, label
        The task's predictions, and the column of its label.

    Returns
    -------
    DataFrame
        One row per predicted cell, in the order of the table: ``cell``, ``label``, ``predicted``,
        ``confidence`` (probability of the predicted class), ``logistic_regression`` (its
        prediction), ``sample``, ``part`` ("test" or "predict").
    """
    model, baseline = select_method(predictions, MODEL), select_method(predictions, BASELINE)
    names = obs.index[obs.index.isin(model.index)]
    model = model.loc[names]
    return pd.DataFrame(
        {
            "cell": names,
            "label": as_text(obs.loc[names, label]).to_numpy(),
            "predicted": model["predicted"].to_numpy(),
            "confidence": extract_probabilities(model).max(axis=1).to_numpy(),
            "logistic_regression": baseline["predicted"].reindex(names).to_numpy(),
            "sample": obs.loc[names, "sample"].astype(str).to_numpy(),
            "part": model["part"].to_numpy(),
        }
    )


def have_positions(obs: pd.DataFrame) -> bool:
    """Tell whether the table of cells has positions, ``x`` and ``y``."""
    return {"x", "y"} <= set(obs)


def get_positions(obs: pd.DataFrame) -> np.ndarray:
    """Get the positions on the section: (cells, 2), NaN for cells without a position.

    Raises
    ------
    InputError
        If the cells have no positions.
    """
    if not have_positions(obs):
        raise InputError(
            "STUDY",
            "the cells have no positions; add columns x and y to the metadata of the sample sheet, "
            "or remove the spatial study from the config.",
        )
    return obs[["x", "y"]].to_numpy(dtype=float)


def get_sections(obs: pd.DataFrame, column: str) -> pd.Series:
    """Get the section of each cell from a column of the table of cells.

    Raises
    ------
    InputError
        If the column does not exist.
    """
    if column not in obs:
        raise InputError(
            "STUDY",
            f"studies: section: the cells have no column '{column}' (columns: {', '.join(obs)}).",
        )
    return as_text(obs[column])


def turn_landscape(positions: np.ndarray) -> np.ndarray:
    """Turn a section so that its longer side is horizontal: (cells, 2) to (cells, 2)."""
    extent = np.nanmax(positions, axis=0) - np.nanmin(positions, axis=0)
    return positions[:, ::-1] if extent[1] > extent[0] else positions


def tile_sections(positions: np.ndarray, section: pd.Series) -> np.ndarray:
    """Lay out sections in a grid, longer sides horizontal: (cells, 2) to (cells, 2)."""
    result = np.full(positions.shape, np.nan)
    members = [(section == name).to_numpy() for name in sorted(section.unique())]
    members = [m for m in members if np.isfinite(positions[m]).any()]
    for member in members:
        result[member] = turn_landscape(positions[member])
    extents = [np.nanmax(result[m], 0) - np.nanmin(result[m], 0) for m in members]
    step = np.maximum(1.08 * np.nanmax(extents, axis=0), 1e-9)
    # An aspect ratio of about 3 to 2.
    n_columns = int(
        np.clip(round(np.sqrt(1.5 * len(members) * step[1] / step[0])), 1, len(members))
    )
    for i, member in enumerate(members):
        corner = np.nanmin(result[member], 0)
        result[member] += step * [i % n_columns, -(i // n_columns)] - corner
    return result


def estimate_means(
    values: np.ndarray, weights: np.ndarray, seed: int, n_draws: int = 500
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimate weighted means over cells, with 95% percentile bootstrap intervals.

    Parameters
    ----------
    values
        (cells,).
    weights
        (points, cells), such as membership in bins, or a kernel around points of a pseudotime.
    seed, n_draws
        Seed and number of bootstrap draws.

    Returns
    -------
    mean, low, high : ndarray, (points,)
    """
    rng = np.random.default_rng(seed)
    n_cells = len(values)
    share = np.full(n_cells, 1 / n_cells)
    draws = []
    for _ in range(n_draws):
        drawn = rng.multinomial(n_cells, share)
        with np.errstate(invalid="ignore"):  # a bin without drawn cells
            draws.append((weights @ (drawn * values)) / (weights @ drawn))
    low, high = np.nanpercentile(draws, INTERVAL, axis=0)
    return weights @ values / weights.sum(1), low, high


def list_most_predicted(predicted: Sequence[str], n: int) -> list[str]:
    """List the ``n`` most frequently predicted classes, most frequent first."""
    return list(pd.Series(predicted).value_counts().index[:n])
