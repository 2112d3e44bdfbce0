"""Ensembles: the runs of one fold with different seeds, averaged as one model.

An ensemble is calibrated on the validation cells of its own fold only, because they are training
cells of the other folds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from scdyn.errors import InputError
from scdyn.io.artefacts import read_parquet
from scdyn.settings import ENSEMBLE, is_compared
from scdyn.tasks import metrics
from scdyn.tasks.familiarity import compute_familiarity, fit_familiarity
from scdyn.tasks.predictions import (
    insert_familiarity,
    read_run,
    tabulate_calibrated_predictions,
    tabulate_predictions,
)
from scdyn.tasks.splits import PREDICTED

# File of a fine-tuned model: a run's predictions of its validation cells.
VALIDATION = "validation.parquet"


class RunMean:
    """Mean of the probabilities and energies of several runs for the same cells.

    Lakshminarayanan et al. 2017 (arXiv:1612.01474) average probabilities in the same way.

    Parameters
    ----------
    n_cells
        Number of cells.
    classes
        Classes of all runs.
    """

    def __init__(self, n_cells: int, classes: Sequence[str]) -> None:
        self.classes = list(classes)
        self.n_runs = 0
        self.p_sum = np.zeros((n_cells, len(self.classes)))
        self.energy_sum = np.zeros(n_cells)

    @property
    def p(self) -> np.ndarray:
        """Mean probabilities, (cells, classes)."""
        return self.p_sum / self.n_runs

    @property
    def energies(self) -> np.ndarray:
        """Mean energies, (cells,)."""
        return self.energy_sum / self.n_runs

    def add(self, table: pd.DataFrame) -> None:
        """Add a run.

        Parameters
        ----------
        table
            One row per cell: calibrated ``p_<class>``; a class that the run does not know counts as
            0; ``energy``, which baselines do not have.
        """
        self.n_runs += 1
        for j, name in enumerate(self.classes):
            if f"p_{name}" in table:
                self.p_sum[:, j] += table[f"p_{name}"].fillna(0).to_numpy()
        if "energy" in table:
            self.energy_sum += table["energy"].to_numpy()


@dataclass(frozen=True)
class Calibration:
    """Temperature and familiarity of an ensemble.

    Attributes
    ----------
    temperature
        Divisor of the logarithms of the mean probabilities. As each run has a temperature of its
        own, 1 for a single run.
    familiar
        Mean energies of the validation cells, as
        :func:`scdyn.tasks.familiarity.fit_familiarity` returns them.
    """

    temperature: float
    familiar: np.ndarray

    def apply(self, mean: RunMean) -> tuple[np.ndarray, np.ndarray]:
        """Return calibrated probabilities, (cells, classes), and familiarity, (cells,)."""
        p = metrics.apply_temperature(mean.p, self.temperature)
        return p, compute_familiarity(self.familiar, mean.energies)


def calibrate_ensemble(folders: Sequence[str | Path], classes: Sequence[str]) -> Calibration:
    """Fit the temperature and the familiarity of an ensemble to its validation cells.

    Parameters
    ----------
    folders
        Folders ``model`` of the runs, which are all of one fold.
    classes
        Classes of all runs.

    Raises
    ------
    InputError
        If a folder has no predictions of validation cells, as those of earlier versions, or the
        runs have no validation cell in common.
    """
    tables = [read_parquet(Path(folder, VALIDATION)).set_index("cell") for folder in folders]
    # A validation cell of one run can be a training cell of another, which has other labels.
    cells = sorted(set.intersection(*(set(table.index) for table in tables)))
    if not cells:
        raise InputError(
            "MODEL",
            f"{folders[0]}: has no validation cell in common with {len(folders) - 1} other runs of "
            "its fold; average runs of one task that were trained on the same labels.",
        )
    mean = RunMean(len(cells), classes)
    for table in tables:
        mean.add(table.loc[cells])
    labels = tables[0].loc[cells, "label"].to_numpy()
    temperature = metrics.fit_temperature(labels, mean.classes, mean.p)
    return Calibration(temperature, fit_familiarity(mean.energies))


def has_ensemble(runs: pd.DataFrame) -> bool:
    """Tell whether every fold of a method's compared runs has several seeds."""
    return len(runs) > 0 and bool((runs.groupby("fold")["seed"].nunique() > 1).all())


def iter_ensembles(
    runs: pd.DataFrame, split: pd.DataFrame, classes: Sequence[str]
) -> Iterator[tuple[np.ndarray, pd.DataFrame]]:
    """Average a method's runs of each fold, one run in memory at a time.

    Parameters
    ----------
    runs
        Runs of a method that were trained on all labels and classes, as
        :func:`scdyn.tasks.predictions.list_runs` lists them. With a share of the labels each seed
        draws other labels, of which an ensemble would see more than its share.
    split
        The task's split.
    classes
        The task's classes.

    Yields
    ------
    rows : ndarray of int
        As :func:`scdyn.tasks.predictions.read_run` returns them.
    table : DataFrame
        The ensemble's predictions of these cells, as a run's, with the first of the seeds. The
        probabilities of baselines are the mean of the runs' calibrated probabilities, since
        baselines keep no predictions of validation cells.
    """
    runs = runs.sort_values(["fold", "seed"])
    for fold, of_fold in runs.groupby("fold", sort=False):
        first = of_fold.iloc[0]
        run = {"method": f"{first['method']}{ENSEMBLE}"}
        run |= {"variant": first["variant"], "seed": first["seed"], "fold": fold}
        calibration = None
        if is_compared(first["method"]):
            calibration = calibrate_ensemble([Path(p).parent for p in of_fold["path"]], classes)
        rows = np.flatnonzero(split["fold"].isin([fold, PREDICTED]))
        cells, mean = split.iloc[rows], RunMean(len(rows), classes)
        for path, number in zip(of_fold["path"], of_fold["number"], strict=True):
            _, of_run = read_run(path, number, split)
            mean.add(of_run)
        if calibration is None:
            table = tabulate_predictions(cells, run, classes, mean.p)
        else:
            temperature = calibration.temperature
            table = tabulate_calibrated_predictions(cells, run, classes, mean.p, temperature)
            insert_familiarity(table, calibration.familiar, mean.energies)
        # Tables of one file share the type of their text.
        yield rows, table.assign(cell=of_run["cell"])
