"""Random genes matched by expression, as a null for given genes."""

from __future__ import annotations

import numpy as np


def draw_matched_genes(
    expression: np.ndarray, chosen: np.ndarray, rng: np.random.Generator, n_near: int = 40
) -> np.ndarray:
    """Draw for each gene one of the genes nearest in expression, without replacement.

    Parameters
    ----------
    expression
        (genes,) mean expression.
    chosen
        (n,) positions of the genes to match; they are not drawn themselves if there are enough
        others.
    rng
        Random generator.
    n_near
        Number of candidates per gene.

    Returns
    -------
    ndarray, (n,)
    """
    free = np.ones(len(expression), dtype=bool)
    if 2 * len(chosen) <= len(expression):
        free[chosen] = False
    drawn = np.empty(len(chosen), dtype=int)
    for i, gene in enumerate(chosen):
        candidates = np.flatnonzero(free)
        distance = np.abs(expression[candidates] - expression[gene])
        near = candidates[np.argsort(distance, kind="stable")[:n_near]]
        drawn[i] = rng.choice(near)
        free[drawn[i]] = False
    return drawn


def permute_within_bins(
    values: np.ndarray, expression: np.ndarray, rng: np.random.Generator, n_bins: int = 10
) -> np.ndarray:
    """Permute values among genes of similar expression: (genes,) to (genes,)."""
    order = np.argsort(expression, kind="stable")
    result = np.empty_like(values)
    for part in np.array_split(order, min(n_bins, len(order))):
        result[part] = values[rng.permutation(part)]
    return result
