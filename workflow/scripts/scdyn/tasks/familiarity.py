"""Familiarity: how similar a cell is to the training cells of a fine-tuned model."""

from __future__ import annotations

import numpy as np

# Largest number of validation energies that are kept; it limits the resolution of the p-value.
MAX_ENERGIES = 1000


def fit_familiarity(energies: np.ndarray) -> np.ndarray:
    """Keep the energies of validation cells, among which other cells are ranked.

    The energy of a cell is minus the log of the sum of the exponentials of its logits (Liu et al.
    2020, arXiv:2010.03759): low if any class has a high logit.

    Parameters
    ----------
    energies
        (cells,) of validation cells.

    Returns
    -------
    ndarray of float32
        Sorted, at most a thousand quantiles.
    """
    ordered = np.sort(energies)
    kept = np.linspace(0, len(ordered) - 1, min(len(ordered), MAX_ENERGIES)).round().astype(int)
    return ordered[kept].astype(np.float32)


def compute_familiarity(validation: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Compute per cell the share of validation cells with the same or a higher energy.

    A conformal p-value (Vovk et al. 2005): among cells exchangeable with the validation cells, a
    share of at most x has a familiarity below x.

    Parameters
    ----------
    validation
        Energies, as :func:`fit_familiarity` returns them.
    energies
        (cells,).

    Returns
    -------
    ndarray, (cells,)
        Above 0, at most 1.
    """
    higher = len(validation) - np.searchsorted(validation, energies.astype(np.float32))
    return (1 + higher) / (1 + len(validation))
