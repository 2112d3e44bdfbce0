"""Readers of what 10x and its friends write: matrices with features."""

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
from scdyn.io.bounds import MOST_TIMES_LIST, open_bytes
from scdyn.io.checks import VALUES_SEEN, check_counts, require_counts, require_some
from scdyn.io.features import (
    GENES,
    PEAKS,
    as_matrix,
    barcode_names,
    group_of_counts,
    read_features,
)
from scdyn.io.files import open_text
from scdyn.io.hdf5 import open_bounded
from scdyn.io.libraries import USA, USA_PARTS, Matrix
from scdyn.log import logger

# The order in which alevin-fry writes its USA counts.
USA_ORDER = ("spliced", "unspliced", "ambiguous")
CELLS_AT_ONCE = 4096
# Row, column and count in a line of MatrixMarket.
ENTRY = re.compile(rb"\s*\d+\s+\d+\s+[-+.\deE]+\s*")
# Bytes of a matrix of text that are looked at or counted at once.
BYTES_SEEN = 2**20


def read_matrix(matrix: Matrix | str | Path) -> tuple[ad.AnnData | None, ad.AnnData | None]:
    """Read a matrix of 10x or its like, and part it by feature type.

    Parameters
    ----------
    matrix
        As :func:`scdyn.io.libraries.locate` finds it, or the path of an ``.h5`` or a folder.

    Returns
    -------
    rna : AnnData or None
        Counts of the Gene Expression features; ``var["gene_ids"]`` has the ids.
    peaks : AnnData or None
        Counts of the Peaks features, named ``chrom:start-end``. None if there are none.

    Raises
    ------
    InputError
        If the file cannot be read, or has neither genes nor peaks, or no cell.
    """
    matrix = as_matrix(matrix)
    path = matrix.path
    with reading("FORMAT", path, "not a readable 10x matrix"):
        matrices = read_mtx(matrix) if matrix.counts else read_h5(Path(path))
    for table in matrices.values():
        require_unique(table.obs_names, path)
    if not any(matrices[kind].n_obs for kind in {GENES, PEAKS} & set(matrices)):
        found = [f"{table.n_obs} cells of {kind}" for kind, table in sorted(matrices.items())]
        raise InputError(
            "MATRIX",
            f"{path}: has {', '.join(found) or 'no features'}; {GENES} or {PEAKS} of some cells "
            "are needed.",
        )
    for kind in sorted(set(matrices) - {GENES, PEAKS}):
        logger.info("%s: %d features of %s are not read", path, matrices[kind].n_vars, kind)
    return matrices.get(GENES), matrices.get(PEAKS)


def look_at_counts(matrix: Matrix) -> None:
    """Look whether a matrix holds counts, without keeping more than the first of them.

    Files of MatrixMarket are read to their end, since what was cut short is seen only there.

    Raises
    ------
    InputError
        If the first values are no counts, there are none, or a file is cut short.
    """
    path, n_counts = matrix.path, 0
    with reading("FORMAT", path, "not a readable 10x matrix"):
        if matrix.counts:
            n_counts = sum(look_at_entries(Path(file)) for file in matrix.counts)
        else:
            with open_bounded(path) as file:
                data = group_of_counts(file, path)[0]["data"]
                require_counts(data[:VALUES_SEEN], path)
                n_counts = len(data)
    require_some(n_counts, path)


def read_layer(matrix: Matrix, rna: ad.AnnData) -> sparse.csr_matrix:
    """Read a layer that lies in files of its own, in the order of the RNA's cells and genes.

    Parameters
    ----------
    matrix
        Of the layer, such as unspliced counts.
    rna
        Counts of the same genes; a cell that the layer lacks has none in it.

    Raises
    ------
    InputError
        If it is of other genes, or of none of the cells.
    """
    table, _ = read_matrix(matrix)
    if table is None or list(table.var["gene_ids"]) != list(rna.var["gene_ids"]):
        raise InputError(
            "LAYER",
            f"{matrix}: lists other genes than the RNA counts; are the two of the same run?",
        )
    rows = table.obs_names.get_indexer(rna.obs_names)
    found = np.flatnonzero(rows >= 0)
    if not len(found):
        raise InputError(
            "LAYER",
            f"{matrix}: has none of the RNA's barcodes (such as {', '.join(rna.obs_names[:3])}); "
            "are the two of the same run?",
        )
    ones = (np.ones(len(found), np.int32), (found, rows[found]))
    return sparse.csr_matrix(sparse.csr_matrix(ones, (rna.n_obs, table.n_obs)) @ table.X)


def part_by_kind(
    blocks: Iterable[sparse.csr_matrix], names: pd.Index, features: pd.DataFrame, origin: str
) -> dict[str, ad.AnnData]:
    """Part counts by the kind of their features.

    Parameters
    ----------
    blocks
        (some cells, features), which follow one another.
    names
        Of all cells.
    features
        ``id``, ``name`` and ``kind``.
    origin
        The file, for messages.

    Returns
    -------
    dict
        Kind of feature to its counts (int32), with ``gene_ids`` in ``var``.

    Raises
    ------
    InputError
        If values are no counts.
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
    """Read an ``.h5`` of any version of Cell Ranger, a few thousand cells at a time.

    By hand: read whole, as scanpy does, 100,000 cells with genes and peaks need more memory than
    a node's usual share.

    Raises
    ------
    ValueError
        If the arrays do not make a matrix.
    """
    names, features = barcode_names(path), read_features(path)
    with open_bounded(path) as file:
        group, _ = group_of_counts(file, str(path))
        data, indices = group["data"], group["indices"]
        indptr = group["indptr"][:].astype(np.int64)
        shape = tuple(group["shape"][:])
        if shape != (len(features), len(names)) or len(indptr) != len(names) + 1:
            raise ValueError(
                f"its matrix is of {shape}, its lists of {(len(features), len(names))}"
            )
        if not len(data) == len(indices) == indptr[-1] or indptr[0] or (np.diff(indptr) < 0).any():
            raise ValueError("its arrays are of different lengths")

        def blocks() -> Iterator[sparse.csr_matrix]:
            for start in range(0, len(names), CELLS_AT_ONCE):
                ends = indptr[start : start + CELLS_AT_ONCE + 1]
                part = slice(ends[0], ends[-1])
                block = sparse.csr_matrix(
                    (data[part], indices[part], ends - ends[0]), (len(ends) - 1, len(features))
                )
                # SciPy would read beyond the matrix where an index points there.
                block.check_format(full_check=True)
                yield block

        return part_by_kind(blocks(), names, features, str(path))


def read_metrics(path: Path, barcodes: pd.Index) -> pd.DataFrame:
    """Read what Cell Ranger ARC measured of each barcode and counts alone do not tell.

    Parameters
    ----------
    path
        Its ``per_barcode_metrics.csv``.
    barcodes
        Of the matrix.

    Returns
    -------
    DataFrame, (barcodes)
        ``peak_share`` of the fragments, ``atac_mito_share`` of the reads. A barcode that the table
        lacks has missing values.

    Raises
    ------
    InputError
        If it cannot be read, or lacks a column.
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
    """Read files of MatrixMarket and their lists, as :func:`part_by_kind` returns them.

    Raises
    ------
    InputError
        If a matrix has other sizes than the lists say.
    """
    names, features = barcode_names(matrix), read_features(matrix)
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
    return part_by_kind([sum(parts[1:], parts[0])], names, features, matrix.path)


def require_sizes(
    matrix: Matrix, path: Path, n_cells: int, n_features: int
) -> tuple[int, tuple[int, int], int]:
    """Read the header of one of a matrix's files, refusing one of other sizes than its lists.

    Before anything of these sizes is made: a header can say what it likes.

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
        If it has others, or does not keep spliced and unspliced counts apart as is asked for.
    """
    n_lines, n_rows, n_columns, n_entries = read_sizes(path)
    found = (n_rows, n_columns) if matrix.cells_in_rows else (n_columns, n_rows)
    if found == (n_cells, n_features):
        if matrix.parts not in ((), USA_PARTS["spliced"]):
            raise InputError(
                "MATRIX",
                f"{path}: does not tell {matrix.parts[0]} counts apart; run alevin-fry with a "
                "reference of introns, too, in its USA mode.",
            )
    elif not (matrix.parts and found == (n_cells, 3 * n_features)):
        raise other_sizes(matrix, path, found, (n_cells, n_features))
    return n_lines, (n_rows, n_columns), n_entries


def other_sizes(
    matrix: Matrix, path: Path, found: tuple[int, int], listed: tuple[int, int]
) -> InputError:
    """Say what a matrix of other sizes than its lists is: (cells, features) each."""
    lists = f"{Path(matrix.features).name} and {Path(matrix.barcodes).name}"
    why = "is it of another run, or turned on its side?"
    if found == listed[::-1]:
        why = (
            "it is turned on its side (cells x genes, where genes x cells are expected); transpose "
            "it, or write it as .h5ad."
        )
    elif found == (listed[0], 3 * listed[1]):
        why = (
            "it has three columns of each gene, as alevin-fry writes spliced, unspliced and "
            f"ambiguous counts; name its folder with {USA}.mtx as path."
        )
    return InputError(
        "MATRIX",
        f"{path}: has {found[1]} features and {found[0]} cells, but {lists} list {listed[1]} and "
        f"{listed[0]}: {why}",
    )


def read_sizes(path: Path) -> tuple[int, int, int, int]:
    """Read the header of a matrix of the coordinate format.

    Returns
    -------
    n_lines, n_rows, n_columns, n_entries : int
        Lines of the header, and what it promises.

    Raises
    ------
    InputError
        If it is of another format.
    """
    with reading("FORMAT", path, "not a readable 10x matrix"), open_text(path) as handle:
        header = [handle.readline()]
        while len(header) < 1000 and (header[-1].startswith("%") or not header[-1].strip()):
            header.append(handle.readline())
    sizes = header[-1].split()
    kind = header[0].lower().split()
    if kind[:3] != ["%%matrixmarket", "matrix", "coordinate"] or len(sizes) != 3:
        raise InputError(
            "FORMAT", f"{path}: is no MatrixMarket file of coordinates; copy it again."
        )
    n_rows, n_columns, n_entries = map(int, sizes)
    return len(header), n_rows, n_columns, n_entries


def look_at_entries(path: Path) -> int:
    """Look at the first entries of a matrix of the coordinate format, and count its lines.

    Returns
    -------
    int
        As many entries as its header promises: it has as many lines, of which some may be blank.

    Raises
    ------
    InputError
        If they are no counts, or others than its header says.
    """
    n_lines, *shape, n_promised = read_sizes(path)
    with open_bytes(path, MOST_TIMES_LIST) as file:
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
        raise other_entries(path, n_entries, shape, n_promised)
    return n_promised


def other_entries(path: Path, n_entries: int, shape: Sequence[int], n_promised: int) -> InputError:
    """Say that a matrix has other entries than its header promises."""
    return InputError(
        "MATRIX",
        f"{path}: its {n_entries} entries are not the {n_promised} of a matrix of {shape[0]} by "
        f"{shape[1]} that its header promises; copy it again.",
    )


def parse_entries(text: bytes, path: Path) -> pl.DataFrame:
    """Parse whole lines of a matrix of the coordinate format: row, column and value.

    Any blanks may stand between them; one space is parsed without a copy.

    Raises
    ------
    InputError
        Showing the first line that is no entry.
    """
    try:
        return parse_spaced(text)
    except pl.exceptions.PolarsError:
        one_space = re.sub(rb"[ \t\r]+", b" ", text)
        tidied = one_space.replace(b" \n", b"\n").replace(b"\n ", b"\n").strip(b" ")
    try:
        return parse_spaced(tidied)
    except pl.exceptions.PolarsError as error:
        lines = (line for line in text.splitlines() if line.strip())
        bad = next((line for line in lines if not ENTRY.fullmatch(line)), b"")
        raise InputError(
            "FORMAT",
            f"{path}: '{bad[:60].decode(errors='replace')}' stands where row, column and count of "
            "an entry are expected; copy it again.",
        ) from error


def parse_spaced(text: bytes) -> pl.DataFrame:
    """Parse entries of which each has one space between its numbers; blank lines are none."""
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
    """Read a matrix of the coordinate format.

    By polars: SciPy's reader ends the whole process on some damaged files.

    Parameters
    ----------
    path
        The file.
    n_lines, shape, n_entries
        As :func:`read_sizes` returns them.

    Raises
    ------
    InputError
        If it has other entries than its header says.
    """
    n_rows, n_columns = shape
    with open_bytes(path, MOST_TIMES_LIST) as file:
        for _ in range(n_lines):
            file.readline()
        entries = parse_entries(file.read(), path)
    row, column, value = (entries[name].to_numpy() for name in entries.columns)
    inside = (row > 0) & (row <= n_rows) & (column > 0) & (column <= n_columns)
    if entries.null_count().sum_horizontal()[0] or len(entries) != n_entries or not inside.all():
        raise other_entries(path, len(entries), shape, n_entries)
    places = (row - 1, column - 1)
    return sparse.coo_matrix((value, places), shape=shape, dtype=np.float64)
