"""Scores of predictions and probabilities, confidence intervals, and tests of differences."""

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


def score(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Accuracy, balanced accuracy and macro-F1 over the classes that occur among the labels."""
    classes = np.unique(labels)
    # balanced_accuracy_score is the same, but warns of predicted classes that no label has.
    _, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=classes, average="macro", zero_division=0
    )
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "balanced_accuracy": float(recall),
        "macro_f1": float(f1),
    }


def score_classes(labels: np.ndarray, predicted: np.ndarray) -> pd.DataFrame:
    """Score each class: ``class``, ``precision``, ``recall``, ``f1`` and ``n_cells`` (of it)."""
    classes = np.unique(labels)
    values = precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    names = ("precision", "recall", "f1", "n_cells")
    return pd.DataFrame({"class": classes, **dict(zip(names, values, strict=True))})


def score_probabilities(
    labels: np.ndarray, classes: Sequence[str] | range, p: np.ndarray
) -> dict[str, float]:
    """Score probabilities.

    scikit-learn's ``log_loss`` and ``brier_score_loss`` reject labels outside the classes, which
    occur when a class is left out of training; its ``calibration_curve`` does not return the number
    of cells per bin.

    Parameters
    ----------
    labels
        (cells,); a label outside the classes counts as a class with probability 0.
    classes, p
        (classes,) and (cells, classes).

    Returns
    -------
    dict
        ``nll``: mean negative log-likelihood, nats, probabilities clipped at 1e-6; ``brier``: sum
        over classes of squared errors (Brier 1950), 0 to 2; ``ece``: expected calibration error of
        the predicted class over 15 bins of equal width (Guo et al. 2017).
    """
    p = np.asarray(p, dtype=float)
    true = pd.Index(classes).get_indexer(labels)
    is_class = true >= 0
    of_true = np.where(is_class, p[np.arange(len(p)), true], 0.0)
    # (p - 1)^2 instead of p^2 for the own class; 1 if it is none of the classes.
    squared_errors = np.einsum("ij,ij->i", p, p) - 2 * of_true + 1
    return {
        "nll": float(-np.log(of_true.clip(1e-6)).mean()),
        "brier": float(squared_errors.mean()),
        "ece": calibration_error(p.argmax(1) == true, p.max(1)),
    }


def calibration_error(right: np.ndarray, confidence: np.ndarray) -> float:
    """Expected calibration error over 15 bins of equal width (Guo et al. 2017).

    Parameters
    ----------
    right, confidence
        (cells,) whether the prediction is right, and its probability.
    """
    bins = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    gaps = np.bincount(bins, confidence - right, N_BINS)
    return float(np.abs(gaps).sum() / len(right))


def fit_temperature(labels: np.ndarray, classes: Sequence[str], p: np.ndarray) -> float:
    """Fit the temperature that minimises the log loss on validation cells (Guo et al. 2017).

    It needs only probabilities; scikit-learn's ``CalibratedClassifierCV`` needs the estimator.

    Parameters
    ----------
    labels, classes, p
        Of validation cells, as for :func:`score_probabilities`.

    Returns
    -------
    float
        0.05 to 20; 1 leaves probabilities as they are.
    """
    true = pd.Index(classes).get_indexer(labels)

    def loss(log_temperature: float) -> float:
        calibrated = apply_temperature(p, np.exp(log_temperature))
        return score_probabilities(true, range(len(classes)), calibrated)["nll"]

    bounds = (np.log(0.05), np.log(20))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def apply_temperature(p: np.ndarray, temperature: float) -> np.ndarray:
    """Divide log-probabilities by a temperature: (cells, classes) to (cells, classes)."""
    return softmax(np.log(p.clip(1e-30)) / temperature, axis=1)


def confidence_interval(
    values: np.ndarray, test_over_train: float = 0.0, level: float = 0.95
) -> tuple[float, float]:
    """Compute the confidence interval of a mean over folds, by Student's t.

    Parameters
    ----------
    values
        (folds,) scores.
    test_over_train
        Number of test cells over that of training cells. Folds share training cells, so their
        scores vary less than those of new data would; the variance is increased by this ratio
        (Nadeau & Bengio 2003). 0 if all folds' models are tested on the same cells.
    level
        Confidence level.

    Returns
    -------
    tuple of float
        Lower and upper bound; NaN for a single value.
    """
    n = len(values)
    if n < 2:
        return float("nan"), float("nan")
    error = np.std(values, ddof=1) * np.sqrt(1 / n + test_over_train)
    half = stats.t.ppf((1 + level) / 2, n - 1) * error
    return float(np.mean(values) - half), float(np.mean(values) + half)


def paired_p(differences: np.ndarray, test_over_train: float = 0.0) -> float:
    """Two-sided p-value of a paired difference: the corrected t-test of Nadeau & Bengio 2003.

    Parameters
    ----------
    differences
        (folds,) differences of two methods' scores on the same cells.
    test_over_train
        As for :func:`confidence_interval`.

    Returns
    -------
    float
        NaN for a single difference, or if the variance of the differences is zero; 1 if all
        differences are zero.
    """
    n, mean = len(differences), float(np.mean(differences))
    if n < 2:
        return float("nan")
    error = np.std(differences, ddof=1) * np.sqrt(1 / n + test_over_train)
    if error == 0:
        return 1.0 if mean == 0 else float("nan")
    return float(2 * stats.t.sf(abs(mean) / error, n - 1))
