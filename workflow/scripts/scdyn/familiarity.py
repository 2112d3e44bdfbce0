"""Whether a cell is like anything that a fine-tuned model has learned from."""

from __future__ import annotations

import numpy as np
from sklearn.covariance import LedoitWolf

# Most distances of validation cells that are kept: a p-value need not be finer than this.
MOST_KEPT = 1000


def fit_familiarity(
    learned: np.ndarray, labels: np.ndarray, validation: np.ndarray
) -> dict[str, np.ndarray]:
    """Describe where the learned cells lie in a model's hidden layer.

    Parameters
    ----------
    learned
        (cells, features) hidden values of the cells that were learned from.
    labels
        (cells,) their classes.
    validation
        (cells, features) of cells of the same classes that were not.

    Returns
    -------
    dict of float32 arrays
        ``means`` (classes, features); ``whitener`` (features, features), by which differences
        become uncorrelated, of the covariance within classes, shrunk (Ledoit & Wolf 2004);
        ``distances``, sorted, of the validation cells.
    """
    classes, places = np.unique(labels, return_inverse=True)
    means = np.stack([learned[places == i].mean(0) for i in range(len(classes))])
    within = LedoitWolf(assume_centered=True).fit(learned - means[places])
    whitener = np.linalg.cholesky(within.precision_)
    description = {"means": means, "whitener": whitener}
    distances = np.sort(nearest_distance(description, validation))
    kept = np.linspace(0, len(distances) - 1, min(len(distances), MOST_KEPT)).round().astype(int)
    description["distances"] = distances[kept]
    return {name: np.ascontiguousarray(a, dtype=np.float32) for name, a in description.items()}


def nearest_distance(description: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """Mahalanobis distance to the nearest class mean (Lee et al. 2018): (cells,)."""
    points = features @ description["whitener"]
    centres = description["means"] @ description["whitener"]
    squares = np.stack([((points - centre) ** 2).sum(1) for centre in centres], axis=1)
    return np.sqrt(squares.min(1))


def familiarity(description: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """Share of the validation cells that are as far from every class as a cell, or farther.

    A conformal p-value (Vovk et al. 2005): of cells that are like the validation cells,
    at most a share x has less than x.

    Parameters
    ----------
    description
        As :func:`fit_familiarity` returns it.
    features
        (cells, features).

    Returns
    -------
    ndarray, (cells,)
        Above 0, at most 1.
    """
    known = description["distances"]
    farther = len(known) - np.searchsorted(known, nearest_distance(description, features))
    return (1 + farther) / (1 + len(known))
