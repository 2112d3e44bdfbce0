"""Checks that values are raw counts, and a list of the columns that may name genes."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.abc import CSCDataset, CSRDataset
from scipy import sparse

from scdyn.errors import InputError

# Number of values that are read to tell raw counts from normalised values.
VALUES_SEEN = 100_000
MOST_COUNTS = np.iinfo(np.int32).max


def read_first_values(matrix: Any) -> np.ndarray:
    """Return the first stored values of a matrix, in memory or on the disk, dense or sparse."""
    if isinstance(matrix, (CSRDataset, CSCDataset)):
        matrix = matrix.group
    if isinstance(matrix, h5py.Group):
        return matrix["data"][:VALUES_SEEN]
    if sparse.issparse(matrix):
        return matrix.data[:VALUES_SEEN]
    n_rows = max(1, VALUES_SEEN // max(1, matrix.shape[1]))
    return np.asarray(matrix[:n_rows]).ravel()


def find_non_counts(values: np.ndarray) -> np.ndarray:
    """Return the values that are not non-negative integers."""
    return values[~(np.isfinite(values) & (values >= 0) & (values == np.rint(values)))]


def are_counts(values: np.ndarray) -> bool:
    """Tell whether all values are non-negative integers."""
    return not len(find_non_counts(values))


def check_counts(counts: Any, origin: str) -> sparse.csr_matrix:
    """Convert raw counts to CSR of int32.

    Parameters
    ----------
    counts
        (cells, genes), dense or sparse, in memory or backed by a file.
    origin
        The file, for messages.

    Raises
    ------
    InputError
        If a value is negative, fractional, not a number or beyond int32.
    """
    if isinstance(counts, (CSRDataset, CSCDataset)):
        counts = counts.to_memory()
    counts = counts[:] if isinstance(counts, h5py.Dataset) else counts
    if counts.dtype == np.float16:  # not supported by SciPy
        counts = counts.astype(np.float32)
    counts = sparse.csr_matrix(counts)
    require_counts(counts.data, origin)
    counts = counts.astype(np.int32)
    counts.eliminate_zeros()
    return counts


def require_counts(values: np.ndarray, origin: str) -> None:
    """Refuse values that are not counts, or do not fit into int32; see :func:`check_counts`."""
    if len(bad := find_non_counts(values)):
        raise InputError(
            "COUNTS",
            f"{origin}: the counts are not integers (found {bad[0]:.4g}); raw counts are "
            "needed, not normalised values.",
        )
    if len(values) and values.max() > MOST_COUNTS:
        raise InputError(
            "COUNTS",
            f"{origin}: a count of {values.max():.3g} exceeds the largest allowed, "
            f"{MOST_COUNTS:,}; are these raw counts?",
        )


def require_nonempty(n_counts: int, origin: str) -> None:
    """Refuse a matrix without any count.

    Raises
    ------
    InputError
        If ``n_counts`` is 0.
    """
    if not n_counts:
        raise InputError(
            "COUNTS",
            f"{origin}: the count matrix is empty; copy it again, or name another file.",
        )


def list_name_columns(var: pd.DataFrame) -> list[pd.Series]:
    """List the columns of ``var`` that may name genes: its index and every column of text.

    Missing names become empty strings, because a gene may be called ``nan``.
    """
    texts = var.select_dtypes(["object", "string", "category"]).astype(object).fillna("")
    index = pd.Series(var.index, dtype=str)
    return [index, *(texts[name].astype(str).reset_index(drop=True) for name in texts)]
