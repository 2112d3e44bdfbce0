"""Readers of count matrices in 10x formats (HDF5 and MatrixMarket)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import anndata as ad
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
from scdyn.io.files import open_bytes, open_text
from scdyn.io.hdf5 import open_hdf5
from scdyn.io.sample_files import USA, USA_PARTS, Matrix
from scdyn.log import logger

# Order of the counts in a matrix of alevin-fry's USA mode.
USA_ORDER = ("spliced", "unspliced", "ambiguous")
CELLS_AT_ONCE = 4096
# A line of MatrixMarket: row, column and count.
ENTRY = re.compile(rb"\s*\d+\s+\d+\s+[-+.\deE]+\s*")
# Bytes of a MatrixMarket file that are read at once.
BYTES_SEEN = 2**20


def read_matrix(matrix: Matrix | str | Path) -> tuple[ad.AnnData | None, ad.AnnData | None]:
    """Read a matrix in a 10x format, and split it by feature type.

    Parameters
    ----------
    matrix
        As found by :func:`scdyn.io.sample_files.locate`, or the path of an ``.h5`` or a folder.

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
    with reading("FORMAT", path, "not a readable 10x matrix"):
        matrices = read_mtx(matrix) if matrix.counts else read_h5(Path(path))
    for table in matrices.values():
        require_unique(table.obs_names, path)
    if not any(matrices[kind].n_obs for kind in {GENES, PEAKS} & set(matrices)):
        found = [f"{table.n_obs} cells of {kind}" for kind, table in sorted(matrices.items())]
        raise InputError(
            "MATRIX",
            f"{path}: has {', '.join(found) or 'no features'}, but cells with {GENES} or {PEAKS} "
            "are needed; name another matrix.",
        )
    for kind in sorted(set(matrices) - {GENES, PEAKS}):
        logger.info("%s: ignoring %d features of type %s", path, matrices[kind].n_vars, kind)
    return matrices.get(GENES), matrices.get(PEAKS)


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


def read_layer(matrix: Matrix, rna: ad.AnnData) -> sparse.csr_matrix:
    """Read a layer from separate files, in the order of the RNA's cells and genes.

    Parameters
    ----------
    matrix
        Of the layer, such as unspliced counts.
    rna
        RNA counts of the same genes. Its cells that are missing in the layer get zeros.

    Raises
    ------
    InputError
        If the layer has other genes, or no cells in common.
    """
    table, _ = read_matrix(matrix)
    if table is None or list(table.var["gene_ids"]) != list(rna.var["gene_ids"]):
        raise InputError(
            "LAYER",
            f"{matrix}: the genes differ from those of the RNA counts; use both from the same run.",
        )
    rows = table.obs_names.get_indexer(rna.obs_names)
    found = np.flatnonzero(rows >= 0)
    if not len(found):
        raise InputError(
            "LAYER",
            f"{matrix}: no barcodes in common with the RNA counts (such as "
            f"{', '.join(rna.obs_names[:3])}); use both from the same run.",
        )
    ones = (np.ones(len(found), np.int32), (found, rows[found]))
    return sparse.csr_matrix(sparse.csr_matrix(ones, (rna.n_obs, table.n_obs)) @ table.X)


def split_by_kind(
    blocks: Iterable[sparse.csr_matrix], names: pd.Index, features: pd.DataFrame, origin: str
) -> dict[str, ad.AnnData]:
    """Split counts by feature type.

    Parameters
    ----------
    blocks
        Consecutive blocks of cells, (cells of the block, features).
    names
        Barcodes of all cells.
    features
        ``id``, ``name`` and ``kind``.
    origin
        The file, for messages.

    Returns
    -------
    dict
        Counts (int32) by feature type, with ``gene_ids`` in ``var``.

    Raises
    ------
    InputError
        If values are not counts.
    """
    kinds = features["kind"].unique()
    parts: dict[str, list[sparse.csr_matrix]] = {kind: [] for kind in kinds}
    for block in blocks:
        block = check_counts(block, origin)
        for kind in kinds:
            parts[kind].append(block[:, (features["kind"] == kind).to_numpy()])
    tables = {}
    for kind in kinds:
        var = features[features["kind"] == kind].set_index("name")[["id"]]
        var = var.rename(columns={"id": "gene_ids"}).rename_axis(None)
        empty = sparse.csr_matrix((0, len(var)), dtype=np.int32)
        values = sparse.vstack(parts.pop(kind) or [empty], format="csr")
        tables[kind] = ad.AnnData(values, obs=pd.DataFrame(index=names), var=var)
    return tables


def read_h5(path: Path) -> dict[str, ad.AnnData]:
    """Read an ``.h5`` of any version of Cell Ranger, in blocks of cells.

    scanpy reads the file at once, which for 100,000 cells with genes and peaks needs more memory
    than a job usually has.

    Raises
    ------
    ValueError
        If the arrays are inconsistent.
    """
    names, features = read_barcodes(path), read_features(path)
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

        def blocks() -> Iterator[sparse.csr_matrix]:
            for start in range(0, len(names), CELLS_AT_ONCE):
                ends = indptr[start : start + CELLS_AT_ONCE + 1]
                part = slice(ends[0], ends[-1])
                block = sparse.csr_matrix(
                    (data[part], indices[part], ends - ends[0]), (len(ends) - 1, len(features))
                )
                # SciPy does not check indices later, and would read out of bounds.
                block.check_format(full_check=True)
                yield block

        return split_by_kind(blocks(), names, features, str(path))


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


def read_mtx(matrix: Matrix) -> dict[str, ad.AnnData]:
    """Read MatrixMarket files and their lists; returns the same as :func:`split_by_kind`.

    Raises
    ------
    InputError
        If the size of a matrix does not match its lists.
    """
    names, features = read_barcodes(matrix), read_features(matrix)
    parts = []
    for path in map(Path, matrix.counts):
        n_lines, sizes, n_entries = require_sizes(matrix, path, len(names), len(features))
        entries = read_coordinates(path, n_lines, sizes, n_entries)
        cells = sparse.csr_matrix(entries if matrix.cells_in_rows else entries.T)
        if matrix.parts and cells.shape[1] > len(features):
            starts = [USA_ORDER.index(part) * len(features) for part in matrix.parts]
            parts += [cells[:, start : start + len(features)] for start in starts]
        else:
            parts.append(cells)
    return split_by_kind([sum(parts[1:], parts[0])], names, features, matrix.path)


def require_sizes(
    matrix: Matrix, path: Path, n_cells: int, n_features: int
) -> tuple[int, tuple[int, int], int]:
    """Read the header of a MatrixMarket file, and compare its size with the lists.

    This is done before memory is allocated by the sizes in the header.

    Returns
    -------
    n_lines : int
        Of the header.
    sizes : tuple of int
        Rows and columns.
    n_entries : int

    Raises
    ------
    InputError
        If the size does not match the lists, or the requested unspliced counts are not separate.
    """
    n_lines, n_rows, n_columns, n_entries = read_sizes(path)
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
    return n_lines, (n_rows, n_columns), n_entries


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


def read_coordinates(
    path: Path, n_lines: int, shape: tuple[int, int], n_entries: int
) -> sparse.coo_matrix:
    """Read a MatrixMarket file.

    SciPy's reader is not used because some damaged files crash it.

    Parameters
    ----------
    path
        The file.
    n_lines, shape, n_entries
        From :func:`read_sizes`.

    Raises
    ------
    InputError
        If the entries do not match the header.
    """
    n_rows, n_columns = shape
    with open_bytes(path) as file:
        for _ in range(n_lines):
            file.readline()
        entries = parse_entries(file.read(), path)
    row, column, value = (entries[name].to_numpy() for name in entries.columns)
    inside = (row > 0) & (row <= n_rows) & (column > 0) & (column <= n_columns)
    if entries.null_count().sum_horizontal()[0] or len(entries) != n_entries or not inside.all():
        raise make_entries_error(path, len(entries), shape, n_entries)
    places = (row - 1, column - 1)
    return sparse.coo_matrix((value, places), shape=shape, dtype=np.float64)
