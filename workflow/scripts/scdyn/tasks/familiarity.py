"""Whether a cell is like anything that a fine-tuned model has learned from."""

from __future__ import annotations

import numpy as np

# Most energies of validation cells that are kept: a p-value need not be finer than this.
MAX_ENERGIES = 1000


def fit_familiarity(energies: np.ndarray) -> np.ndarray:
    """Keep the energies of cells that were held back from training, to rank others among.

    The energy of a cell is minus the log of the sum of the exponentials of its logits
    (Liu et al. 2020, arXiv:2010.03759): low where any class has much evidence.

    Parameters
    ----------
    energies
        (cells,) of validation cells.

    Returns
    -------
    ndarray of float32
        Sorted, at most a thousand of them, evenly drawn.
    """
    known = np.sort(energies)
    kept = np.linspace(0, len(known) - 1, min(len(known), MAX_ENERGIES)).round().astype(int)
    return known[kept].astype(np.float32)


def compute_familiarity(known: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Share of the validation cells whose energy is as high as a cell's, or higher.

    A conformal p-value (Vovk et al. 2005): of cells that are like the validation cells,
    at most a share x has less than x.

    Parameters
    ----------
    known
        As :func:`fit_familiarity` returns them.
    energies
        (cells,).

    Returns
    -------
    ndarray, (cells,)
        Above 0, at most 1.
    """
    higher = len(known) - np.searchsorted(known, energies.astype(np.float32))
    return (1 + higher) / (1 + len(known))
