"""What a matrix lists, read without its counts: its barcodes, its features and their genome."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import pandas as pd
from anndata.io import read_elem

from scdyn.bounds import MOST_TIMES_LIST, open_bytes
from scdyn.errors import InputError, reading
from scdyn.hdf5 import open_bounded

# Kinds of features, as Cell Ranger calls them.
GENES, PEAKS = "Gene Expression", "Peaks"


def barcode_names(path: str | Path) -> pd.Index:
    """Read the barcodes of a matrix without its counts.

    Parameters
    ----------
    path
        As for :func:`read_features`.

    Raises
    ------
    InputError
        If they cannot be read.
    """
    path = Path(path)
    with reading(path, "its barcodes cannot be read"):
        if path.is_dir():
            return pd.Index(read_lines(first(path, "barcodes.tsv"))[0])
        with open_bounded(path) as file:
            if {"obs", "mod"} & set(file):
                obs = file["mod/rna/obs"] if "mod" in file else file["obs"]
                return read_elem(obs).index.astype(str)
            groups = [file["matrix"]] if "matrix" in file else list(file.values())
            return pd.Index([name for group in groups for name in group["barcodes"].asstr()[:]])


def read_features(path: str | Path) -> pd.DataFrame:
    """Read the features of a matrix without its counts.

    Parameters
    ----------
    path
        A 10x ``.h5``, an mtx folder, an ``.h5ad`` or an ``.h5mu``.

    Returns
    -------
    DataFrame of str
        ``id``, ``name`` and ``kind`` ("Gene Expression", "Peaks"...); an ``.h5ad`` is taken to be
        of genes.

    Raises
    ------
    InputError
        If they cannot be read.
    """
    path = Path(path)
    with reading(path, "its features cannot be read"):
        if path.is_dir():
            return listed_features(first(path, "features.tsv", "genes.tsv", "peaks.bed"))
        with open_bounded(path) as file:
            if "matrix" in file:
                group = file["matrix/features"]
                keys = {"id": "id", "name": "name", "kind": "feature_type"}
                return pd.DataFrame({name: group[key].asstr()[:] for name, key in keys.items()})
            if "mod" in file:
                kinds = {"rna": GENES, "atac": PEAKS}
                found = {
                    kinds[name]: part["var"] for name, part in file["mod"].items() if name in kinds
                }
                return pd.concat([annotated(var, kind) for kind, var in found.items()])
            if "var" in file:
                return annotated(file["var"], GENES)
            tables = [  # version 2: a group a genome
                pd.DataFrame({"id": g["genes"].asstr()[:], "name": g["gene_names"].asstr()[:]})
                for g in file.values()
            ]
            return pd.concat(tables).assign(kind=GENES)


def read_genomes(path: Path) -> set[str]:
    """Read what an ``.h5`` calls the genome of its features, or its groups in version 2."""
    with reading(path, "its features cannot be read"), open_bounded(path) as file:
        if "matrix" not in file:
            return set(file)
        genomes = file["matrix/features"].get("genome")
        return set() if genomes is None else set(genomes.asstr()[:]) - {""}


def listed_features(path: Path) -> pd.DataFrame:
    """Read the list of features of an mtx folder; see :func:`read_features`."""
    table = read_lines(path)
    if path.name.startswith("peaks.bed"):
        names = table[0] + ":" + table[1] + "-" + table[2]
        return pd.DataFrame({"id": names, "name": names, "kind": PEAKS})
    # Version 2 knew genes alone and did not say so.
    kind = table[2] if 2 in table else GENES
    return pd.DataFrame({"id": table[0], "name": table[1], "kind": kind})


def annotated(var: h5py.Group, kind: str) -> pd.DataFrame:
    """Read names and, if there, ids of the variables of an AnnData on the disk."""
    table = read_elem(var)
    names = table.index.astype(str)
    ids = table["gene_ids"].astype(str).to_numpy() if "gene_ids" in table else names
    return pd.DataFrame({"id": ids, "name": names, "kind": kind})


def first(folder: Path, *names: str) -> Path:
    """Return the first of some files that is there, plain or gzipped."""
    for name in names:
        for path in (folder / f"{name}.gz", folder / name):
            if path.exists():
                return path
    raise InputError(f"{folder}: lacks {' or '.join(names)}, plain or gzipped.")


def read_lines(path: Path) -> pd.DataFrame:
    """Read a list of barcodes or features, all of it as text."""
    with io.TextIOWrapper(open_bytes(path, MOST_TIMES_LIST), encoding="utf-8-sig") as handle:
        return pd.DataFrame([line.rstrip("\r\n").split("\t") for line in handle], dtype=str)
