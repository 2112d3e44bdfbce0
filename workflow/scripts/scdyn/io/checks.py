"""Counts are told from other values, and what may name genes from other columns."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.abc import CSCDataset, CSRDataset
from scipy import sparse

from scdyn.errors import InputError

# Values that are looked at to tell counts from normalised ones.
VALUES_SEEN = 100_000
MOST_COUNTS = np.iinfo(np.int32).max


def first_values(matrix: Any) -> np.ndarray:
    """Look at the first stored values of a matrix, in memory or on the disk, dense or sparse."""
    if isinstance(matrix, (CSRDataset, CSCDataset)):
        matrix = matrix.group
    if isinstance(matrix, h5py.Group):
        return matrix["data"][:VALUES_SEEN]
    if sparse.issparse(matrix):
        return matrix.data[:VALUES_SEEN]
    n_rows = max(1, VALUES_SEEN // max(1, matrix.shape[1]))
    return np.asarray(matrix[:n_rows]).ravel()


def are_counts(values: np.ndarray) -> bool:
    """Tell whether values can be counts: finite, not negative, whole."""
    finite, positive = np.isfinite(values).all(), (values >= 0).all()
    return bool(finite and positive and (values == np.rint(values)).all())


def check_counts(counts: Any, origin: str) -> sparse.csr_matrix:
    """Return raw counts as CSR of int32, refusing what cannot be counts.

    Parameters
    ----------
    counts
        (cells, genes), dense or sparse, in memory or backed by a file.
    origin
        The file, for messages.

    Raises
    ------
    InputError
        Naming ``origin``, if a value is negative, fractional, not a number or beyond int32.
    """
    if isinstance(counts, (CSRDataset, CSCDataset)):
        counts = counts.to_memory()
    counts = counts[:] if isinstance(counts, h5py.Dataset) else counts
    if counts.dtype == np.float16:  # which SciPy does not know
        counts = counts.astype(np.float32)
    counts = sparse.csr_matrix(counts)
    require_counts(counts.data, origin)
    counts = counts.astype(np.int32)
    counts.eliminate_zeros()
    return counts


def require_counts(values: np.ndarray, origin: str) -> None:
    """Refuse values that cannot be counts, or not be kept; see :func:`check_counts`."""
    if not are_counts(values):
        raise InputError(
            "COUNTS",
            f"{origin}: holds values that are no counts (negative, fractional or NaN); raw counts "
            "are needed, not normalised values.",
        )
    if len(values) and values.max() > MOST_COUNTS:
        raise InputError(
            "COUNTS",
            f"{origin}: holds a count of {values.max():.3g}, more than {MOST_COUNTS:,} of one gene "
            "in one cell; are these counts?",
        )


def require_some(n_counts: int, origin: str) -> None:
    """Refuse a matrix that stores no counts at all.

    Raises
    ------
    InputError
        Naming ``origin``.
    """
    if not n_counts:
        raise InputError(
            "COUNTS",
            f"{origin}: holds no counts at all; copy it again, or name the file that does.",
        )


def columns_of_names(var: pd.DataFrame) -> list[pd.Series]:
    """List what may name genes in a table of them: its index and every column of text.

    A missing name is empty: a gene may be called ``nan``.
    """
    texts = var.select_dtypes(["object", "string", "category"]).astype(object).fillna("")
    index = pd.Series(var.index, dtype=str)
    return [index, *(texts[name].astype(str).reset_index(drop=True) for name in texts)]
