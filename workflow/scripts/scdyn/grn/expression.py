"""The matrix that regulators are inferred from; read by h5py, in every environment."""

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
    """Log-normalised RNA of some cells (or metacells) and genes; sparse to the end."""

    genes: list[str]
    """Symbols."""
    is_tf: np.ndarray
    """(genes,) of bool."""
    values: sparse.csc_matrix
    """(cells, genes), log1p(TPM)."""

    @property
    def tfs(self) -> np.ndarray:
        """Columns of the TFs."""
        return np.flatnonzero(self.is_tf)

    def dense(self, columns: np.ndarray | list[int]) -> np.ndarray:
        """Return some genes' values, in the matrix' own precision: (cells, columns)."""
        return self.values[:, columns].toarray()


def read_expression(path: str | Path) -> Expression:
    """Read what :func:`scdyn.grn.cells.write_expression` wrote (an h5ad with a CSC matrix)."""
    with reading_artefact(path), h5py.File(path) as file:
        x = file["X"]
        values = sparse.csc_matrix(
            (x["data"][:], x["indices"][:], x["indptr"][:]), shape=tuple(x.attrs["shape"])
        )
        genes = file["var/symbol"].asstr()[:].tolist()
        return Expression(genes, file["var/is_tf"][:].astype(bool), values)


def standardise_ranks(values: np.ndarray) -> np.ndarray:
    """Rank each column, ties sharing their mean rank, and scale to mean 0 and variance 1.

    Returns
    -------
    ndarray of float32
        As ``values``; a constant column is zero.
    """
    ranks = rankdata(values, axis=0)
    ranks -= ranks.mean(0)
    spread = ranks.std(0)
    return (ranks / np.where(spread > 0, spread, 1.0)).astype(np.float32)
