"""Scores of all runs of a task with confidence intervals, and comparisons of methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from scdyn.io.artefacts import read_json, read_table
from scdyn.settings import MAIN, VariantSettings, is_compared
from scdyn.tasks import metrics
from scdyn.tasks.splits import PREDICTED, describe_split

# Columns that identify a run: one model of one method, on one fold, with one seed.
RUN = ["method", "variant", "seed", "fold"]
TEXT_COLUMNS = ("cell", "method", "variant", "fold", "part", "label", "predicted")
# Costs of a run; baselines have only some.
COSTS = ("seconds", "peak_memory_gib", "n_trained_parameters")
# Scores whose largest value is not 1.
HIGHEST = {"nll": np.inf, "brier": 2.0}
# Score of the comparison by share of labels.
MAIN_SCORE = "macro_f1"


def tabulate_predictions(
    cells: pd.DataFrame, run: Mapping[str, Any], classes: Sequence[str], p: np.ndarray
) -> pd.DataFrame:
    """Tabulate the predictions of one run.

    Parameters
    ----------
    cells
        The predicted cells, rows of a split.
    run
        ``method``, ``variant``, ``seed`` and ``fold``.
    classes, p
        (classes,) and (cells, classes) probabilities.

    Returns
    -------
    DataFrame
        ``cell``, the run, ``part`` ("test" or "predict"), ``label`` ("" if unknown), ``predicted``
        and ``p_<class>``.
    """
    table = pd.DataFrame({"cell": cells["cell"].to_numpy(), **run})
    table["part"] = np.where(cells["fold"] == PREDICTED, PREDICTED, "test")
    table["label"] = cells["label"].to_numpy()
    table["predicted"] = np.asarray(classes)[p.argmax(1)]
    return pd.concat([table, pd.DataFrame(p, columns=[f"p_{name}" for name in classes])], axis=1)


def tabulate_calibrated_predictions(
    cells: pd.DataFrame,
    run: Mapping[str, Any],
    classes: Sequence[str],
    p: np.ndarray,
    temperature: float,
) -> pd.DataFrame:
    """Tabulate predictions as :func:`tabulate_predictions`, with calibrated probabilities.

    The column ``confidence_raw`` is the predicted class's probability before calibration.
    """
    table = tabulate_predictions(cells, run, classes, metrics.apply_temperature(p, temperature))
    table.insert(list(table).index("predicted") + 1, "confidence_raw", p.max(1))
    return table


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Read a table of :func:`tabulate_predictions` or :func:`combine`."""
    table = read_table(path, dtype=str, keep_default_na=False)
    # A class may be named "NA"; a missing number is empty.
    numbers = table.columns.difference(TEXT_COLUMNS)
    return table.assign(**{name: pd.to_numeric(table[name]) for name in numbers})


def read_runs(models: Sequence[str | Path], tables: Sequence[str | Path]) -> pd.DataFrame:
    """Read and concatenate the predictions of all runs of a task.

    Parameters
    ----------
    models
        Folders of fine-tuned models, with ``predictions.tsv``.
    tables
        Predictions of other methods.
    """
    paths = [*(Path(folder, "predictions.tsv") for folder in models), *tables]
    return pd.concat(map(read_predictions, paths), ignore_index=True)


def read_costs(models: Sequence[str | Path], tables: Sequence[str | Path]) -> pd.DataFrame:
    """Read the costs of the runs of a task: one row per run.

    Parameters
    ----------
    models
        Folders of fine-tuned models, with ``task.json``.
    tables
        Costs of baselines, as :func:`scdyn.tasks.baselines.fit_baselines` returns them.
    """
    described = pd.DataFrame([read_json(Path(folder, "task.json")) for folder in models])
    return pd.concat([described, *map(read_table, tables)])


def list_probability_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns ``p_<class>``, in their order."""
    return [column for column in table if column.startswith("p_")]


def combine(runs: pd.DataFrame) -> pd.DataFrame:
    """Combine the compared runs: one prediction per cell and method, from the mean probability.

    A held-out cell is predicted by the runs of its fold, one per seed; a predicted cell by all.

    Parameters
    ----------
    runs
        As :func:`tabulate_predictions` returns them, concatenated.

    Returns
    -------
    DataFrame
        ``cell``, ``fold`` ("mean" for predicted cells), ``part``, ``label``, ``method``,
        ``predicted``, ``familiarity`` (if the method has one) and ``p_<class>``.
    """
    p = list_probability_columns(runs)
    means = [*p, *(["familiarity"] if "familiarity" in runs else [])]
    table = runs[runs["variant"].map(is_compared)].copy()
    table[p] = table[p].fillna(0.0)  # a class that is missing from one fold's training set
    table.loc[table["part"] == PREDICTED, "fold"] = "mean"
    keys = ["cell", "fold", "part", "label", "method"]
    result = table.groupby(keys, sort=False)[means].mean().reset_index()
    result["predicted"] = np.array([name[2:] for name in p])[result[p].to_numpy().argmax(1)]
    first = [*keys, "predicted"]
    return result[[*first, *(name for name in means if name not in p), *p]]


def score_run(predictions: pd.DataFrame) -> dict[str, float]:
    """Score one run's predictions of one part, for cells labelled with a class of the task."""
    p = list_probability_columns(predictions.dropna(axis=1, how="all"))
    labels, predicted = predictions["label"].to_numpy(), predictions["predicted"].to_numpy()
    classes, values = [name[2:] for name in p], predictions[p].to_numpy()
    result = metrics.score(labels, predicted) | metrics.score_probabilities(labels, classes, values)
    if "confidence_raw" in predictions:
        confidence = predictions["confidence_raw"].to_numpy()
        result["ece_raw"] = metrics.calibration_error(labels == predicted, confidence)
    return result | {"n_cells": len(predictions)}


def score_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Score every run: one row per run and part.

    Parameters
    ----------
    runs
        As :func:`tabulate_predictions` returns them, concatenated.

    Returns
    -------
    DataFrame
        The run, ``part``, and the scores of :func:`score_run`. Predicted cells are scored if their
        own label is one of the task's classes.
    """
    classes = set(runs.loc[runs["part"] == "test", "label"])
    labelled = runs[runs["label"].isin(classes)]
    rows = [
        dict(zip([*RUN, "part"], keys, strict=True)) | score_run(predictions)
        for keys, predictions in labelled.groupby([*RUN, "part"], sort=False)
    ]
    return pd.DataFrame(rows)


def summarise_scores(scores: pd.DataFrame, test_over_train: float) -> pd.DataFrame:
    """Compute mean and interval of each method's scores, and compare it with the best baseline.

    Parameters
    ----------
    scores
        As :func:`score_runs` returns them.
    test_over_train
        Number of test cells over that of training cells; see
        :func:`scdyn.tasks.metrics.confidence_interval`. For predicted cells, which are the same for
        all runs, it is 0.

    Returns
    -------
    DataFrame
        ``part``, ``method``, ``score``, ``mean``, ``low``, ``high``, ``n_runs``, ``best_baseline``
        (by that score), ``difference`` (from it) and ``p`` (paired over runs).
    """
    names = [name for name in scores if name not in {*RUN, "part", "n_cells"}]
    compared = scores[scores["variant"].map(is_compared)]
    rows = []
    for part, of_part in compared.groupby("part", sort=False):
        factor = test_over_train if part == "test" else 0.0
        for name in names:
            wide = of_part.pivot_table(index=["seed", "fold"], columns="method", values=name)
            wide = wide.reindex(columns=of_part["method"].unique())
            paired = repeat_over_seeds(wide)
            lower_is_better = name in {"nll", "brier", "ece", "ece_raw"}
            baselines = wide.loc[:, ~wide.columns.map(is_compared)].mean().dropna()
            best = None
            if len(baselines):
                best = baselines.idxmin() if lower_is_better else baselines.idxmax()
            for method in wide:
                values = wide[method].dropna().to_numpy()
                if not len(values):
                    continue
                # A t interval can exceed the bounds of the score.
                highest = HIGHEST.get(name, 1.0)
                low, high = np.clip(metrics.confidence_interval(values, factor), 0, highest)
                row = {"part": part, "method": method, "score": name, "mean": values.mean()}
                row |= {"low": low, "high": high, "n_runs": len(values)}
                if best is not None and method != best:
                    # At least one of the two was run here; other rows are only filled in.
                    run = wide[[method, best]].notna().any(axis=1)
                    gap = (paired[method] - paired[best])[run].dropna().to_numpy()
                    row |= {"best_baseline": best, "difference": gap.mean()}
                    row |= {"p": metrics.paired_p(gap, factor)}
                rows.append(row)
    return pd.DataFrame(rows)


def repeat_over_seeds(wide: pd.DataFrame) -> pd.DataFrame:
    """Fill in the scores of methods with a single seed, by fold."""
    filled = wide.groupby(level="fold").transform(lambda column: column.fillna(column.mean()))
    return filled.sort_index()


def compute_efficiency(scores: pd.DataFrame, shares: Mapping[str, float]) -> pd.DataFrame:
    """Compute the scores on held-out cells by share of the training labels.

    Parameters
    ----------
    scores
        As :func:`score_runs` returns them.
    shares
        Variant to share, for the variants trained on fewer labels.

    Returns
    -------
    DataFrame
        ``method``, ``labels``, ``mean``, ``low``, ``high`` of the macro-F1, ``n_runs``.
    """
    tested = scores[scores["part"] == "test"]
    tested = tested.assign(labels=tested["variant"].map({MAIN: 1.0, **shares})).dropna(
        subset="labels"
    )
    # Only methods that were also run on fewer labels are compared.
    several = tested.groupby("method")["labels"].nunique()
    rows = []
    for (method, share), part in tested.groupby(["method", "labels"]):
        if several[method] > 1:
            low, high = np.clip(metrics.confidence_interval(part[MAIN_SCORE].to_numpy()), 0, 1)
            rows.append((method, share, part[MAIN_SCORE].mean(), low, high, len(part)))
    return pd.DataFrame(rows, columns=["method", "labels", "mean", "low", "high", "n_runs"])


def compute_novelty(runs: pd.DataFrame, without: Mapping[str, str]) -> pd.DataFrame:
    """Score how well cells of a class absent from training are detected.

    Parameters
    ----------
    runs
        As :func:`tabulate_predictions` returns them.
    without
        Variant to the class left out of its training set.

    Returns
    -------
    DataFrame
        ``method``, ``by`` ("familiarity" or "confidence"), ``class``, ``auroc`` (of low values in
        held-out cells of the class versus the other classes) and ``n_cells`` (of the class).
    """
    rows = []
    tested = runs[(runs["part"] == "test") & runs["variant"].isin(list(without))]
    for (method, variant), predictions in tested.groupby(["method", "variant"]):
        unseen = (predictions["label"] == without[variant]).to_numpy()
        measures = {"confidence": predictions[list_probability_columns(predictions)].max(axis=1)}
        if "familiarity" in predictions and predictions["familiarity"].notna().all():
            measures["familiarity"] = predictions["familiarity"]
        for by, values in measures.items():
            auroc = roc_auc_score(unseen, -values) if 0 < unseen.sum() < len(unseen) else np.nan
            rows.append((method, by, without[variant], auroc, int(unseen.sum())))
    return pd.DataFrame(rows, columns=["method", "by", "class", "auroc", "n_cells"])


def nest_summary(summary: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Nest a summary by part, method and score: ``score``, ``score_low`` and ``score_high``."""
    result: dict[str, dict[str, dict[str, float]]] = {}
    for row in summary.to_dict("records"):
        scores = result.setdefault(row["part"], {}).setdefault(row["method"], {})
        scores[row["score"]] = row["mean"]
        for bound in ("low", "high"):
            if np.isfinite(row[bound]):
                scores[f"{row['score']}_{bound}"] = row[bound]
    return result


def evaluate(
    runs: pd.DataFrame,
    costs: pd.DataFrame,
    split: pd.DataFrame,
    variants: Mapping[str, VariantSettings],
    split_by: str | None,
    left_out: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Evaluate all runs of a task: the tables of its report page.

    Parameters
    ----------
    runs
        As :func:`tabulate_predictions` returns them, concatenated.
    costs
        One row per run: ``method``, ``variant``, ``seed``, ``fold``, ``seconds`` and, for
        fine-tuned models, ``n_trained_parameters`` and ``peak_memory_gib``.
    split, split_by
        The task's split and the column whose values are kept whole.
    variants
        As :meth:`scdyn.settings.EvaluationSettings.all_variants` returns them.
    left_out
        ``class`` and ``reason`` of the classes that the split leaves out; None if there are none.

    Returns
    -------
    dict
        Tables ``predictions`` (:func:`combine`), ``runs`` (predicted labels of each compared run),
        ``scores`` (one row per run), ``summary``, ``classes`` (F1 of each class by the compared
        methods), ``efficiency`` and ``novelty``; ``metrics`` (:func:`nest_summary`, with ``split``
        in words, ``n_held_out`` cells, ``costs`` by method and ``classes_left_out`` with their
        reasons).
    """
    scores = score_runs(runs)
    cost = costs[[*RUN, *(c for c in COSTS if c in costs)]]
    scores = scores.astype({"seed": int}).merge(
        cost.astype({"seed": int, "fold": str}), on=RUN, how="left"
    )
    tested = split["fold"] != PREDICTED
    n_folds = split.loc[tested, "fold"].nunique()
    summary = summarise_scores(
        scores.drop(columns=[c for c in COSTS if c in scores]), 1 / (n_folds - 1)
    )
    shares = {name: v.labels for name, v in variants.items() if v.labels < 1}
    without = {name: v.without for name, v in variants.items() if v.without is not None}
    predictions = combine(runs)
    held_out = predictions[predictions["part"] == "test"]
    classes = [
        metrics.score_classes(part["label"].to_numpy(), part["predicted"].to_numpy()).assign(
            method=method
        )
        for method, part in held_out.groupby("method", sort=False)
    ]
    compared = scores[scores["variant"].map(is_compared)]
    rare = {} if left_out is None else dict(zip(left_out["class"], left_out["reason"], strict=True))
    spent = compared.groupby("method")[[c for c in COSTS if c in compared]].mean()
    return {
        "predictions": predictions,
        "runs": runs.loc[runs["variant"].map(is_compared), ["cell", *RUN, "part", "predicted"]],
        "scores": scores,
        "summary": summary,
        "classes": pd.concat(classes, ignore_index=True),
        "efficiency": compute_efficiency(scores, shares),
        "novelty": compute_novelty(runs, without),
        "metrics": nest_summary(summary)
        | {
            "split": describe_split(split, split_by),
            "n_held_out": int(tested.sum()),
            "costs": {m: row.dropna().to_dict() for m, row in spent.iterrows()},
            "classes_left_out": rare,
        },
    }
