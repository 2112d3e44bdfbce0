"""Scores of all runs of a task with confidence intervals, and comparisons of methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

from scdyn.io.artefacts import read_json, read_table, writing_parquet
from scdyn.settings import ENSEMBLE, VariantSettings, is_compared
from scdyn.tasks import metrics
from scdyn.tasks.ensemble import has_ensemble, iter_ensembles
from scdyn.tasks.methods import choose_model
from scdyn.tasks.predictions import (
    RUN,
    MeanPredictions,
    list_probability_columns,
    list_runs,
    read_run,
)
from scdyn.tasks.splits import PREDICTED, describe_split

# Costs of a run; baselines have only some.
COSTS = ("n_training_cells", "seconds", "peak_memory_gib", "n_trained_parameters")
# Costs of an ensemble that are the sum of those of its runs; of the others it has the largest.
SUMMED = ("seconds", "n_trained_parameters")
# Scores whose largest value is not 1.
HIGHEST = {"nll": np.inf, "brier": 2.0}
SUMMARY_COLUMNS = [
    "part", "method", "score", "mean", "low", "high", "n_runs", "best_baseline", "difference", "p",
]  # fmt: skip
# Headlines: the scores of the figure, and of the comparison by share of labels.
HEADLINES = ("macro_f1", "accuracy")


def read_costs(models: Sequence[str | Path], tables: Sequence[str | Path]) -> pd.DataFrame:
    """Read the costs of the runs of a task: one row per run.

    Parameters
    ----------
    models
        Folders of fine-tuned models, with ``task.json``.
    tables
        Costs of baselines, as :func:`scdyn.tasks.baselines.fit_baselines` and
        :func:`scdyn.tasks.peers.predict_with_scanvi` return them.
    """
    described = pd.DataFrame([read_json(Path(folder, "task.json")) for folder in models])
    return pd.concat([described, *map(read_table, tables)])


def combine_costs(costs: pd.DataFrame) -> pd.DataFrame:
    """Combine the costs of the runs (one per row) of each ensemble: one row per method and fold."""
    runs = costs.groupby(["method", "variant", "fold"])
    found = runs.max().assign(seed=runs["seed"].min())
    for name in SUMMED:
        if name in costs:
            found[name] = runs[name].sum(min_count=1)
    found = found.reset_index()
    return found.assign(method=found["method"] + ENSEMBLE)


def encode_labels(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number the labels and the predicted labels by their order, which is faster than text.

    Returns
    -------
    names, labels, predicted : ndarray
        Names of the numbers; (cells,) of int.
    """
    both = [predictions["label"].astype("category"), predictions["predicted"].astype("category")]
    names = np.array(sorted({name for column in both for name in column.cat.categories}), object)
    return names, *(column.cat.set_categories(names).cat.codes.to_numpy(int) for column in both)


def score_run(predictions: pd.DataFrame) -> dict[str, float]:
    """Score one run's predictions of one part, for cells labelled with a class of the task."""
    names, labels, predicted = encode_labels(predictions)
    of_classes = predictions[list_probability_columns(predictions)].dropna(axis=1, how="all")
    classes = pd.Index(names).get_indexer([name[2:] for name in of_classes])
    p = of_classes.to_numpy()
    result = metrics.score(labels, predicted) | metrics.score_probabilities(labels, classes, p)
    if "confidence_raw" in predictions:
        confidence = predictions["confidence_raw"].to_numpy(dtype=float)
        result["ece_raw"] = metrics.calibration_error(labels == predicted, confidence)
    return result | {"n_cells": len(predictions)}


def score_parts(predictions: pd.DataFrame, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Score one run: the run, ``part`` and the scores of :func:`score_run`, by part.

    Parameters
    ----------
    predictions
        As :func:`scdyn.tasks.predictions.tabulate_predictions` returns them.
    classes
        The task's classes. Predicted cells are scored if their own label is one of them.
    """
    run = {name: predictions[name].iloc[0] for name in RUN}
    labelled = predictions[predictions["label"].isin(classes)]
    return [
        run | {"part": part} | score_run(labelled[labelled["part"] == part])
        for part in labelled["part"].unique()
    ]


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
        (by that score), ``difference`` (from it) and ``p`` (paired), which are empty without
        baselines. Interval and p-value are over folds, of the mean of the seeds of each: runs of
        one fold share its cells and are not independent.
    """
    names = [name for name in scores if name not in {*RUN, "part", "n_cells"}]
    compared = scores[scores["variant"].map(is_compared)]
    rows = []
    for part, of_part in compared.groupby("part", sort=False):
        factor = test_over_train if part == "test" else 0.0
        n_runs = of_part.groupby("method")[names].count()
        for name in names:
            wide = of_part.pivot_table(index="fold", columns="method", values=name)
            wide = wide.reindex(columns=of_part["method"].unique())
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
                row |= {"low": low, "high": high, "n_runs": n_runs.loc[method, name]}
                if best is not None and method != best:
                    gap = (wide[method] - wide[best]).dropna().to_numpy()
                    row |= {"best_baseline": best, "difference": gap.mean()}
                    row |= {"p": metrics.paired_p(gap, factor)}
                rows.append(row)
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def compute_efficiency(
    scores: pd.DataFrame, shares: Mapping[str, float], test_over_train: float
) -> pd.DataFrame:
    """Compute the scores on held-out cells by share of the training labels.

    Parameters
    ----------
    scores
        As :func:`score_runs` returns them, with the costs of the runs.
    shares
        Variant to share, for the variants trained on fewer labels.
    test_over_train
        As for :func:`summarise_scores`. With fewer labels, too: it stands for what folds share.

    Returns
    -------
    DataFrame
        ``method``, ``labels``, ``n_training_cells`` (mean over the runs; a baseline is fitted to a
        draw of many), ``score`` (of :data:`HEADLINES`), its ``mean``, ``low`` and ``high`` (as in
        :func:`summarise_scores`), ``n_runs``.
    """
    tested = scores[scores["part"] == "test"]
    labels = {name: 1.0 for name in tested["variant"].unique() if is_compared(name)}
    tested = tested.assign(labels=tested["variant"].map(labels | dict(shares)))
    tested = tested.dropna(subset="labels")
    # Only methods that were also run on fewer labels are compared.
    several = tested.groupby("method")["labels"].nunique()
    rows = []
    for (method, share), part in tested.groupby(["method", "labels"]):
        for score in HEADLINES if several[method] > 1 else ():
            values = part.groupby("fold")[score].mean().to_numpy()
            n_cells = part["n_training_cells"].mean()
            low, high = np.clip(metrics.confidence_interval(values, test_over_train), 0, 1)
            rows.append((method, share, n_cells, score, values.mean(), low, high, len(part)))
    columns = ["method", "labels", "n_training_cells", "score", "mean", "low", "high", "n_runs"]
    return pd.DataFrame(rows, columns=columns)


def tabulate_novelty(predictions: pd.DataFrame, without: str) -> pd.DataFrame:
    """Tabulate how sure a run is of each held-out cell, and which class is new to it.

    Parameters
    ----------
    predictions
        As :func:`scdyn.tasks.predictions.tabulate_predictions` returns them.
    without
        The class left out of the training set.

    Returns
    -------
    DataFrame
        ``unseen`` (whether the cell is of this class), ``confidence`` and, if the run has it,
        ``familiarity``.
    """
    tested = predictions[predictions["part"] == "test"]
    table = pd.DataFrame(
        {
            "unseen": (tested["label"] == without).to_numpy(),
            "confidence": tested[list_probability_columns(tested)].max(axis=1).to_numpy(),
        }
    )
    if "familiarity" in tested:
        table["familiarity"] = tested["familiarity"].to_numpy()
    return table


def compute_novelty(cells: pd.DataFrame) -> list[tuple[str, float, int]]:
    """Score how well cells of a class absent from training are detected.

    Parameters
    ----------
    cells
        Tables of :func:`tabulate_novelty`, concatenated.

    Returns
    -------
    list of tuple
        "confidence" or "familiarity"; AUROC of low values in held-out cells of the class versus
        the other classes; number of cells of the class.
    """
    unseen = cells["unseen"].to_numpy()
    n_unseen = int(unseen.sum())
    return [
        (by, roc_auc_score(unseen, -cells[by]) if 0 < n_unseen < len(cells) else np.nan, n_unseen)
        for by in ("confidence", "familiarity")
        if by in cells and cells[by].notna().all()
    ]


def score_method(predictions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Score the mean predictions of a method on held-out cells.

    Parameters
    ----------
    predictions
        As :meth:`scdyn.tasks.predictions.MeanPredictions.tabulate` returns them.

    Returns
    -------
    dict
        ``classes`` (scores of each class), ``confusion`` (number of cells by label and predicted
        label) and ``reliability``: ``confidence`` (mean probability of the predicted label) and
        ``correct`` (share of the cells) by bin of the probability.
    """
    held_out = predictions[predictions["part"] == "test"]
    names, labels, predicted = encode_labels(held_out)
    classes = metrics.score_classes(labels, predicted)
    p = held_out[list_probability_columns(held_out)].to_numpy().max(1)
    correct, confidence = calibration_curve(labels == predicted, p, n_bins=metrics.N_BINS)
    return {
        "classes": classes.assign(**{"class": names[classes["class"]]}),
        "confusion": pd.crosstab(held_out["label"], held_out["predicted"]),
        "reliability": pd.DataFrame({"confidence": confidence, "correct": correct}),
    }


def score_runs(
    files: Sequence[str | Path],
    split: pd.DataFrame,
    without: Mapping[str, str],
    predictions: str | Path,
    runs: str | Path,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, dict[str, pd.DataFrame]]]:
    """Score every run, method and ensemble; one run and one method's mean are in memory at a time.

    An ensemble (:mod:`scdyn.tasks.ensemble`) is scored as a method with one run per fold. Memory
    follows the number of cells times that of classes, not the numbers of runs and methods: 1.1 GiB
    at 400,000 cells and 30 classes.

    Parameters
    ----------
    files, split, predictions, runs
        As for :func:`evaluate`.
    without
        Variant to the class left out of its training set.

    Returns
    -------
    scores : DataFrame
        One row per run and part: the run, ``part`` and the scores of :func:`score_run`. Ensembles
        come last.
    novelty : DataFrame
        ``method``, ``by`` ("familiarity" or "confidence"), ``class``, ``auroc`` and ``n_cells`` of
        :func:`compute_novelty`.
    of_methods : dict
        Compared method to tables of :func:`score_method`.
    """
    classes = sorted(split.loc[split["fold"] != PREDICTED, "label"].unique())
    scored: dict[int, list[dict[str, Any]]] = {}
    ensembles: list[dict[str, Any]] = []
    novelty: list[tuple[Any, ...]] = []
    of_methods = {}
    with writing_parquet(predictions) as write_mean, writing_parquet(runs) as write_run:
        for method, of_runs in list_runs(files).groupby("method", sort=False):
            mean = MeanPredictions(split, classes)
            uncertain: dict[str, list[pd.DataFrame]] = {}
            for place, run in of_runs.iterrows():
                rows, table = read_run(run["path"], run["number"], split)
                scored[place] = score_parts(table, classes)
                variant = run["variant"]
                if variant in without:
                    found = tabulate_novelty(table, without[variant])
                    uncertain.setdefault(variant, []).append(found)
                if is_compared(variant):
                    write_run(table[["cell", *RUN, "part", "predicted"]])
                    mean.add(rows, table)
            for variant, tables in uncertain.items():
                for row in compute_novelty(pd.concat(tables)):
                    novelty.append((method, variant, without[variant], *row))
            if mean.n_runs.any():
                table = mean.tabulate(method)
                write_mean(table)
                of_methods[method] = score_method(table)
            compared = of_runs[of_runs["variant"].map(is_compared)]
            if not has_ensemble(compared):
                continue
            mean = MeanPredictions(split, classes)
            for rows, table in iter_ensembles(compared, split, classes):
                ensembles += score_parts(table, classes)
                write_run(table[["cell", *RUN, "part", "predicted"]])
                mean.add(rows, table)
            table = mean.tabulate(f"{method}{ENSEMBLE}")
            write_mean(table)
            of_methods[f"{method}{ENSEMBLE}"] = score_method(table)
    columns = ["method", "variant", "class", "by", "auroc", "n_cells"]
    return (
        pd.DataFrame([*(row for _, rows in sorted(scored.items()) for row in rows), *ensembles]),
        pd.DataFrame(sorted(novelty), columns=columns)[["method", "by", "class", *columns[4:]]],
        of_methods,
    )


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
    files: Sequence[str | Path],
    costs: pd.DataFrame,
    split: pd.DataFrame,
    variants: Mapping[str, VariantSettings],
    split_by: str | None,
    left_out: pd.DataFrame | None = None,
    *,
    predictions: str | Path,
    runs: str | Path,
) -> dict[str, Any]:
    """Evaluate all runs of a task: the tables of its report page.

    Parameters
    ----------
    files
        Predictions of the runs, as :func:`scdyn.tasks.predictions.list_runs` lists them.
    costs
        One row per run: ``method``, ``variant``, ``seed``, ``fold``, ``n_training_cells``,
        ``seconds`` and, for fine-tuned models, ``n_trained_parameters`` and ``peak_memory_gib``.
    split, split_by
        The task's split and the column whose values are kept whole.
    variants
        As :meth:`scdyn.settings.EvaluationSettings.all_variants` returns them.
    left_out
        ``class`` and ``reason`` of the classes that the split leaves out; None if there are none.
    predictions, runs
        Files that are written: the mean predictions of each method
        (:class:`scdyn.tasks.predictions.MeanPredictions`), and the predicted labels of each
        compared run.

    Returns
    -------
    dict
        Tables ``scores`` (one row per run, with its costs), ``summary``, ``classes``,
        ``confusion`` (of the model) and ``reliability`` (:func:`score_method`), ``efficiency`` and
        ``novelty`` (:func:`score_runs`); ``metrics`` (:func:`nest_summary`, with ``split`` in
        words, ``n_held_out`` and ``n_predicted`` cells, ``costs`` by method and
        ``classes_left_out`` with their reasons).

    Raises
    ------
    InputError
        If the cells of a run are not those of the split.
    """
    tested = split["fold"] != PREDICTED
    without = {name: v.without for name, v in variants.items() if v.without is not None}
    scores, novelty, of_methods = score_runs(files, split, without, predictions, runs)
    cost = costs[[*RUN, *(c for c in COSTS if c in costs)]].astype({"seed": int, "fold": str})
    cost = pd.concat([cost, combine_costs(cost)])
    scores = scores.astype({"seed": int}).merge(cost, on=RUN, how="left")
    n_folds = split.loc[tested, "fold"].nunique()
    test_over_train = 1 / (n_folds - 1)
    summary = summarise_scores(
        scores.drop(columns=[c for c in COSTS if c in scores]), test_over_train
    )
    shares = {name: v.labels for name, v in variants.items() if v.labels < 1}
    compared = scores[scores["variant"].map(is_compared)]
    rare = {} if left_out is None else dict(zip(left_out["class"], left_out["reason"], strict=True))
    spent = compared.groupby("method")[[c for c in COSTS if c in compared]].mean()
    return {
        "scores": scores,
        "summary": summary,
        "classes": _concatenate_methods(of_methods, "classes"),
        "efficiency": compute_efficiency(scores, shares, test_over_train),
        "novelty": novelty,
        "confusion": of_methods[choose_model(of_methods)]["confusion"],
        "reliability": _concatenate_methods(of_methods, "reliability"),
        "metrics": nest_summary(summary)
        | {
            "split": describe_split(split, split_by),
            "n_held_out": int(tested.sum()),
            "n_predicted": int((~tested).sum()),
            "costs": {m: row.dropna().to_dict() for m, row in spent.iterrows()},
            "classes_left_out": rare,
        },
    }


def _concatenate_methods(
    of_methods: Mapping[str, Mapping[str, pd.DataFrame]], name: str
) -> pd.DataFrame:
    """Concatenate a table of each method, with the column ``method``."""
    tables = [tables[name].assign(method=method) for method, tables in of_methods.items()]
    return pd.concat(tables, ignore_index=True)
