"""Scores of calls and of their probabilities, how sure they are, and whether two differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

# Bins of the expected calibration error, as in Guo et al. 2017 (arXiv:1706.04599).
N_BINS = 15


def score(labels: np.ndarray, called: np.ndarray) -> dict[str, float]:
    """Accuracy, balanced accuracy and macro-F1 over the classes that occur among the labels."""
    classes = np.unique(labels)
    # balanced_accuracy_score is this recall, but warns of predictions that are no class of these.
    _, recall, f1, _ = precision_recall_fscore_support(
        labels, called, labels=classes, average="macro", zero_division=0
    )
    return {
        "accuracy": float(accuracy_score(labels, called)),
        "balanced_accuracy": float(recall),
        "macro_f1": float(f1),
    }


def score_classes(labels: np.ndarray, called: np.ndarray) -> pd.DataFrame:
    """Precision, recall and F1 of each class: ``class``, these, and ``n_cells`` that have it."""
    classes = np.unique(labels)
    values = precision_recall_fscore_support(labels, called, labels=classes, zero_division=0)
    names = ("precision", "recall", "f1", "n_cells")
    return pd.DataFrame({"class": classes, **dict(zip(names, values, strict=True))})


def score_probabilities(
    labels: np.ndarray, classes: Sequence[str], p: np.ndarray
) -> dict[str, float]:
    """Score probabilities.

    scikit-learn's ``log_loss`` and ``brier_score_loss`` refuse labels that are none of the classes,
    as a class that a model never saw has; its ``calibration_curve`` does not count cells by bin.

    Parameters
    ----------
    labels
        (cells,); a label that is none of the classes counts as a class given probability 0.
    classes, p
        (classes,) and (cells, classes).

    Returns
    -------
    dict
        ``nll``: mean negative log-likelihood, nats, probabilities held above 1e-6; ``brier``:
        sum over classes of squared errors (Brier 1950), 0 to 2; ``ece``: expected calibration
        error of the called class over 15 bins of equal width (Guo et al. 2017).
    """
    true = np.asarray(labels)[:, None] == np.asarray(classes)
    of_true = (p * true).sum(1).clip(1e-6)
    right = true[np.arange(len(p)), p.argmax(1)]
    return {
        "nll": float(-np.log(of_true).mean()),
        # A label outside the classes misses its own 1 as well.
        "brier": float((((p - true) ** 2).sum(1) + ~true.any(1)).mean()),
        "ece": calibration_error(right, p.max(1)),
    }


def calibration_error(right: np.ndarray, confidence: np.ndarray) -> float:
    """Expected calibration error over 15 bins of equal width (Guo et al. 2017).

    Parameters
    ----------
    right, confidence
        (cells,) whether the call is right, and the probability given to it.
    """
    bins = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    gaps = np.bincount(bins, confidence - right, N_BINS)
    return float(np.abs(gaps).sum() / len(right))


def fit_temperature(labels: np.ndarray, classes: Sequence[str], p: np.ndarray) -> float:
    """Find the temperature at which probabilities fit held-out labels best (Guo et al. 2017).

    Of probabilities at hand; scikit-learn's ``CalibratedClassifierCV`` asks for their estimator.

    Parameters
    ----------
    labels, classes, p
        Of validation cells, as for :func:`score_probabilities`.

    Returns
    -------
    float
        0.05 to 20; 1 leaves probabilities as they are.
    """

    def loss(log_temperature: float) -> float:
        warmed = apply_temperature(p, np.exp(log_temperature))
        return score_probabilities(labels, classes, warmed)["nll"]

    bounds = (np.log(0.05), np.log(20))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def apply_temperature(p: np.ndarray, temperature: float) -> np.ndarray:
    """Divide log-probabilities by a temperature: (cells, classes) to (cells, classes)."""
    return softmax(np.log(p.clip(1e-30)) / temperature, axis=1)


def confidence_interval(
    values: np.ndarray, test_over_train: float = 0.0, level: float = 0.95
) -> tuple[float, float]:
    """Confidence interval of a mean over runs, by Student's t.

    Parameters
    ----------
    values
        (runs,) scores, one a fold and seed.
    test_over_train
        Tested cells over learned ones. Folds share training cells, so that their scores
        vary less than those of new data would; the variance is raised by this
        (Nadeau & Bengio 2003). 0 where all runs are tested on the same cells.
    level
        Of the interval.

    Returns
    -------
    tuple of float
        Lower and upper bound; NaN of a single run.
    """
    n = len(values)
    if n < 2:
        return float("nan"), float("nan")
    error = np.std(values, ddof=1) * np.sqrt(1 / n + test_over_train)
    half = stats.t.ppf((1 + level) / 2, n - 1) * error
    return float(np.mean(values) - half), float(np.mean(values) + half)


def paired_p(differences: np.ndarray, test_over_train: float = 0.0) -> float:
    """Two-sided p-value that paired runs differ: the corrected t-test of Nadeau & Bengio 2003.

    Parameters
    ----------
    differences
        (runs,) of one method's score and another's on the same cells.
    test_over_train
        As for :func:`confidence_interval`.

    Returns
    -------
    float
        NaN of a single run, or if all runs differ by the same, which tells of no spread; 1 if all
        differences are zero.
    """
    n, mean = len(differences), float(np.mean(differences))
    if n < 2:
        return float("nan")
    error = np.std(differences, ddof=1) * np.sqrt(1 / n + test_over_train)
    if error == 0:
        return 1.0 if mean == 0 else float("nan")
    return float(2 * stats.t.sf(abs(mean) / error, n - 1))
