"""From the calls of many runs to what a task may claim: scores with intervals, and comparisons."""

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

# What identifies a run: one model of one method, on one fold, by one seed.
RUN = ["method", "variant", "seed", "fold"]
TEXT_COLUMNS = ("cell", "method", "variant", "fold", "part", "label", "predicted")
# What a run took, where it is known.
COSTS = ("seconds", "peak_memory_gib", "n_trained_parameters")
# Scores whose largest value is not 1.
HIGHEST = {"nll": np.inf, "brier": 2.0}
# The score that methods are compared by.
MAIN_SCORE = "macro_f1"


def tabulate_predictions(
    called: pd.DataFrame, run: Mapping[str, Any], classes: Sequence[str], p: np.ndarray
) -> pd.DataFrame:
    """Lay one run's calls out as a table.

    Parameters
    ----------
    called
        The cells called, rows of a split.
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
    table = pd.DataFrame({"cell": called["cell"].to_numpy(), **run})
    table["part"] = np.where(called["fold"] == PREDICTED, PREDICTED, "test")
    table["label"] = called["label"].to_numpy()
    table["predicted"] = np.asarray(classes)[p.argmax(1)]
    return pd.concat([table, pd.DataFrame(p, columns=[f"p_{name}" for name in classes])], axis=1)


def tabulate_calibrated_predictions(
    called: pd.DataFrame,
    run: Mapping[str, Any],
    classes: Sequence[str],
    p: np.ndarray,
    temperature: float,
) -> pd.DataFrame:
    """Lay calls out as :func:`tabulate_predictions`, probabilities at a temperature.

    A further column ``confidence_raw`` keeps the called class's probability as it was.
    """
    table = tabulate_predictions(called, run, classes, metrics.apply_temperature(p, temperature))
    table.insert(list(table).index("predicted") + 1, "confidence_raw", p.max(1))
    return table


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Read a table of :func:`tabulate_predictions` or :func:`combine`."""
    table = read_table(path, dtype=str, keep_default_na=False)
    # A class may be called NA; a number that is missing is empty.
    numbers = table.columns.difference(TEXT_COLUMNS)
    return table.assign(**{name: pd.to_numeric(table[name]) for name in numbers})


def read_runs(models: Sequence[str | Path], tables: Sequence[str | Path]) -> pd.DataFrame:
    """Read the predictions of all runs of a task, one below the other.

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
    """Read what the runs of a task took: a row per run.

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
    """Columns ``p_<class>``, in their order."""
    return [column for column in table if column.startswith("p_")]


def combine(runs: pd.DataFrame) -> pd.DataFrame:
    """Join the compared runs' calls: each cell once a method, by the mean of the runs.

    A tested cell is called by the runs of its fold, one a seed; a predicted cell by all.

    Parameters
    ----------
    runs
        As :func:`tabulate_predictions` returns them, one below the other.

    Returns
    -------
    DataFrame
        ``cell``, ``fold`` ("mean" for predicted cells), ``part``, ``label``, ``method``,
        ``predicted``, ``familiarity`` (where the method has one) and ``p_<class>``.
    """
    p = list_probability_columns(runs)
    means = [*p, *(["familiarity"] if "familiarity" in runs else [])]
    table = runs[runs["variant"].map(is_compared)].copy()
    table[p] = table[p].fillna(0.0)  # a class that one fold's training part lacks
    table.loc[table["part"] == PREDICTED, "fold"] = "mean"
    keys = ["cell", "fold", "part", "label", "method"]
    result = table.groupby(keys, sort=False)[means].mean().reset_index()
    result["predicted"] = np.array([name[2:] for name in p])[result[p].to_numpy().argmax(1)]
    first = [*keys, "predicted"]
    return result[[*first, *(name for name in means if name not in p), *p]]


def score_run(calls: pd.DataFrame) -> dict[str, float]:
    """Score one run's calls of one part, of the cells whose label is known to the run's task."""
    p = list_probability_columns(calls.dropna(axis=1, how="all"))
    labels, called = calls["label"].to_numpy(), calls["predicted"].to_numpy()
    classes, values = [name[2:] for name in p], calls[p].to_numpy()
    result = metrics.score(labels, called) | metrics.score_probabilities(labels, classes, values)
    if "confidence_raw" in calls:
        sure = calls["confidence_raw"].to_numpy()
        result["ece_raw"] = metrics.calibration_error(labels == called, sure)
    return result | {"n_cells": len(calls)}


def score_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Score every run: a row a run and part.

    Parameters
    ----------
    runs
        As :func:`tabulate_predictions` returns them, one below the other.

    Returns
    -------
    DataFrame
        The run, ``part``, and the scores of :func:`score_run`. Predicted cells are scored where
        their own label is one of the task's classes.
    """
    classes = set(runs.loc[runs["part"] == "test", "label"])
    known = runs[runs["label"].isin(classes)]
    rows = [
        dict(zip([*RUN, "part"], keys, strict=True)) | score_run(calls)
        for keys, calls in known.groupby([*RUN, "part"], sort=False)
    ]
    return pd.DataFrame(rows)


def summarise_scores(scores: pd.DataFrame, test_over_train: float) -> pd.DataFrame:
    """Bring the compared runs' scores to a mean and an interval, and compare each with the best.

    Parameters
    ----------
    scores
        As :func:`score_runs` returns them.
    test_over_train
        Tested cells over learned ones; see :func:`scdyn.tasks.metrics.confidence_interval`. Predicted cells
        are the same for all runs, and it is 0 for them.

    Returns
    -------
    DataFrame
        ``part``, ``method``, ``score``, ``mean``, ``low``, ``high``, ``n_runs``,
        ``best_baseline`` (by that score, of those that are no model of ours), ``difference``
        (from it) and ``p`` (paired over runs).
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
                # Student's t knows no bounds; the scores do.
                highest = HIGHEST.get(name, 1.0)
                low, high = np.clip(metrics.confidence_interval(values, factor), 0, highest)
                row = {"part": part, "method": method, "score": name, "mean": values.mean()}
                row |= {"low": low, "high": high, "n_runs": len(values)}
                if best is not None and method != best:
                    # A run of one seed pairs with all of the other's, not with its own copies.
                    run = wide[[method, best]].notna().any(axis=1)
                    gap = (paired[method] - paired[best])[run].dropna().to_numpy()
                    row |= {"best_baseline": best, "difference": gap.mean()}
                    row |= {"p": metrics.paired_p(gap, factor)}
                rows.append(row)
    return pd.DataFrame(rows)


def repeat_over_seeds(wide: pd.DataFrame) -> pd.DataFrame:
    """Fill in, by fold, the scores of methods that were run with one seed alone."""
    filled = wide.groupby(level="fold").transform(lambda column: column.fillna(column.mean()))
    return filled.sort_index()


def compute_efficiency(scores: pd.DataFrame, shares: Mapping[str, float]) -> pd.DataFrame:
    """Scores on held-out cells by share of the labels that was seen.

    Parameters
    ----------
    scores
        As :func:`score_runs` returns them.
    shares
        Variant to share, of those trained on fewer labels.

    Returns
    -------
    DataFrame
        ``method``, ``labels``, ``mean``, ``low``, ``high`` of the macro-F1, ``n_runs``.
    """
    tested = scores[scores["part"] == "test"]
    tested = tested.assign(labels=tested["variant"].map({MAIN: 1.0, **shares})).dropna(
        subset="labels"
    )
    # The baselines that were run on fewer labels, and our main model.
    several = tested.groupby("method")["labels"].nunique()
    rows = []
    for (method, share), part in tested.groupby(["method", "labels"]):
        if several[method] > 1:
            low, high = np.clip(metrics.confidence_interval(part[MAIN_SCORE].to_numpy()), 0, 1)
            rows.append((method, share, part[MAIN_SCORE].mean(), low, high, len(part)))
    return pd.DataFrame(rows, columns=["method", "labels", "mean", "low", "high", "n_runs"])


def compute_novelty(runs: pd.DataFrame, without: Mapping[str, str]) -> pd.DataFrame:
    """Tell how well cells of a class that a model never saw are set apart from the others.

    Parameters
    ----------
    runs
        As :func:`tabulate_predictions` returns them.
    without
        Variant to the class that was kept from it.

    Returns
    -------
    DataFrame
        ``method``, ``by`` ("familiarity" or "confidence"), ``class``, ``auroc`` (of low values
        for its held-out cells against those of the other classes) and ``n_cells`` of it.
    """
    rows = []
    tested = runs[(runs["part"] == "test") & runs["variant"].isin(list(without))]
    for (method, variant), calls in tested.groupby(["method", "variant"]):
        unseen = (calls["label"] == without[variant]).to_numpy()
        measures = {"confidence": calls[list_probability_columns(calls)].max(axis=1)}
        if "familiarity" in calls and calls["familiarity"].notna().all():
            measures["familiarity"] = calls["familiarity"]
        for by, values in measures.items():
            auroc = roc_auc_score(unseen, -values) if 0 < unseen.sum() < len(unseen) else np.nan
            rows.append((method, by, without[variant], auroc, int(unseen.sum())))
    return pd.DataFrame(rows, columns=["method", "by", "class", "auroc", "n_cells"])


def nest_summary(summary: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Lay a summary out as part, method, score: ``score``, ``score_low`` and ``score_high``."""
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
    """Bring all runs of a task to the tables that its page shows.

    Parameters
    ----------
    runs
        As :func:`tabulate_predictions` returns them, one below the other.
    costs
        A row a run: ``method``, ``variant``, ``seed``, ``fold``, ``seconds`` and, of our models,
        ``n_trained_parameters`` and ``peak_memory_gib``.
    split, split_by
        The task's split and the column that was kept whole.
    variants
        As :meth:`scdyn.settings.EvaluationSettings.all_variants` returns them.
    left_out
        ``class`` and ``reason`` of the rare classes that the split leaves out, if any.

    Returns
    -------
    dict
        Tables ``predictions`` (:func:`combine`), ``runs`` (what each compared run called each
        cell), ``scores`` (a row a run), ``summary``,
        ``classes`` (F1 of each class by the compared methods), ``efficiency`` and ``novelty``;
        ``metrics`` (:func:`nest_summary`, with ``split`` in words, ``n_held_out`` cells, ``costs``
        by method and ``classes_left_out`` with their reasons).
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
    calls = combine(runs)
    held_out = calls[calls["part"] == "test"]
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
        "predictions": calls,
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
