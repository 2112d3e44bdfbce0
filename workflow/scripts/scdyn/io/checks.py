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
# Number of values of a file that are in memory before they become int32.
VALUES_AT_ONCE = 4_000_000
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
    if values.dtype.kind in "bui":
        return values[values < 0]
    return values[~(np.isfinite(values) & (values >= 0) & (values == np.rint(values)))]


def are_counts(values: np.ndarray) -> bool:
    """Tell whether all values are non-negative integers."""
    return not len(find_non_counts(values))


def check_counts(counts: Any, origin: str) -> sparse.csr_matrix:
    """Convert raw counts to CSR of int32, those of a file in blocks.

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
        return read_counts(counts, origin)
    if isinstance(counts, h5py.Dataset):
        n_rows = max(1, VALUES_AT_ONCE // max(1, counts.shape[1]))
        blocks = [
            check_counts(counts[start : start + n_rows], origin)
            for start in range(0, max(1, counts.shape[0]), n_rows)
        ]
        return sparse.vstack(blocks, format="csr")
    if counts.dtype == np.float16:  # not supported by SciPy
        counts = counts.astype(np.float32)
    counts = sparse.csr_matrix(counts)
    require_counts(counts.data, origin)
    counts = counts.astype(np.int32)
    counts.eliminate_zeros()
    return counts


def read_counts(counts: CSRDataset | CSCDataset, origin: str) -> sparse.csr_matrix:
    """Read raw counts from the disk, without a copy in any wider type; see :func:`check_counts`.

    Raises
    ------
    InputError
        If a value is not a count.
    ValueError
        If the arrays are inconsistent.
    """
    group = counts.group
    data, indices, indptr = group["data"], group["indices"], group["indptr"][:]
    if data.shape != indices.shape:
        raise ValueError(f"{data.shape[0]} values have {indices.shape[0]} indices")
    n_values = data.shape[0]
    values = np.empty(n_values, np.int32)
    places = np.empty(n_values, sparse.get_index_dtype(maxval=max(n_values, *counts.shape)))
    for start in range(0, n_values, VALUES_AT_ONCE):
        part = slice(start, start + VALUES_AT_ONCE)
        found = data[part]
        require_counts(found, origin)
        values[part], places[part] = found, indices[part]
    as_matrix = sparse.csr_matrix if isinstance(counts, CSRDataset) else sparse.csc_matrix
    matrix = as_matrix((values, places, indptr), counts.shape)
    # SciPy does not check indices later, and would read out of bounds.
    matrix.check_format(full_check=True)
    matrix = matrix.tocsr()
    matrix.eliminate_zeros()
    return matrix


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
