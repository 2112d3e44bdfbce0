"""Readers of what 10x and its friends write: matrices with features, and where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import h5py
import pandas as pd
import scanpy as sc

from scdyn.counts import check_counts
from scdyn.errors import InputError

MATRICES = ("filtered_feature_bc_matrix.h5", "filtered_feature_bc_matrix")
FRAGMENTS = "atac_fragments.tsv.gz"


@dataclass(frozen=True)
class Library:
    """Where one library's files lie; ``fragments`` is None where there are none."""

    matrix: Path
    fragments: Path | None


def locate(path: str | Path) -> Library:
    """Find the matrix and the fragments of a Cell Ranger ARC output.

    Parameters
    ----------
    path
        The output folder, the folder above its ``outs``, or the matrix itself.

    Raises
    ------
    InputError
        If there is no matrix.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; check the sample sheet's path.")
    if path.is_file() or (path / "matrix.mtx.gz").exists():
        matrix, folder = path, path.parent
    else:
        folder = path / "outs" if (path / "outs").is_dir() else path
        found = [folder / name for name in MATRICES if (folder / name).exists()]
        if not found:
            raise InputError(
                f"{folder}: holds none of {', '.join(MATRICES)}; is this Cell Ranger's output?"
            )
        matrix = found[0]
    fragments = folder / FRAGMENTS
    return Library(matrix, fragments if fragments.exists() else None)


def read_matrix(path: str | Path) -> tuple[ad.AnnData, ad.AnnData | None]:
    """Read a 10x matrix, ``.h5`` or mtx folder, and part it by feature type.

    Parameters
    ----------
    path
        ``filtered_feature_bc_matrix.h5`` or the folder of that name.

    Returns
    -------
    rna : AnnData
        Counts of the Gene Expression features; ``var["gene_ids"]`` has the ids.
    peaks : AnnData or None
        Counts of the Peaks features, named ``chrom:start-end``; None if there are none.

    Raises
    ------
    InputError
        If the file cannot be read, or has no gene expression or no cell.
    """
    try:
        if Path(path).is_dir():
            matrix = sc.read_10x_mtx(path, gex_only=False, make_unique=False)
        else:
            matrix = sc.read_10x_h5(path, gex_only=False)
    except Exception as error:  # readers raise anything from KeyError to zlib.error
        raise InputError(
            f"{path}: not a readable 10x matrix ({type(error).__name__}: {error}); copy it again "
            "from Cell Ranger's output."
        ) from error
    matrix.X = check_counts(matrix.X, str(path))
    kind = matrix.var["feature_types"].astype(str)
    rna = matrix[:, (kind == "Gene Expression").to_numpy()].copy()
    peaks = matrix[:, (kind == "Peaks").to_numpy()].copy()
    if not rna.n_vars or not rna.n_obs:
        raise InputError(
            f"{path}: has {rna.n_vars} Gene Expression features and {rna.n_obs} cells."
        )
    duplicated = rna.obs_names[rna.obs_names.duplicated()]
    if len(duplicated):
        raise InputError(f"{path}: barcode {duplicated[0]} stands there twice.")
    return rna, peaks if peaks.n_vars else None


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
            table = pd.read_csv(path / "features.tsv.gz", sep="\t", header=None, dtype=str)
            kept = table[table[2] == "Gene Expression"]
            return set(kept[0]) | set(kept[1])
        with h5py.File(path) as file:
            if "matrix" in file:
                features = file["matrix/features"]
                genes = features["feature_type"].asstr()[:] == "Gene Expression"
                return {*features["id"].asstr()[genes], *features["name"].asstr()[genes]}
            var = file["mod/rna/var"] if "mod" in file else file["var"]
            columns = [var.attrs["_index"], "gene_ids"]
            return {name for key in columns if key in var for name in var[key].asstr()[:]}
    except (OSError, KeyError) as error:
        raise InputError(f"{path}: its features cannot be read ({error}).") from error
