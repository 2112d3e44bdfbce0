"""Predictions of runs: their tables, their files, and their mean over the runs of a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scdyn.errors import InputError
from scdyn.io.artefacts import iter_parquet, read_parquet
from scdyn.tasks import metrics
from scdyn.tasks.familiarity import compute_familiarity
from scdyn.tasks.splits import PREDICTED

# Columns that identify a run: one model of one method, on one fold, with one seed.
RUN = ["method", "variant", "seed", "fold"]


def tabulate_predictions(
    cells: pd.DataFrame,
    run: Mapping[str, Any],
    classes: Sequence[str],
    p: np.ndarray,
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Tabulate the predictions of one run.

    Parameters
    ----------
    cells
        The predicted cells, rows of a split.
    run
        ``method``, ``variant``, ``seed`` and ``fold``, or some of these.
    classes, p
        (classes,) and (cells, classes) probabilities.
    columns
        Classes with a column, NaN if they are not among ``classes``; by default ``classes``.

    Returns
    -------
    DataFrame
        ``cell``, the run, ``part`` ("test" or "predict"), ``label`` ("" if unknown), ``predicted``
        and, as float32, ``p_<class>``. Text is categorical; ``label`` and ``predicted`` have the
        same categories.
    """
    names = sorted({*cells["label"].unique(), *classes})
    table = pd.DataFrame({"cell": cells["cell"].to_numpy(), **run})
    table["part"] = np.where(cells["fold"] == PREDICTED, PREDICTED, "test")
    text = [name for name in ("method", "variant", "fold", "part") if name in table]
    table = table.astype(dict.fromkeys(text, "category"))
    table["label"] = pd.Categorical(cells["label"], names)
    codes = pd.Index(names).get_indexer(classes)
    table["predicted"] = pd.Categorical.from_codes(codes[p.argmax(1)], names)
    of_classes = pd.DataFrame(p, columns=list(classes))
    of_classes = of_classes.reindex(columns=classes if columns is None else columns)
    return pd.concat([table, of_classes.astype(np.float32).add_prefix("p_")], axis=1)


def tabulate_calibrated_predictions(
    cells: pd.DataFrame,
    run: Mapping[str, Any],
    classes: Sequence[str],
    p: np.ndarray,
    temperature: float,
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Tabulate predictions as :func:`tabulate_predictions`, with calibrated probabilities.

    The column ``confidence_raw`` is the predicted class's probability before calibration.
    """
    calibrated = metrics.apply_temperature(p, temperature)
    table = tabulate_predictions(cells, run, classes, calibrated, columns)
    raw = p.max(1).astype(np.float32)
    table.insert(list(table).index("predicted") + 1, "confidence_raw", raw)
    return table


def insert_familiarity(table: pd.DataFrame, validation: np.ndarray, energies: np.ndarray) -> None:
    """Insert ``energy`` and ``familiarity`` (:func:`compute_familiarity`) after the predictions."""
    familiarity = compute_familiarity(validation, energies)
    place = list(table).index("confidence_raw") + 1
    table.insert(place, "energy", energies.astype(np.float32))
    table.insert(place + 1, "familiarity", familiarity.astype(np.float32))


def list_probability_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns ``p_<class>``, in their order."""
    return [column for column in table if column.startswith("p_")]


def read_predictions(
    path: str | Path,
    columns: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Read the predictions of a file, with text in place of categories.

    Parameters
    ----------
    path
        Tables of :func:`tabulate_predictions` or :meth:`MeanPredictions.tabulate`.
    columns, methods
        The columns, and the methods whose predictions are read; all if None.
    """
    filters = None if methods is None else [("method", "in", list(methods))]
    table = read_parquet(path, columns, filters)
    return table.astype(dict.fromkeys(table.select_dtypes("category"), object))


def list_runs(paths: Sequence[str | Path]) -> pd.DataFrame:
    """List the runs of files of predictions, each of which has one table per run.

    Returns
    -------
    DataFrame
        The run, ``path``, and ``number`` of its table in the file.
    """
    rows = [
        {**table.iloc[0], "path": path, "number": number}
        for path in paths
        for number, table in enumerate(iter_parquet(path, RUN))
    ]
    return pd.DataFrame(rows)


def read_run(path: str | Path, number: int, split: pd.DataFrame) -> tuple[np.ndarray, pd.DataFrame]:
    """Read the predictions of one run.

    Parameters
    ----------
    path, number
        As :func:`list_runs` returns them.
    split
        The task's split.

    Returns
    -------
    rows : ndarray of int
        The rows of the split whose cells the run predicts.
    table : DataFrame
        As :func:`tabulate_predictions` returns it, in this order.

    Raises
    ------
    InputError
        If the cells are not those that the split gives this fold.
    """
    (table,) = iter_parquet(path, chosen=[number])
    rows = np.flatnonzero(split["fold"].isin([table["fold"].iloc[0], PREDICTED]))
    if not np.array_equal(table["cell"].to_numpy(), split["cell"].to_numpy()[rows]):
        raise InputError(
            "SPLITS",
            f"{path}: its cells are not those of the split; remove this run and start the workflow "
            "again.",
        )
    return rows, table


class MeanPredictions:
    """Mean of the probabilities of a method's runs, by cell.

    A held-out cell is predicted by the runs of its fold, one per seed; a predicted cell by all.

    Parameters
    ----------
    split
        The task's split.
    classes
        The task's classes.
    """

    def __init__(self, split: pd.DataFrame, classes: Sequence[str]) -> None:
        self.split, self.classes = split, list(classes)
        self.n_runs = np.zeros(len(split), dtype=np.int32)
        self.p = np.zeros((len(split), len(self.classes)))
        self.n_familiar = np.zeros(len(split), dtype=np.int32)
        self.familiarity = np.zeros(len(split))

    def add(self, rows: np.ndarray, table: pd.DataFrame) -> None:
        """Add a run, as :func:`read_run` returns it; a class that it does not know counts as 0."""
        self.n_runs[rows] += 1
        for j, name in enumerate(self.classes):
            if f"p_{name}" in table:
                self.p[rows, j] += table[f"p_{name}"].fillna(0).to_numpy()
        if "familiarity" in table:
            self.n_familiar[rows] += 1
            self.familiarity[rows] += table["familiarity"].to_numpy()

    def tabulate(self, method: str) -> pd.DataFrame:
        """Tabulate the cells that a run predicts.

        Returns
        -------
        DataFrame
            ``cell``, ``fold`` ("mean" for predicted cells), ``part``, ``label``, ``method``,
            ``predicted``, ``familiarity`` (NaN if the method has none) and ``p_<class>``; types as
            those of :func:`tabulate_predictions`.
        """
        rows = np.flatnonzero(self.n_runs)
        cells = self.split.iloc[rows]
        p = self.p[rows] / self.n_runs[rows, None]
        run = {"method": method, "fold": cells["fold"].to_numpy()}
        table = tabulate_predictions(cells, run, self.classes, p)
        table["fold"] = table["fold"].cat.rename_categories({PREDICTED: "mean"})
        with np.errstate(invalid="ignore"):
            familiarity = self.familiarity[rows] / self.n_familiar[rows]
        table["familiarity"] = familiarity.astype(np.float32)
        first = ["cell", "fold", "part", "label", "method", "predicted", "familiarity"]
        return table[[*first, *list_probability_columns(table)]]
