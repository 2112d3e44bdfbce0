"""Read the barcodes, features and genomes of a matrix without its counts."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import pandas as pd
from anndata.io import read_elem, sparse_dataset

from scdyn.errors import InputError, reading
from scdyn.io.checks import list_name_columns
from scdyn.io.files import open_bytes
from scdyn.io.hdf5 import open_hdf5
from scdyn.io.sample_files import PACKED, Matrix, find_matrix

# Feature types of Cell Ranger.
GENES, PEAKS = "Gene Expression", "Peaks"
KINDS = (
    GENES, PEAKS, "Antibody Capture", "Antigen Capture", "CRISPR Guide Capture", "Custom",
    "Multiplexing Capture",
)  # fmt: skip
# Prefix of ids from a reference with several genomes, as in GRCh38_ENSG00000141510.
GENOME_PREFIX = r"^([A-Za-z0-9.-]+?)_+ENS[A-Z]*G\d+"


def read_barcodes(matrix: Matrix | str | Path) -> pd.Index:
    """Read the barcodes of a matrix without its counts.

    Parameters
    ----------
    matrix
        As for :func:`read_features`.

    Raises
    ------
    InputError
        If they cannot be read.
    """
    matrix = to_matrix(matrix)
    with reading("FORMAT", matrix.path, "its barcodes cannot be read"):
        if matrix.counts:
            return read_barcode_list(matrix)
        with open_hdf5(matrix.path) as file:
            if is_anndata(file):
                return read_frame(open_modality(file, matrix.modality)["obs"]).index.astype(str)
            group, _ = find_counts(file, matrix.path)
            return pd.Index(group["barcodes"].asstr()[:])


def read_features(matrix: Matrix | str | Path, source: str = "X") -> pd.DataFrame:
    """Read the features of a matrix without its counts.

    Parameters
    ----------
    matrix
        From :func:`scdyn.io.sample_files.locate`, or the path of a 10x ``.h5``, an mtx folder, an
        ``.h5ad`` or an ``.h5mu``.
    source
        Place of the RNA counts in an AnnData (:func:`scdyn.pp.counts.choose_rna_source`).

    Returns
    -------
    DataFrame of str
        ``kind`` ("Gene Expression", "Peaks"...), and columns that may name the feature: ``id`` and
        ``name`` for 10x and similar files; for an AnnData its index as ``name`` and every text
        column of ``var``. An ``.h5ad`` has genes, or peaks if it was named as ``atac_path``.

    Raises
    ------
    InputError
        If they cannot be read, or come from several genomes.
    """
    matrix = to_matrix(matrix)
    with reading("FORMAT", matrix.path, "its features cannot be read"):
        if matrix.counts:
            features = read_feature_list(matrix)
            of_genes = features["id"][features["kind"] == GENES].astype(str)
            require_one_genome(set(of_genes.str.extract(GENOME_PREFIX)[0].dropna()), matrix.path)
            return features
        with open_hdf5(matrix.path) as file:
            if is_anndata(file):
                if matrix.modality == "atac":
                    return read_var_names(open_modality(file, "atac")["var"], PEAKS)
                var = open_modality(file, "rna")["raw/var" if source == "raw/X" else "var"]
                tables = [read_var_names(var, GENES)]
                if "mod/atac/var" in file:
                    tables.append(read_var_names(file["mod/atac/var"], PEAKS))
                return pd.concat(tables, ignore_index=True)
            group, version = find_counts(file, matrix.path)
            if version == 2:
                names = {"id": group["genes"], "name": group["gene_names"]}
                return pd.DataFrame({k: v.asstr()[:] for k, v in names.items()}).assign(kind=GENES)
            keys = {"id": "id", "name": "name", "kind": "feature_type"}
            features = pd.DataFrame(
                {name: group[f"features/{key}"].asstr()[:] for name, key in keys.items()}
            )
            if "features/genome" in group:
                genomes = group["features/genome"].asstr()[:][features["kind"] == GENES]
                require_one_genome(set(genomes) - {""}, matrix.path)
            return features


def to_matrix(matrix: Matrix | str | Path) -> Matrix:
    """Convert a path to a :class:`Matrix`; see :func:`read_features`."""
    if isinstance(matrix, Matrix):
        return matrix
    return find_matrix(matrix) if Path(matrix).is_dir() else Matrix(str(matrix))


def is_anndata(file: h5py.File) -> bool:
    """Tell whether a file is an AnnData or MuData."""
    return bool({"obs", "mod"} & set(file))


def open_anndata(group: h5py.Group) -> ad.AnnData:
    """Open an AnnData on the disk: what describes cells and genes is read, its matrices are not.

    Parameters
    ----------
    group
        An ``.h5ad``, or a modality of an ``.h5mu``.

    Returns
    -------
    AnnData
        With ``obs``, ``var`` and positions in memory, and with ``X``, layers and ``raw`` as long
        as the file is open.
    """
    if isinstance(group["obs"], h5py.Dataset):  # anndata before 0.7
        return ad.read_h5ad(group.file.filename)
    raw = None
    if "raw/X" in group:
        raw = {"X": open_values(group["raw/X"]), "var": read_elem(group["raw/var"])}
    return ad.AnnData(
        open_values(group["X"]) if "X" in group else None,
        obs=read_elem(group["obs"]),
        var=read_elem(group["var"]),
        layers={name: open_values(values) for name, values in group.get("layers", {}).items()},
        obsm={"spatial": read_elem(group["obsm/spatial"])} if "obsm/spatial" in group else {},
        raw=raw,
    )


def open_values(values: h5py.Group | h5py.Dataset) -> Any:
    """Open a matrix of an AnnData on the disk."""
    if isinstance(values, h5py.Group):
        return sparse_dataset(values)
    return values if len(values.shape or ()) == 2 else read_elem(values)


def refuse_10x(file: h5py.File) -> None:
    """Refuse a 10x matrix where an AnnData is expected.

    Raises
    ------
    InputError
        Naming the right ``kind``.
    """
    if "matrix/features" in file:
        raise InputError(
            "FORMAT", f"{file.filename}: is a 10x matrix; set kind to 10x in the sample sheet."
        )


def open_modality(file: h5py.File, modality: str) -> h5py.Group:
    """Return the AnnData of a modality: the whole ``.h5ad``, or a part of an ``.h5mu``.

    Raises
    ------
    InputError
        If an ``.h5mu`` lacks the modality.
    """
    if "mod" not in file:
        return file
    require_modality(modality, file["mod"], file.filename)
    return file["mod"][modality]


def require_modality(modality: str, there: Collection[str], path: str) -> None:
    """Refuse an ``.h5mu`` that lacks a modality.

    Raises
    ------
    InputError
        Naming the modalities that it has.
    """
    if modality not in there:
        raise InputError(
            "FORMAT",
            f"{path}: has no modality '{modality}', only {', '.join(there)}; rename one.",
        )


def find_counts(file: h5py.File, path: str) -> tuple[h5py.Group, int]:
    """Find the matrix in a 10x ``.h5``, and the version of Cell Ranger that wrote it (2 or 3).

    Raises
    ------
    InputError
        If there is no matrix, it has several genomes (version 2), or its lists are missing.
    """
    if "matrix" in file and isinstance(file["matrix"], h5py.Group):
        return file["matrix"], 3
    groups = {name: part for name, part in file.items() if isinstance(part, h5py.Group)}
    genomes = [name for name, part in groups.items() if "indptr" in part]
    if not genomes:
        raise InputError(
            "FORMAT",
            f"{path}: no matrix of Cell Ranger in this HDF5 file ({', '.join(file) or 'empty'}); "
            "name its filtered_feature_bc_matrix.h5.",
        )
    require_one_genome(set(genomes), path)
    group = file[genomes[0]]
    lacking = [name for name in ("barcodes", "genes", "gene_names") if name not in group]
    if lacking:
        raise InputError(
            "FORMAT",
            f"{path}: '{lacking[0]}' is missing in this matrix of Cell Ranger 2 ({genomes[0]}); "
            "copy the file again.",
        )
    return group, 2


def require_one_genome(genomes: set[str], path: str) -> None:
    """Refuse a mixture of species.

    Raises
    ------
    InputError
        If there are genes of several genomes.
    """
    if len(genomes) > 1:
        raise InputError(
            "GENOMES",
            f"{path}: has genes of {len(genomes)} genomes ({', '.join(sorted(genomes))}); write "
            "the cells and genes of one genome into a separate matrix and name that.",
        )


def read_genomes(path: str | Path) -> set[str]:
    """Read the genome names of the features of an ``.h5`` (its groups, for Cell Ranger 2)."""
    with reading("FORMAT", path, "its features cannot be read"), open_hdf5(path) as file:
        if "matrix" not in file:
            return set(file)
        genomes = file["matrix/features"].get("genome")
        return set() if genomes is None else set(genomes.asstr()[:]) - {""}


def read_barcode_list(matrix: Matrix) -> pd.Index:
    """Read the list of barcodes of a MatrixMarket file.

    Row numbers (as R writes them), further columns and a header are ignored.
    """
    plain = read_lines(Path(matrix.barcodes))
    table = split_columns(plain)
    if len(table) and table.shape[1] > 1:
        rows = table[int(table[0].iloc[0] == "") :]  # skip a header: row numbers have no name
        counted = [[str(i + first) for i in range(len(rows))] for first in (0, 1)]
        if rows[1].is_unique and rows[0].tolist() in counted:
            return pd.Index(rows[1].to_numpy())
        if table is not plain and table[0].is_unique and plain[0].str.contains(",").all():
            return pd.Index(table[0].to_numpy())
    return pd.Index(plain[0].to_numpy())


def split_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Split a table that was read as one column by commas or spaces in place of tabs."""
    # At most three fields, because the last one, the feature type, may contain a space.
    for mark, n_splits in ((",", -1), (" ", 2)):
        if table.shape[1] == 1 and len(table) and table[0].str.contains(mark).all():
            table = table[0].str.split(rf"{mark}+", n=n_splits, expand=True, regex=True)
            table = table.apply(lambda column: column.str.strip(' "'))
    return table


def read_feature_list(matrix: Matrix) -> pd.DataFrame:
    """Read the list of features of a MatrixMarket file, separated by tabs, commas or spaces."""
    table = split_columns(read_lines(Path(matrix.features)))
    if Path(matrix.features).name.endswith(tuple(f"peaks.bed{end}" for end in PACKED)):
        names = table[0] + ":" + table[1] + "-" + table[2]
        return pd.DataFrame({"id": names, "name": names, "kind": PEAKS})
    n_genes = len(table) // 3
    if matrix.parts and table[0][n_genes:].str.endswith(("-U", "-A")).all() and n_genes:
        table = table[:n_genes]  # listed for each of spliced, unspliced and ambiguous counts
    short = table[[column for column in (0, 1, 2) if column in table]].isna().any(axis=1)
    if short.any():
        raise ValueError(f"line {short.idxmax() + 1} has fewer columns than others")
    # Cell Ranger 2 has only genes and no feature types; other tools write biotypes there. A single
    # column has ids or symbols.
    kind = table[2] if 2 in table and table[2].isin(KINDS).any() else GENES
    return pd.DataFrame({"id": table[0], "name": table[1 if 1 in table else 0], "kind": kind})


def read_var_names(var: h5py.Group, kind: str) -> pd.DataFrame:
    """Read the columns that may name the variables of an AnnData on the disk."""
    index, *columns = list_name_columns(read_frame(var))
    others = {f"column {i}": column.to_numpy() for i, column in enumerate(columns)}
    return pd.DataFrame({"name": index.to_numpy(), **others, "kind": kind})


def read_frame(group: h5py.Group) -> pd.DataFrame:
    """Read a data frame of an AnnData on the disk, including those of anndata before 0.7."""
    table = read_elem(group)
    if not isinstance(table, pd.DataFrame):
        table = pd.DataFrame.from_records(table)
        table = table.set_index(table.columns[0])
        table.index = table.index.str.decode("utf-8") if is_bytes(table.index) else table.index
    return table


def is_bytes(names: pd.Index) -> bool:
    """Tell whether names are bytes, as in old HDF5 files."""
    return bool(len(names)) and isinstance(names[0], bytes)


def read_lines(path: Path) -> pd.DataFrame:
    """Read a list of barcodes or features as text, without quotes and outer spaces."""
    with io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig") as handle:
        lines = [line.rstrip() for line in handle]
    while lines and not lines[-1]:
        lines.pop()
    rows = [[field.strip(' "') for field in line.split("\t")] for line in lines]
    return pd.DataFrame(rows, dtype=str) if rows else pd.DataFrame({0: []}, dtype=str)
