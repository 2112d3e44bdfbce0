"""All scores of a study in one flat dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from scdyn.settings import LEFT_OUT, MAIN
from scdyn.tasks.splits import PREDICTED

# Prefix of the scores of each method; none for the model itself.
PREFIXES = {
    MAIN: "",
    "logistic_regression": "lr_",
    "logistic_regression_rna": "lr_rna_",
    "logistic_regression_l1": "lr_l1_",
    "logistic_regression_pca": "lr_pca_",
    "majority": "majority_",
    "knn": "knn_",
    "xgboost": "xgboost_",
    "mlp": "mlp_",
    "scanvi": "scanvi_",
}
SCORES = ("macro_f1", "accuracy", "balanced_accuracy", "ece")


def method_prefix(method: str) -> str:
    """Return the prefix of a method's scores; for a variant or an ensemble, its name."""
    return PREFIXES.get(method, f"{method.removeprefix(f'{MAIN}_')}_")


def task_scores(task: str, metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Flatten the scores of one part of a task: ``task.accuracy``, ``task.lr_macro_f1``, ...

    Parameters
    ----------
    task
        First part of the names.
    metrics
        Method to scores, as :func:`scdyn.tasks.evaluation.nest_summary` returns them.
    """
    bounds = [f"macro_f1_{bound}" for bound in ("low", "high")]
    return {
        f"{task}.{method_prefix(method)}{name}": of_method[name]
        for method, of_method in metrics.items()
        for name in (*SCORES, *bounds)
        if name in of_method
    }


def stability_scores(name: str, stability: pd.DataFrame) -> dict[str, float]:
    """Mean Jaccard index of runs with different seeds, and of runs with and without some cells.

    Parameters
    ----------
    name
        Prefix of the scores.
    stability
        ``what``, ``run_a``, ``run_b``, ``jaccard``, the first run first; no rows for a single run.
    """
    kinds = {"": "strongest edges", "regulon_": "regulons' edges"}
    result = {}
    for prefix, kind in kinds.items():
        rows = stability[stability["what"] == kind]
        subsampled = rows["run_b"] == LEFT_OUT
        first = rows["run_a"] == rows["run_a"].iloc[0] if len(rows) else subsampled
        same_seed = subsampled & first
        for what, chosen in (("seed", rows[~subsampled]), ("left_out", rows[same_seed])):
            if len(chosen):
                result[f"{name}.{prefix}{what}_jaccard"] = float(chosen["jaccard"].mean())
    return result


def explanation_scores(name: str, checks: Mapping[str, Any]) -> dict[str, float]:
    """Completeness error, and mean absolute correlation after randomisation, of a task."""
    correlations = [abs(value) for value in checks["randomised_correlation"].values()]
    return {
        f"{name}.completeness": checks["completeness"]["median"],
        f"{name}.randomised_correlation": float(np.mean(correlations)),
    }


def collect_scores(
    *,
    stability: Mapping[str, pd.DataFrame],
    pretraining: Mapping[str, Mapping[str, float]],
    embeddings: Mapping[str, Mapping[str, float]],
    metrics: Mapping[str, Mapping[str, Any]],
    explanations: Mapping[str, Mapping[str, Any]],
) -> dict[str, float]:
    """Collect the scores of all parts of a study, named ``part.score``.

    Parameters
    ----------
    stability
        Corpus to its table of :func:`scdyn.grn.regulons.find_regulons`.
    pretraining, embeddings
        Model to its scores. Names of pretraining scores contain the model only if there are
        several, as those of the network contain the corpus.
    metrics
        Task to the entry of this name that :func:`scdyn.tasks.evaluation.evaluate` returns.
    explanations
        Explained task to its checks.

    Returns
    -------
    dict
        Scores on held-out cells are named ``task``, or ``task.held_out`` if the task also predicts
        other cells; scores on those are named ``task.predicted``.
    """
    result: dict[str, float] = {}
    for corpus, table in stability.items():
        result |= stability_scores("grn" if len(stability) == 1 else f"grn.{corpus}", table)
    for model, scores in pretraining.items():
        name = "pretrain" if len(pretraining) == 1 else f"pretrain.{model}"
        result |= {f"{name}.{key}": value for key, value in scores.items()}
    for model, scores in embeddings.items():
        result |= {f"embed.{model}.{key}": value for key, value in scores.items()}
    for task, parts in metrics.items():
        held_out = f"{task}.held_out" if parts["n_predicted"] else task
        names = {"test": held_out, PREDICTED: f"{task}.predicted"}
        for part, name in names.items():
            result |= task_scores(name, parts.get(part, {}))
    for task, checks in explanations.items():
        result |= explanation_scores(f"explain.{task}", checks)
    return result


def model_variants(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """List the variants of the model, and the ensembles, that have scores, by task.

    Parameters
    ----------
    metrics
        As :func:`collect_scores`.
    """
    return {
        task: sorted(
            {
                method
                for part in ("test", PREDICTED)
                for method in parts.get(part, {})
                if method not in PREFIXES
            }
        )
        for task, parts in metrics.items()
    }
