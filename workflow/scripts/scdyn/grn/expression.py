"""Expression matrix of the GRN inference, read without anndata."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from scipy import sparse
from scipy.stats import rankdata

from scdyn.io.artefacts import reading_artefact


@dataclass(frozen=True)
class Expression:
    """Log-normalised RNA of the cells (or metacells) and genes of the GRN inference, sparse."""

    genes: list[str]
    """Symbols."""
    is_tf: np.ndarray
    """(genes,) of bool."""
    values: sparse.csc_matrix
    """(cells, genes), log-normalised."""

    @property
    def tfs(self) -> np.ndarray:
        """Columns of the TFs."""
        return np.flatnonzero(self.is_tf)

    @property
    def tf_names(self) -> np.ndarray:
        """Symbols of the TFs."""
        return np.array(self.genes)[self.is_tf]

    def dense(self, columns: np.ndarray | list[int]) -> np.ndarray:
        """Return the values of some genes as a dense array: (cells, columns)."""
        return self.values[:, columns].toarray()


def read_expression(path: str | Path) -> Expression:
    """Read the h5ad file of :func:`scdyn.grn.cells.write_expression`."""
    with reading_artefact(path), h5py.File(path) as file:
        x = file["X"]
        values = sparse.csc_matrix(
            (x["data"][:], x["indices"][:], x["indptr"][:]), shape=tuple(x.attrs["shape"])
        )
        genes = file["var/symbol"].asstr()[:].tolist()
        return Expression(genes, file["var/is_tf"][:].astype(bool), values)


def standardise_ranks(values: np.ndarray) -> np.ndarray:
    """Rank each column (ties get their mean rank), and scale to mean 0 and variance 1.

    Returns
    -------
    ndarray of float32
        Of the shape of ``values``; constant columns are zero.
    """
    ranks = rankdata(values, axis=0)
    ranks -= ranks.mean(0)
    spread = ranks.std(0)
    return (ranks / np.where(spread > 0, spread, 1.0)).astype(np.float32)
