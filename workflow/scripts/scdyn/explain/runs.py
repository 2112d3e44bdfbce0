"""Attribution of the predictions of all runs of a task to genes and modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd

from scdyn.data.loader import Store
from scdyn.data.tokens import TokenStore
from scdyn.errors import InputError
from scdyn.explain.attribution import Values, average_values, choose_batch_size, refine_gradients
from scdyn.explain.attribution_tables import ALL_OTHERS, Run, attribution_table, measure_stability
from scdyn.io.artefacts import read_json
from scdyn.io.files import Json
from scdyn.log import logger
from scdyn.model.classifier import Classifier, load_classifier
from scdyn.settings import ExplanationSettings
from scdyn.tasks.predictions import read_predictions
from scdyn.training.devices import choose_device


def draw_correct_cells(
    predictions: pd.DataFrame, per_class: int, seed: int
) -> dict[str, np.ndarray]:
    """Draw correctly predicted test cells of each class.

    Parameters
    ----------
    predictions
        One run's table of :func:`scdyn.tasks.predictions.tabulate_predictions`, one method.
    per_class, seed
        Largest number of cells per class, and seed of the draw.

    Returns
    -------
    dict
        Class to names of cells; classes without a correct prediction are left out.
    """
    right = predictions[
        (predictions["part"] == "test") & (predictions["label"] == predictions["predicted"])
    ]
    return {
        name: group["cell"].sample(min(per_class, len(group)), random_state=seed).to_numpy()
        for name, group in right.groupby("label")
    }


def find_rows_by_class(store: TokenStore, cells: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Find the rows of each class's cells in the store."""
    return {name: store.find_rows(names) for name, names in cells.items()}


def read_cells(folder: str | Path) -> pd.DataFrame:
    """Read ``cell``, ``part``, ``label`` and ``predicted`` of one run's predictions."""
    return read_predictions(
        Path(folder) / "predictions.parquet", ["cell", "part", "label", "predicted"]
    )


def read_run(
    folder: str | Path, model_folder: str | Path, store: TokenStore
) -> tuple[Classifier, pd.DataFrame, Json]:
    """Read one run: the classifier (on the best device), its :func:`read_cells`, ``task.json``."""
    classifier = load_classifier(folder, model_folder, store.meta).to(choose_device())
    return classifier, read_cells(folder), read_json(Path(folder) / "task.json")


def explain_run(
    classifier: Classifier,
    store: Store,
    rows: Mapping[str, np.ndarray],
    settings: ExplanationSettings,
    refine: bool = True,
) -> tuple[Run, np.ndarray]:
    """Attribute the predictions of one model.

    With ``attribution_baseline`` "other" the baseline of every cell is a random cell of each other
    class (expected gradients, Erion et al. 2021), and the log-odds are versus that class, so that
    features shared by both classes get no attribution. With many classes only some of the cells, at
    least two, are compared with each of them, to limit the cost. With "zero" and "mean" all paths
    start in the same cell, and the log-odds are versus all other classes.

    Parameters
    ----------
    classifier
        Merged.
    store
        The tokens.
    rows
        Class to the cells to explain.
    settings
        Settings of the attribution.
    refine
        Whether cells with a large completeness error get more steps.

    Returns
    -------
    run : dict
        See :data:`scdyn.explain.attribution_tables.Run`.
    completeness : ndarray
        Of all paths.
    """
    kind, steps = settings.attribution_baseline, settings.steps
    all_rows = np.concatenate(list(rows.values()))
    mean = average_values(classifier, store, all_rows) if kind == "mean" else None
    points = choose_batch_size(classifier, store, all_rows, settings.attribution_memory, mean)
    doublings = 2 if refine else 0
    run, errors = {}, []
    for name, explained in rows.items():
        target = classifier.classes.index(name)
        others = [other for other in rows if other != name] if kind == "other" else [ALL_OTHERS]
        rng = np.random.default_rng([settings.seed, target])
        for other in others:
            chosen, against = explained, None
            start: Values | np.ndarray | None = mean
            if other != ALL_OTHERS:
                n_cells = max(2, ceil(len(explained) / len(others)))
                chosen = rng.permutation(explained)[:n_cells]
                start = rng.choice(rows[other], len(chosen))
                against = classifier.classes.index(other)
            run[name, other], error = refine_gradients(
                classifier, store, chosen, target, steps, points, start, against,
                doublings=doublings,
            )  # fmt: skip
            errors.append(error)
            logger.info(
                "%s%s: %d cells explained, median completeness error %.3g",
                *(name, f" versus {other}" if other else "", len(chosen), np.median(error)),
            )
    return run, np.concatenate(errors)


def explain_task(
    store: TokenStore,
    genes: pd.DataFrame,
    folders: Sequence[str | Path],
    model_folder: str | Path,
    settings: ExplanationSettings,
) -> tuple[pd.DataFrame, Json]:
    """Explain a task with the models of all its runs.

    Parameters
    ----------
    store, genes
        Tokens and vocabulary of the corpus.
    folders
        The runs' fine-tuned models.
    model_folder
        The pretrained model.
    settings
        Settings of the attribution.

    Returns
    -------
    table : DataFrame
        As :func:`scdyn.explain.attribution_tables.attribution_table`.
    checks : dict
        ``n_paths`` (cells, times the other classes if the baseline is "other"), ``n_runs``,
        ``completeness`` (error of the integral over all paths: ``median``, ``percentile_95``,
        ``largest``) and ``stability`` (as
        :func:`scdyn.explain.attribution_tables.measure_stability`).

    Raises
    ------
    InputError
        If no model predicts cells of two classes correctly.
    """
    seed = settings.seed
    runs, errors, descriptions = [], [], []
    for folder in folders:
        classifier, predictions, description = read_run(folder, model_folder, store)
        cells = draw_correct_cells(predictions, settings.explained_cells, seed)
        if len(cells) < 2:
            logger.warning(
                "%s: correct predictions in only %d classes; not explained", folder, len(cells)
            )
            continue
        run, completeness = explain_run(
            classifier, store, find_rows_by_class(store, cells), settings
        )
        runs.append(run)
        errors.append(completeness)
        descriptions.append(description)
    if not runs:
        raise InputError(
            "EXPLAIN",
            "no model of the task predicts held-out cells of two classes correctly, so there is "
            "nothing to explain; check the task's scores, or set explain: false.",
        )
    errors_of_all = np.concatenate(errors)
    checks = {
        "n_paths": len(errors_of_all),
        "n_runs": len(runs),
        "completeness": {
            "median": float(np.median(errors_of_all)),
            "percentile_95": float(np.quantile(errors_of_all, 0.95)),
            "largest": float(errors_of_all.max()),
        },
        "stability": measure_stability(runs, descriptions),
    }
    return attribution_table(runs, genes, seed=seed), checks
