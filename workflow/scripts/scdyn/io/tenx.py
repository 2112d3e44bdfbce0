"""Readers of count matrices in 10x formats (HDF5 and MatrixMarket)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import polars as pl
from scipy import sparse

from scdyn.errors import InputError, reading
from scdyn.io.barcodes import require_unique
from scdyn.io.checks import VALUES_SEEN, check_counts, require_counts, require_nonempty
from scdyn.io.features import (
    GENES,
    PEAKS,
    find_counts,
    read_barcodes,
    read_features,
    to_matrix,
)
from scdyn.io.files import iter_line_blocks, open_bytes, open_text
from scdyn.io.hdf5 import open_hdf5
from scdyn.io.sample_files import USA, USA_PARTS, Matrix
from scdyn.log import logger

# Order of the counts in a matrix of alevin-fry's USA mode.
USA_ORDER = ("spliced", "unspliced", "ambiguous")
CELLS_AT_ONCE = 1024
# A line of MatrixMarket: row, column and count.
ENTRY = re.compile(rb"\s*\d+\s+\d+\s+[-+.\deE]+\s*")
# Bytes of a MatrixMarket file that are read at once, to check and to parse them.
BYTES_SEEN = 2**20
BLOCK_BYTES = 16 * 2**20


class Columns(NamedTuple):
    """The columns that the counts of a feature type are summed to.

    Attributes
    ----------
    map
        (features, columns) that counts are multiplied by; None if they are kept as they are.
    var
        Table of the columns.
    """

    map: sparse.csr_matrix | None
    var: pd.DataFrame


# Chooses the columns for a feature type and its features, before counts are read; None leaves the
# type out.
ChooseColumns = Callable[[str, pd.DataFrame], Columns | None]


def keep_features(kind: str, features: pd.DataFrame) -> Columns:
    """Keep the counts of all features."""
    return Columns(None, features)


def read_matrix(
    matrix: Matrix | str | Path, choose: ChooseColumns = keep_features
) -> tuple[ad.AnnData | None, ad.AnnData | None]:
    """Read a matrix in a 10x format, and split it by feature type.

    Parameters
    ----------
    matrix
        As found by :func:`scdyn.io.sample_files.locate`, or the path of an ``.h5`` or a folder.
    choose
        Chooses the columns for genes and peaks.

    Returns
    -------
    rna : AnnData or None
        Counts of the Gene Expression features, with ids in ``var["gene_ids"]``.
    peaks : AnnData or None
        Counts of the Peaks features, named ``chrom:start-end``.

    Raises
    ------
    InputError
        If the file cannot be read, has no cell, or has neither genes nor peaks.
    """
    matrix = to_matrix(matrix)
    path = matrix.path
    n_features: dict[str, int] = {}

    def choose_known(kind: str, features: pd.DataFrame) -> Columns | None:
        n_features[kind] = len(features)
        return choose(kind, features) if kind in (GENES, PEAKS) else None

    with reading("FORMAT", path, "not a readable 10x matrix"):
        if matrix.counts:
            tables = read_mtx(matrix, choose_known)
        else:
            tables = read_h5(Path(path), choose_known)
    names = read_barcodes(matrix)
    require_unique(names, path)
    if not len(names) or not {GENES, PEAKS} & n_features.keys():
        found = [f"{len(names)} cells of {kind}" for kind in sorted(n_features)]
        raise InputError(
            "MATRIX",
            f"{path}: has {', '.join(found) or 'no features'}, but cells with {GENES} or {PEAKS} "
            "are needed; name another matrix.",
        )
    for kind in sorted(n_features.keys() - {GENES, PEAKS}):
        logger.info("%s: ignoring %d features of type %s", path, n_features[kind], kind)
    return tables.get(GENES), tables.get(PEAKS)


def check_first_counts(matrix: Matrix) -> None:
    """Check that a matrix has raw counts, by its first values.

    MatrixMarket files are read to their end to detect truncation.

    Raises
    ------
    InputError
        If the first values are not counts, there are none, or a file is truncated.
    """
    path, n_counts = matrix.path, 0
    with reading("FORMAT", path, "not a readable 10x matrix"):
        if matrix.counts:
            n_counts = sum(check_entries(Path(file)) for file in matrix.counts)
        else:
            with open_hdf5(path) as file:
                data = find_counts(file, path)[0]["data"]
                require_counts(data[:VALUES_SEEN], path)
                n_counts = len(data)
    require_nonempty(n_counts, path)


def read_layer(
    matrix: Matrix, cells: pd.Index, gene_ids: Sequence[str], columns: Columns | None = None
) -> sparse.csr_matrix:
    """Read a layer from separate files, in the order of the RNA's cells and genes.

    Parameters
    ----------
    matrix
        Of the layer, such as unspliced counts.
    cells, gene_ids
        Cells and genes of the RNA counts. Cells that are missing in the layer get zeros.
    columns
        Columns that counts are summed to; by default the genes.

    Raises
    ------
    InputError
        If the layer has other genes, or no cells in common.
    """

    def choose_same(kind: str, features: pd.DataFrame) -> Columns | None:
        if kind == GENES and list(features["gene_ids"]) == list(gene_ids):
            return columns or Columns(None, features)
        return None

    table, _ = read_matrix(matrix, choose_same)
    if table is None:
        raise InputError(
            "LAYER",
            f"{matrix}: the genes differ from those of the RNA counts; use both from the same run.",
        )
    rows = table.obs_names.get_indexer(cells)
    if (rows < 0).all():
        raise InputError(
            "LAYER",
            f"{matrix}: no barcodes in common with the RNA counts (such as "
            f"{', '.join(cells[:3])}); use both from the same run.",
        )
    return take_rows(table.X, rows)


def take_rows(counts: sparse.csr_matrix, rows: np.ndarray) -> sparse.csr_matrix:
    """Take rows of a matrix in a given order, without a copy if it is the same.

    Parameters
    ----------
    counts
        (cells, columns).
    rows
        Row numbers; -1 gives an empty row.
    """
    if np.array_equal(rows, np.arange(counts.shape[0])):
        return counts
    found = rows >= 0
    taken = counts[rows[found]]
    ends = np.zeros(len(rows) + 1, dtype=np.int64)
    ends[1:][found] = np.diff(taken.indptr)
    ends = np.cumsum(ends)
    return sparse.csr_matrix((taken.data, taken.indices, ends), (len(rows), counts.shape[1]))


class Kind(NamedTuple):
    """A feature type that is read: where its features are, and the columns for their counts."""

    features: slice | np.ndarray
    columns: Columns


def find_kinds(features: pd.DataFrame, choose: ChooseColumns) -> dict[str, Kind]:
    """Find the feature types that are read.

    Parameters
    ----------
    features
        ``id``, ``name`` and ``kind``.
    choose
        Chooses the columns for each type.
    """
    kinds = {}
    # Genes first, because peaks alone are of no use.
    for kind in sorted(features["kind"].unique(), key=lambda kind: kind != GENES):
        rows = np.flatnonzero(features["kind"] == kind)
        var = features.iloc[rows].set_index("name")[["id"]]
        columns = choose(kind, var.rename(columns={"id": "gene_ids"}).rename_axis(None))
        if columns is not None:
            # SciPy is faster with a slice.
            is_block = rows[-1] - rows[0] + 1 == len(rows)
            kinds[kind] = Kind(slice(rows[0], rows[-1] + 1) if is_block else rows, columns)
    return kinds


def split_by_kind(
    blocks: Iterable[sparse.csr_matrix], kinds: dict[str, Kind], origin: str
) -> dict[str, sparse.csr_matrix]:
    """Split counts by feature type, and sum them to the chosen columns.

    Parameters
    ----------
    blocks
        Consecutive blocks of cells, (cells of the block, features).
    kinds
        From :func:`find_kinds`.
    origin
        The file, for messages.

    Returns
    -------
    dict
        Counts (int32) by feature type, (cells, columns).

    Raises
    ------
    InputError
        If values are not counts.
    """
    parts: dict[str, list[sparse.csr_matrix]] = {
        kind: [sparse.csr_matrix((0, len(columns.var)), dtype=np.int32)]
        for kind, (_, columns) in kinds.items()
    }
    for block in blocks:
        block = check_counts(block, origin)
        for kind, (features, columns) in kinds.items():
            parts[kind].append(sum_to_columns(block[:, features], columns))
    return {kind: sparse.vstack(parts.pop(kind), format="csr") for kind in kinds}


def sum_to_columns(cells: sparse.csr_matrix, columns: Columns) -> sparse.csr_matrix:
    """Sum the counts of a block of cells to the chosen columns, sorted within each cell."""
    if columns.map is None:
        return cells
    # To transpose twice sorts, and is faster than to sort.
    return (cells @ columns.map).tocsc().tocsr()


def make_tables(
    counts: dict[str, sparse.csr_matrix], kinds: dict[str, Kind], names: pd.Index
) -> dict[str, ad.AnnData]:
    """Make a table of the counts of each feature type."""
    return {
        kind: ad.AnnData(values, obs=pd.DataFrame(index=names), var=kinds[kind].columns.var)
        for kind, values in counts.items()
    }


def read_h5(path: Path, choose: ChooseColumns = keep_features) -> dict[str, ad.AnnData]:
    """Read an ``.h5`` of any version of Cell Ranger, in blocks of cells.

    scanpy reads the file at once, which for 100,000 cells with genes and peaks needs more memory
    than a job usually has.

    Parameters
    ----------
    path
        The file.
    choose
        Chooses the columns for each feature type.

    Returns
    -------
    dict
        Counts (int32) by feature type, with ``gene_ids`` in ``var`` unless other columns are
        chosen.

    Raises
    ------
    ValueError
        If the arrays are inconsistent.
    """
    names, features = read_barcodes(path), read_features(path)
    kinds = find_kinds(features, choose)
    with open_hdf5(path) as file:
        group, _ = find_counts(file, str(path))
        data, indices = group["data"], group["indices"]
        indptr = group["indptr"][:].astype(np.int64)
        shape = tuple(group["shape"][:])
        if shape != (len(features), len(names)) or len(indptr) != len(names) + 1:
            raise ValueError(
                f"the matrix has shape {shape}, its lists {(len(features), len(names))}"
            )
        if not len(data) == len(indices) == indptr[-1] or indptr[0] or (np.diff(indptr) < 0).any():
            raise ValueError("data, indices and indptr are inconsistent")
        blocks = iter_rows(data, indices, indptr, len(features))
        return make_tables(split_by_kind(blocks, kinds, str(path)), kinds, names)


def iter_rows(
    data: h5py.Dataset, indices: h5py.Dataset, indptr: np.ndarray, n_features: int
) -> Iterator[sparse.csr_matrix]:
    """Read the arrays of a CSR matrix in blocks of cells, (cells of the block, features).

    Raises
    ------
    ValueError
        If an index is out of range.
    """
    for start in range(0, len(indptr) - 1, CELLS_AT_ONCE):
        ends = indptr[start : start + CELLS_AT_ONCE + 1]
        part = slice(ends[0], ends[-1])
        block = sparse.csr_matrix(
            (data[part], indices[part], ends - ends[0]), (len(ends) - 1, n_features)
        )
        # SciPy does not check indices later, and would read out of bounds.
        block.check_format(full_check=True)
        yield block


def read_metrics(path: Path, barcodes: pd.Index) -> pd.DataFrame:
    """Read the per-barcode metrics of Cell Ranger ARC that cannot be computed from the counts.

    Parameters
    ----------
    path
        Its ``per_barcode_metrics.csv``.
    barcodes
        Of the matrix.

    Returns
    -------
    DataFrame, (barcodes)
        ``peak_share`` of the fragments, ``atac_mito_share`` of the reads; NaN for barcodes that
        are not in the table.

    Raises
    ------
    InputError
        If it cannot be read, or a column is missing.
    """
    columns = [
        "barcode", "atac_peak_region_fragments", "atac_fragments", "atac_mitochondrial_reads",
        "atac_raw_reads",
    ]  # fmt: skip
    with reading(
        "BARCODES", path, "not a readable table of barcodes", "copy it again, or remove it"
    ):
        table = pd.read_csv(open_bytes(path), usecols=columns).drop_duplicates("barcode")
        table = table.set_index("barcode").reindex(barcodes).astype(float)
    in_peaks, fragments, mitochondrial, reads = (table[name] for name in columns[1:])
    return pd.DataFrame(
        {
            "peak_share": in_peaks / fragments.clip(lower=1),
            "atac_mito_share": mitochondrial / reads.clip(lower=1),
        }
    )


def read_mtx(matrix: Matrix, choose: ChooseColumns = keep_features) -> dict[str, ad.AnnData]:
    """Read MatrixMarket files and their lists; returns the same as :func:`read_h5`.

    Raises
    ------
    InputError
        If the size of a matrix does not match its lists.
    """
    names, features = read_barcodes(matrix), read_features(matrix)
    kinds = find_kinds(features, choose)
    counts: dict[str, sparse.csr_matrix] = {}
    for path in map(Path, matrix.counts):
        require_sizes(matrix, path, len(names), len(features))
        try:
            found = split_by_kind(iter_cells(matrix, path, len(features)), kinds, matrix.path)
        except UnsortedError:
            whole = read_unsorted(matrix, path, len(features))
            found = split_by_kind([whole], kinds, matrix.path)
        counts = {kind: counts[kind] + found[kind] for kind in counts} or found
    return make_tables(counts, kinds, names)


def require_sizes(matrix: Matrix, path: Path, n_cells: int, n_features: int) -> None:
    """Compare the size in the header of a MatrixMarket file with its lists.

    This is done before memory is allocated by the sizes in the header.

    Raises
    ------
    InputError
        If the size does not match the lists, or the requested unspliced counts are not separate.
    """
    _, n_rows, n_columns, _ = read_sizes(path)
    found = (n_rows, n_columns) if matrix.cells_in_rows else (n_columns, n_rows)
    if found == (n_cells, n_features):
        if matrix.parts not in ((), USA_PARTS["spliced"]):
            raise InputError(
                "MATRIX",
                f"{path}: has no separate {matrix.parts[0]} counts; run alevin-fry in USA mode, "
                "with a reference that includes introns.",
            )
    elif not (matrix.parts and found == (n_cells, 3 * n_features)):
        raise make_size_error(matrix, path, found, (n_cells, n_features))


def make_size_error(
    matrix: Matrix, path: Path, found: tuple[int, int], listed: tuple[int, int]
) -> InputError:
    """Create the error for a matrix whose size, (cells, features), does not match its lists."""
    lists = f"{Path(matrix.features).name} and {Path(matrix.barcodes).name}"
    why = "are they from different runs, or is the matrix transposed?"
    if found == listed[::-1]:
        why = (
            "the matrix is transposed (cells x genes instead of genes x cells); transpose it, or "
            "write it as .h5ad."
        )
    elif found == (listed[0], 3 * listed[1]):
        why = (
            "it has three columns per gene, as alevin-fry writes spliced, unspliced and ambiguous "
            f"counts; name its folder with {USA}.mtx as path."
        )
    return InputError(
        "MATRIX",
        f"{path}: has {found[1]} features and {found[0]} cells, but {lists} list {listed[1]} and "
        f"{listed[0]}: {why}",
    )


def read_sizes(path: Path) -> tuple[int, int, int, int]:
    """Read the header of a MatrixMarket file.

    Returns
    -------
    n_lines, n_rows, n_columns, n_entries : int
        Lines of the header, and the sizes in it.

    Raises
    ------
    InputError
        If the file is not MatrixMarket in coordinate format.
    """
    with reading("FORMAT", path, "not a readable 10x matrix"), open_text(path) as handle:
        header = [handle.readline()]
        while len(header) < 1000 and (header[-1].startswith("%") or not header[-1].strip()):
            header.append(handle.readline())
    sizes = header[-1].split()
    kind = header[0].lower().split()
    if kind[:3] != ["%%matrixmarket", "matrix", "coordinate"] or len(sizes) != 3:
        raise InputError(
            "FORMAT", f"{path}: is not a MatrixMarket file in coordinate format; copy it again."
        )
    n_rows, n_columns, n_entries = map(int, sizes)
    return len(header), n_rows, n_columns, n_entries


def check_entries(path: Path) -> int:
    """Check the first entries of a MatrixMarket file and its number of lines.

    Returns
    -------
    int
        The number of entries in the header.

    Raises
    ------
    InputError
        If the first entries are not counts, or the file has fewer lines than entries.
    """
    n_lines, *shape, n_promised = read_sizes(path)
    with open_bytes(path) as file:
        for _ in range(n_lines):
            file.readline()
        text = file.read(BYTES_SEEN) + file.readline()
        require_counts(parse_entries(text, path)["value"].to_numpy(), str(path))
        n_entries, last = 0, b"\n"
        while text:
            n_entries, last = n_entries + text.count(b"\n"), text[-1:]
            text = file.read(BYTES_SEEN)
        n_entries += last != b"\n"
    if n_entries < n_promised:
        raise make_entries_error(path, n_entries, shape, n_promised)
    return n_promised


def make_entries_error(
    path: Path, n_entries: int, shape: Sequence[int], n_promised: int
) -> InputError:
    """Create the error for a matrix whose entries do not match its header."""
    return InputError(
        "MATRIX",
        f"{path}: has {n_entries} entries or some out of range, but its header declares "
        f"{n_promised} in a matrix of {shape[0]} x {shape[1]}; copy it again.",
    )


def parse_entries(text: bytes, path: Path) -> pl.DataFrame:
    """Parse whole lines of a MatrixMarket file: row, column and value.

    They may be separated by any spaces or tabs; single spaces are parsed without a copy.

    Raises
    ------
    InputError
        Showing the first line that is not an entry.
    """
    try:
        return parse_space_separated(text)
    except pl.exceptions.PolarsError:
        one_space = re.sub(rb"[ \t\r]+", b" ", text)
        tidied = one_space.replace(b" \n", b"\n").replace(b"\n ", b"\n").strip(b" ")
    try:
        return parse_space_separated(tidied)
    except pl.exceptions.PolarsError as error:
        lines = (line for line in text.splitlines() if line.strip())
        bad = next((line for line in lines if not ENTRY.fullmatch(line)), b"")
        raise InputError(
            "FORMAT",
            f"{path}: '{bad[:60].decode(errors='replace')}' is not an entry (row, column and "
            "count); copy it again.",
        ) from error


def parse_space_separated(text: bytes) -> pl.DataFrame:
    """Parse entries separated by single spaces, without blank lines."""
    entries = pl.read_csv(
        b"" if text.isspace() else text, has_header=False, separator=" ",
        schema={"row": pl.Int64, "column": pl.Int64, "value": pl.Float64},
    )  # fmt: skip
    if not entries["row"].null_count():
        return entries
    return entries.filter(~pl.all_horizontal(pl.all().is_null()))


def iter_entries(matrix: Matrix, path: Path) -> Iterator[tuple[np.ndarray, ...]]:
    """Read a MatrixMarket file in blocks of entries.

    SciPy's reader is not used because some damaged files crash it.

    Yields
    ------
    cell, column, value : ndarray
        Numbers of cell and column from 0, and the value as float64.

    Raises
    ------
    InputError
        At the end, if the entries do not match the header.
    """
    n_lines, *shape, n_promised = read_sizes(path)
    n_entries, n_good = 0, 0
    with open_bytes(path) as file:
        for _ in range(n_lines):
            file.readline()
        for text in iter_line_blocks(file, BLOCK_BYTES):
            entries = parse_entries(text, path)
            row, column = (entries[name].to_numpy() for name in ("row", "column"))
            good = entries["value"].is_not_null().to_numpy()
            good &= (row > 0) & (row <= shape[0]) & (column > 0) & (column <= shape[1])
            n_entries, n_good = n_entries + len(good), n_good + int(good.sum())
            places = (row, column) if matrix.cells_in_rows else (column, row)
            cell, column = (place[good].astype(np.int32) - 1 for place in places)
            yield cell, column, entries["value"].to_numpy()[good]
    if not n_good == n_entries == n_promised:
        raise make_entries_error(path, n_entries, shape, n_promised)


class UnsortedError(Exception):
    """The entries of a MatrixMarket file are not sorted by cell."""


def iter_cells(matrix: Matrix, path: Path, n_features: int) -> Iterator[sparse.csr_matrix]:
    """Read a MatrixMarket file in blocks of whole cells, (cells of the block, features).

    Raises
    ------
    UnsortedError
        If its entries are not sorted by cell.
    """
    _, *shape, _ = read_sizes(path)
    n_cells, n_columns = shape if matrix.cells_in_rows else shape[::-1]
    first = 0
    held: tuple[np.ndarray, ...] = (np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0))
    for part in iter_entries(matrix, path):
        cell, column, value = (np.concatenate(pair) for pair in zip(held, part, strict=True))
        if (np.diff(cell) < 0).any() or (cell[:1] < first).any():
            raise UnsortedError
        # The last cell may go on in the next block.
        last = int(cell[-1]) if len(cell) else first
        n = int(np.searchsorted(cell, last))
        entries = (value[:n], (cell[:n] - first, column[:n]))
        yield join_parts(sparse.csr_matrix(entries, (last - first, n_columns)), matrix, n_features)
        first, held = last, (cell[n:], column[n:], value[n:])
    entries = (held[2], (held[0] - first, held[1]))
    yield join_parts(sparse.csr_matrix(entries, (n_cells - first, n_columns)), matrix, n_features)


def read_unsorted(matrix: Matrix, path: Path, n_features: int) -> sparse.csr_matrix:
    """Read a whole MatrixMarket file, (cells, features)."""
    _, *shape, _ = read_sizes(path)
    parts = list(iter_entries(matrix, path))
    cell, column, value = (np.concatenate([part[i] for part in parts]) for i in range(3))
    shape = shape if matrix.cells_in_rows else shape[::-1]
    return join_parts(sparse.csr_matrix((value, (cell, column)), shape), matrix, n_features)


def join_parts(counts: sparse.csr_matrix, matrix: Matrix, n_features: int) -> sparse.csr_matrix:
    """Sum the parts of alevin-fry's matrix that are read, such as spliced and ambiguous counts."""
    if not matrix.parts or counts.shape[1] == n_features:
        return counts
    starts = [USA_ORDER.index(part) * n_features for part in matrix.parts]
    parts = [counts[:, start : start + n_features] for start in starts]
    return sum(parts[1:], parts[0])
