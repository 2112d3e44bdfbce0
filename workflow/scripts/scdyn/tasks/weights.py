"""Weights of classes, the same for the fine-tuned models and the baselines."""

from __future__ import annotations

import numpy as np

from scdyn.settings import ClassWeights

# Power of the number of a class's cells.
POWERS = {"none": 0.0, "sqrt": -0.5, "balanced": -1.0}


def weigh_classes(labels: np.ndarray, how: ClassWeights) -> np.ndarray:
    """Compute the weight of each class in a fit, whose mean over the training cells is one.

    Parameters
    ----------
    labels
        (cells,) labels of the training cells.
    how
        "none" - all cells weigh the same; "balanced" - all classes do (inverse number of cells,
        as in scikit-learn); "sqrt" - between the two (its square root).

    Returns
    -------
    ndarray, (classes,)
        In the order of ``np.unique(labels)``.
    """
    n_cells = np.unique(labels, return_counts=True)[1]
    weights = n_cells ** POWERS[how]
    return weights * len(labels) / (weights @ n_cells)
