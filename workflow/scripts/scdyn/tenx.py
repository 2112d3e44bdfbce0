"""Readers of what 10x and its friends write: matrices with features, and where they lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import polars as pl
import scanpy as sc
from scipy import sparse

from scdyn.bounds import MOST_TIMES_LIST, open_bytes
from scdyn.counts import check_counts
from scdyn.errors import InputError, reading
from scdyn.features import (
    GENES,
    PEAKS,
    barcode_names,
    first,
    listed_features,
    read_features,
    read_lines,
)
from scdyn.files import open_text
from scdyn.hdf5 import open_bounded

# What Cell Ranger calls its outputs: ARC and GEX from version 3 on, GEX version 2, and ATAC.
MATRICES = (
    "filtered_feature_bc_matrix.h5",
    "filtered_feature_bc_matrix",
    "filtered_gene_bc_matrices_h5.h5",
    "filtered_gene_bc_matrices",
    "filtered_peak_bc_matrix.h5",
    "filtered_peak_bc_matrix",
)
FRAGMENTS = ("atac_fragments.tsv.gz", "fragments.tsv.gz")
METRICS = "per_barcode_metrics.csv"
MTX = ("matrix.mtx.gz", "matrix.mtx")
CELLS_AT_ONCE = 4096


@dataclass(frozen=True)
class Library:
    """Where one library's files lie; ``fragments`` and ``metrics`` are None if not there."""

    matrix: Path
    fragments: Path | None
    metrics: Path | None


def locate(path: str | Path) -> Library:
    """Find the matrix and the fragments of a Cell Ranger output.

    Parameters
    ----------
    path
        The output folder, the folder above its ``outs``, or the matrix itself: an ``.h5`` or
        a folder with ``matrix.mtx``.

    Raises
    ------
    InputError
        If there is no matrix, or version 2 wrote one for each of several genomes.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; check the sample sheet's path.")
    if path.is_file() or holds_mtx(path):
        matrix, folder = path, path.parent
    else:
        folder = path / "outs" if (path / "outs").is_dir() else path
        found = [folder / name for name in MATRICES if (folder / name).exists()]
        if not found:
            raise InputError(
                f"{folder}: holds none of {', '.join(MATRICES)}; is this Cell Ranger's output?"
            )
        matrix = found[0]
        if matrix.name == "filtered_gene_bc_matrices":
            genomes = [part for part in sorted(matrix.iterdir()) if holds_mtx(part)]
            if len(genomes) != 1:
                names = ", ".join(part.name for part in genomes) or "no genome"
                raise InputError(f"{matrix}: holds {names}; give the folder of one genome as path.")
            matrix = genomes[0]
    fragments = [folder / name for name in FRAGMENTS if (folder / name).exists()]
    metrics = folder / METRICS
    return Library(
        matrix, fragments[0] if fragments else None, metrics if metrics.exists() else None
    )


def holds_mtx(folder: Path) -> bool:
    """Tell whether a folder holds a matrix in the mtx layout."""
    return any((folder / name).exists() for name in MTX)


def read_matrix(path: str | Path) -> tuple[ad.AnnData | None, ad.AnnData | None]:
    """Read a 10x matrix, ``.h5`` or mtx folder, and part it by feature type.

    Parameters
    ----------
    path
        ``filtered_feature_bc_matrix.h5``, the folder of that name, or what Cell Ranger 2 and
        Cell Ranger ATAC write in their place.

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
    path = Path(path)
    with reading(path, "not a readable 10x matrix"):
        matrices = read_mtx(path) if path.is_dir() else read_h5(path)
    for matrix in matrices.values():
        duplicated = matrix.obs_names[matrix.obs_names.duplicated()]
        if len(duplicated):
            raise InputError(
                f"{path}: barcode {duplicated[0]} stands there twice; give each library a row or "
                "file of its own."
            )
    if not any(matrices[kind].n_obs for kind in {GENES, PEAKS} & set(matrices)):
        found = [f"{table.n_obs} cells of {kind}" for kind, table in sorted(matrices.items())]
        raise InputError(
            f"{path}: has {', '.join(found) or 'no features'}; {GENES} or {PEAKS} of some cells "
            "are needed."
        )
    return matrices.get(GENES), matrices.get(PEAKS)


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

    By hand from version 3 on: read whole, as scanpy does, 100,000 cells with genes and peaks need
    more memory than a node's usual share.

    Raises
    ------
    ValueError
        If the arrays do not make a matrix.
    """
    names, features = barcode_names(path), read_features(path)
    with open_bounded(path) as file:
        if "matrix" not in file:
            matrix = sc.read_10x_h5(path, gex_only=False).X
            matrix.check_format(full_check=True)
            return part_by_kind([matrix], names, features, str(path))
        data, indices = file["matrix/data"], file["matrix/indices"]
        indptr = file["matrix/indptr"][:].astype(np.int64)
        shape = tuple(file["matrix/shape"][:])
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
    with reading(path, "not a readable table of barcodes", "copy it again, or remove it"):
        table = pd.read_csv(open_bytes(path), usecols=columns).drop_duplicates("barcode")
        table = table.set_index("barcode").reindex(barcodes).astype(float)
    in_peaks, fragments, mitochondrial, reads = (table[name] for name in columns[1:])
    return pd.DataFrame(
        {
            "peak_share": in_peaks / fragments.clip(lower=1),
            "atac_mito_share": mitochondrial / reads.clip(lower=1),
        }
    )


def read_mtx(folder: Path) -> dict[str, ad.AnnData]:
    """Read a folder of matrix, barcodes and features, as :func:`part_by_kind` returns them.

    Features come as ``features.tsv`` (version 3), ``genes.tsv`` (version 2) or ``peaks.bed``
    (ATAC), each of the files plain or gzipped.

    Raises
    ------
    InputError
        If a file is missing, or the matrix has other sizes than the lists say.
    """
    matrix, barcodes = first(folder, "matrix.mtx"), first(folder, "barcodes.tsv")
    listed = first(folder, "features.tsv", "genes.tsv", "peaks.bed")
    names, features = read_lines(barcodes)[0], listed_features(listed)
    n_lines, n_features, n_cells, n_entries = read_sizes(matrix)
    # Before anything of these sizes is made: a header can say what it likes.
    if (n_cells, n_features) != (len(names), len(features)):
        raise InputError(
            f"{matrix}: has {n_features} features and {n_cells} cells, but "
            f"{listed.name} and {barcodes.name} list {len(features)} and {len(names)}; is it of "
            "another run, or turned on its side?"
        )
    values = read_coordinates(matrix, n_lines, (n_features, n_cells), n_entries)
    return part_by_kind([values], pd.Index(names.to_numpy()), features, str(folder))


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
    with open_text(path) as handle:
        header = [handle.readline()]
        while len(header) < 1000 and (header[-1].startswith("%") or not header[-1].strip()):
            header.append(handle.readline())
    sizes = header[-1].split()
    kind = header[0].lower().split()
    if kind[:3] != ["%%matrixmarket", "matrix", "coordinate"] or len(sizes) != 3:
        raise InputError(f"{path}: is no MatrixMarket file of coordinates; copy it again.")
    n_rows, n_columns, n_entries = map(int, sizes)
    return len(header), n_rows, n_columns, n_entries


def read_coordinates(
    path: Path, n_lines: int, shape: tuple[int, int], n_entries: int
) -> sparse.csr_matrix:
    """Read a matrix of the coordinate format that 10x writes, transposed.

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
    text = open_bytes(path, MOST_TIMES_LIST).read()
    entries = pl.read_csv(
        text, has_header=False, skip_rows=n_lines, separator=" ",
        schema={"row": pl.Int64, "column": pl.Int64, "value": pl.Float64},
    )  # fmt: skip
    row, column, value = (entries[name].to_numpy() for name in entries.columns)
    inside = (row > 0) & (row <= n_rows) & (column > 0) & (column <= n_columns)
    if entries.null_count().sum_horizontal()[0] or len(entries) != n_entries or not inside.all():
        raise InputError(
            f"{path}: its {len(entries)} entries are not the {n_entries} of a matrix of {n_rows} "
            f"by {n_columns} that its header promises; copy it again."
        )
    places = (column - 1, row - 1)
    return sparse.csr_matrix((value, places), shape=(n_columns, n_rows), dtype=np.float64)
