"""The scores of every part of a study in one flat table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from scdyn.settings import LEFT_OUT, MAIN
from scdyn.tasks.splits import PREDICTED

# What scores of other methods begin with: a prefix a method, none for the model itself.
PREFIXES = {
    MAIN: "",
    "logistic_regression": "lr_",
    "logistic_regression_rna": "lr_rna_",
    "logistic_regression_l1": "lr_l1_",
    "majority": "majority_",
    "knn": "knn_",
    "xgboost": "xgboost_",
    "mlp": "mlp_",
    "scanvi": "scanvi_",
}
SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "ece")


def method_prefix(method: str) -> str:
    """Prefix of a method's scores; a variant of the model goes by its own name."""
    return PREFIXES.get(method, f"{method.removeprefix(f'{MAIN}_')}_")


def task_scores(task: str, metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Flatten the scores of one part of a task: ``task.accuracy``, ``task.lr_macro_f1``, ...

    Parameters
    ----------
    task
        Begins the names.
    metrics
        Method to scores, as :func:`scdyn.tasks.evaluation.nest_summary` has them.
    """
    bounds = [f"macro_f1_{bound}" for bound in ("low", "high")]
    return {
        f"{task}.{method_prefix(method)}{name}": of_method[name]
        for method, of_method in metrics.items()
        for name in (*SCORES, *bounds)
        if name in of_method
    }


def stability_scores(name: str, stability: pd.DataFrame) -> dict[str, float]:
    """Mean Jaccard index of two runs with other seeds, and of one with the same less some cells.

    Parameters
    ----------
    name
        Prefix of the scores.
    stability
        ``what``, ``run_a``, ``run_b``, ``jaccard``, the first run first; of a single run, no row.
    """
    kinds = {"": "strongest edges", "regulon_": "regulons' edges"}
    result = {}
    for prefix, kind in kinds.items():
        rows = stability[stability["what"] == kind]
        lacking = rows["run_b"] == LEFT_OUT
        same_seed = lacking & (rows["run_a"] == rows["run_a"].iloc[0]) if len(rows) else lacking
        for what, chosen in (("seed", rows[~lacking]), ("left_out", rows[same_seed])):
            if len(chosen):
                result[f"{name}.{prefix}{what}_jaccard"] = float(chosen["jaccard"].mean())
    return result


def explanation_scores(name: str, checks: Mapping[str, Any]) -> dict[str, float]:
    """Completeness error, and what correlation survives randomisation, of an explained task."""
    survived = [abs(value) for value in checks["randomised_correlation"].values()]
    return {
        f"{name}.completeness": checks["completeness"]["median"],
        f"{name}.randomised_correlation": float(np.mean(survived)),
    }


def collect_scores(
    *,
    stability: Mapping[str, pd.DataFrame],
    pretraining: Mapping[str, Mapping[str, float]],
    embeddings: Mapping[str, Mapping[str, float]],
    predictions: Mapping[str, pd.DataFrame],
    metrics: Mapping[str, Mapping[str, Any]],
    explanations: Mapping[str, Mapping[str, Any]],
) -> dict[str, float]:
    """Gather the scores of all parts of a study, named ``part.score``.

    Parameters
    ----------
    stability
        Corpus to its table of :func:`scdyn.grn.regulons.find_regulons`.
    pretraining, embeddings
        Model to its scores. The model's name stands in the former only where there are several,
        as that of the corpus does in the network's.
    predictions, metrics
        Task to what :func:`scdyn.tasks.evaluation.evaluate` returns by these names.
    explanations
        Explained task to its checks.

    Returns
    -------
    dict
        Scores on held-out cells are of ``task``, or of ``task.held_out`` where the task also
        predicts cells; scores on these are of ``task.predicted``.
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
        predicts = (predictions[task]["part"] == PREDICTED).any()
        names = {"test": f"{task}.held_out" if predicts else task, PREDICTED: f"{task}.predicted"}
        for part, name in names.items():
            result |= task_scores(name, parts.get(part, {}))
    for task, checks in explanations.items():
        result |= explanation_scores(f"explain.{task}", checks)
    return result


def model_variants(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Name the variants of the model that each task has scores of.

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
                if method.startswith(f"{MAIN}_")
            }
        )
        for task, parts in metrics.items()
    }
