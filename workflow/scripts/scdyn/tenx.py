"""Readers of what 10x and its friends write: matrices with features, and where they lie."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import h5py
import pandas as pd
import scanpy as sc
import scipy.io
from scipy import sparse

from scdyn.counts import check_counts
from scdyn.errors import InputError

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
MTX = ("matrix.mtx.gz", "matrix.mtx")


@dataclass(frozen=True)
class Library:
    """Where one library's files lie; ``fragments`` is None where there are none."""

    matrix: Path
    fragments: Path | None


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
    return Library(matrix, fragments[0] if fragments else None)


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
    try:
        if path.is_dir():
            matrix = read_mtx(path)
        else:
            matrix = sc.read_10x_h5(path, gex_only=False)
            # Scanpy takes the arrays as they come; indices beyond the matrix would be read.
            matrix.X.check_format(full_check=True)
    except InputError:
        raise
    except Exception as error:  # readers raise anything from KeyError to zlib.error
        raise InputError(
            f"{path}: not a readable 10x matrix ({type(error).__name__}: {error}); copy it again "
            "from Cell Ranger's output."
        ) from error
    matrix.X = check_counts(matrix.X, str(path))
    # Version 2 knew genes alone and did not say so.
    kind = matrix.var.get("feature_types", pd.Series("Gene Expression", matrix.var_names))
    kind = kind.astype(str).to_numpy()
    rna, peaks = matrix[:, kind == "Gene Expression"].copy(), matrix[:, kind == "Peaks"].copy()
    if not (rna.n_vars or peaks.n_vars) or not matrix.n_obs:
        found = ", ".join(sorted(set(kind))) or "no features"
        raise InputError(
            f"{path}: has {matrix.n_obs} cells and {found}; Gene Expression or Peaks of some cells "
            "are needed."
        )
    duplicated = matrix.obs_names[matrix.obs_names.duplicated()]
    if len(duplicated):
        raise InputError(
            f"{path}: barcode {duplicated[0]} stands there twice; give each library a row or file "
            "of its own."
        )
    return rna if rna.n_vars else None, peaks if peaks.n_vars else None


def read_mtx(folder: Path) -> ad.AnnData:
    """Read a folder of matrix, barcodes and features: (cells, features).

    Features come as ``features.tsv`` (version 3), ``genes.tsv`` (version 2) or ``peaks.bed``
    (ATAC), each of the files plain or gzipped.

    Raises
    ------
    InputError
        If a file is missing, or the matrix has other sizes than the lists say.
    """
    matrix, barcodes = first(folder, "matrix.mtx"), first(folder, "barcodes.tsv")
    listed = first(folder, "features.tsv", "genes.tsv", "peaks.bed")
    values = sparse.csr_matrix(scipy.io.mmread(matrix).T)
    names = read_lines(barcodes)[0]
    table = read_lines(listed)
    if listed.name.startswith("peaks.bed"):
        index = table[0] + ":" + table[1] + "-" + table[2]
        var = pd.DataFrame({"gene_ids": index, "feature_types": "Peaks"})
    else:
        index = table[1]
        var = pd.DataFrame({"gene_ids": table[0]})
        var["feature_types"] = table[2] if 2 in table else "Gene Expression"
    if values.shape != (len(names), len(index)):
        raise InputError(
            f"{matrix}: has {values.shape[1]} features and {values.shape[0]} cells, but "
            f"{listed.name} and {barcodes.name} list {len(index)} and {len(names)}; is it of "
            "another run, or turned on its side?"
        )
    obs = pd.DataFrame(index=names.to_numpy())
    return ad.AnnData(values, obs=obs, var=var.set_axis(index.to_numpy()))


def first(folder: Path, *names: str) -> Path:
    """Return the first of some files that is there, plain or gzipped."""
    for name in names:
        for path in (folder / f"{name}.gz", folder / name):
            if path.exists():
                return path
    raise InputError(f"{folder}: lacks {' or '.join(names)}, plain or gzipped.")


def read_lines(path: Path) -> pd.DataFrame:
    """Read a list of barcodes or features, all of it as text."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig") as handle:
        return pd.DataFrame([line.rstrip("\r\n").split("\t") for line in handle], dtype=str)


def feature_names(path: str | Path) -> set[str]:
    """Read ids and symbols of the genes a matrix names, without its counts.

    Parameters
    ----------
    path
        A 10x ``.h5``, an mtx folder, an ``.h5ad`` or an ``.h5mu``.
    """
    path = Path(path)
    try:
        if path.is_dir():
            table = read_lines(first(path, "features.tsv", "genes.tsv"))
            kept = table[table[2] == "Gene Expression"] if 2 in table else table
            return set(kept[0]) | set(kept[1])
        with h5py.File(path) as file:
            if "matrix" in file:
                features = file["matrix/features"]
                genes = features["feature_type"].asstr()[:] == "Gene Expression"
                return {*features["id"].asstr()[genes], *features["name"].asstr()[genes]}
            if not {"mod", "var"} & set(file):  # version 2: a group a genome
                columns = [
                    genome[key] for genome in file.values() for key in ("genes", "gene_names")
                ]
                return {name for column in columns for name in column.asstr()[:]}
            var = file["mod/rna/var"] if "mod" in file else file["var"]
            columns = [var.attrs["_index"], "gene_ids"]
            return {name for key in columns if key in var for name in var[key].asstr()[:]}
    except InputError:
        raise
    except Exception as error:  # as above
        raise InputError(f"{path}: its features cannot be read ({error}).") from error
