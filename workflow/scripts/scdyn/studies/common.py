"""What the studies share: whose calls they show, in which colours, and how sure a mean is."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd

from scdyn.errors import InputError
from scdyn.pp.neighbours import compute_pca, compute_umap

MODEL, BASELINE = "scdynomics", "logistic_regression"
GROUPS = ("control", "perturbed")
INTERVAL = (2.5, 97.5)  # percentiles of a 95% interval


def select_method(calls: pd.DataFrame, method: str) -> pd.DataFrame:
    """All of a method's calls, indexed by cell.

    Raises
    ------
    InputError
        If the method called nothing.
    """
    table = calls[calls["method"] == method]
    if table.empty:
        raise InputError(
            "STUDY",
            f"the task's predictions have no calls by '{method}'; they have "
            f"{', '.join(calls['method'].unique())}.",
        )
    return table.set_index("cell")


def select_predicted(calls: pd.DataFrame, method: str) -> pd.DataFrame:
    """Calls of the cells that a task predicts, or of the tested ones where it predicts none."""
    table = select_method(calls, method)
    part = "predict" if (table["part"] == "predict").any() else "test"
    return table[table["part"] == part]


def extract_probabilities(table: pd.DataFrame) -> pd.DataFrame:
    """The columns ``p_<class>`` of a table of calls, named by class."""
    return table.filter(regex="^p_").rename(columns=lambda name: name[2:])


def as_text(column: pd.Series) -> pd.Series:
    """A column as text, with "" where a value is missing."""
    return column.astype(object).where(column.notna(), "").astype(str)


def tabulate_cells(cells: ad.AnnData, calls: pd.DataFrame, label: str) -> pd.DataFrame:
    """What is known of each called cell, and what it is called.

    Returns
    -------
    DataFrame
        A row a called cell, in the corpus' order: ``cell``, ``label``, ``predicted``,
        ``confidence`` (the called class's probability), ``logistic_regression`` (its call),
        ``sample``, ``part`` ("test" or "predict").
    """
    model, baseline = select_method(calls, MODEL), select_method(calls, BASELINE)
    names = cells.obs_names[cells.obs_names.isin(model.index)]
    model = model.loc[names]
    return pd.DataFrame(
        {
            "cell": names,
            "label": as_text(cells.obs.loc[names, label]).to_numpy(),
            "predicted": model["predicted"].to_numpy(),
            "confidence": extract_probabilities(model).max(axis=1).to_numpy(),
            "logistic_regression": baseline["predicted"].reindex(names).to_numpy(),
            "sample": cells.obs.loc[names, "sample"].astype(str).to_numpy(),
            "part": model["part"].to_numpy(),
        }
    )


def lay_out_rna(cells: ad.AnnData, seed: int) -> np.ndarray:
    """UMAP of the RNA's principal components, which no call depends on: (cells, 2)."""
    return compute_umap(compute_pca(cells, seed), seed)


def get_positions(cells: ad.AnnData) -> np.ndarray:
    """Positions on the section, (cells, 2), NaN where a cell has none.

    Raises
    ------
    InputError
        If the cells have no positions.
    """
    if "spatial" not in cells.obsm:
        raise InputError(
            "STUDY",
            "the cells have no positions: give columns x and y in the sample sheet's metadata, or "
            "leave the spatial study out.",
        )
    return np.asarray(cells.obsm["spatial"], dtype=float)[:, :2]


def get_sections(cells: ad.AnnData, column: str) -> pd.Series:
    """The section of each cell, by a column of the cells.

    Raises
    ------
    InputError
        If there is no such column.
    """
    if column not in cells.obs:
        raise InputError(
            "STUDY",
            f"studies: section is '{column}', but the cells have no such column; they have "
            f"{', '.join(cells.obs)}.",
        )
    return as_text(cells.obs[column])


def turn_landscape(positions: np.ndarray) -> np.ndarray:
    """Turn a section so that its longer side lies flat: (cells, 2) to (cells, 2)."""
    extent = np.nanmax(positions, axis=0) - np.nanmin(positions, axis=0)
    return positions[:, ::-1] if extent[1] > extent[0] else positions


def tile_sections(positions: np.ndarray, section: pd.Series) -> np.ndarray:
    """Lay sections side by side, in rows, each on its longer side: (cells, 2) to (cells, 2)."""
    result = np.full(positions.shape, np.nan)
    members = [(section == name).to_numpy() for name in sorted(section.unique())]
    members = [m for m in members if np.isfinite(positions[m]).any()]
    for member in members:
        result[member] = turn_landscape(positions[member])
    extents = [np.nanmax(result[m], 0) - np.nanmin(result[m], 0) for m in members]
    step = np.maximum(1.08 * np.nanmax(extents, axis=0), 1e-9)
    # About as wide as a screen.
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
    """Weighted means of cells, with 95% percentile bootstrap intervals over the cells.

    Parameters
    ----------
    values
        (cells,).
    weights
        (points, cells), such as membership in bins, or a kernel about points of a pseudotime.
    seed, n_draws
        Of the cells drawn with replacement.

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
        with np.errstate(invalid="ignore"):  # a bin of which no cell was drawn
            draws.append((weights @ (drawn * values)) / (weights @ drawn))
    low, high = np.nanpercentile(draws, INTERVAL, axis=0)
    return weights @ values / weights.sum(1), low, high


def list_most_predicted(called: Sequence[str], n: int) -> list[str]:
    """The ``n`` most called classes, most called first."""
    return list(pd.Series(called).value_counts().index[:n])
