"""The files of one small, good sample and its reference, for tests to damage."""

import gzip
import runpy
from pathlib import Path
from types import SimpleNamespace

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.io
from scipy import sparse

from scdyn.io.sample_files import FILES, LAYERS

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"
N_CELLS = 40
SYMBOLS = ["Tbx6", "Sox2", "Meis2", "Hes7", "Ddx3x", "Foxc2"]
IDS = [f"ENSMUSG{i:011d}" for i in range(1, 7)]
STARTS = [10_000 * (i + 1) for i in range(6)]
PEAKS = [f"chr1:{start - 200}-{start + 200}" for start in STARTS]
QC = {
    "min_rna_counts": 1, "min_genes": 1, "max_mito_share": 1.0, "min_promoter_counts": 0,
    "n_mads": None, "max_doublet_score": None, "keep": "both", "min_cells": 5,
}  # fmt: skip


def barcodes(n=N_CELLS, seed=0):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("ACGT"), 16)) + "-1" for _ in range(n)]


def counts(seed=0):
    """RNA and peak counts, (cells, 6) each."""
    return np.random.default_rng(seed).poisson(2.0, (2, N_CELLS, 6)) + 1


def gtf(ids=IDS, symbols=SYMBOLS, chrom="chr1", biotype="protein_coding"):
    lines = []
    for gene, symbol, start in zip(ids, symbols, STARTS, strict=True):
        names = f'gene_id "{gene}.2"; gene_name "{symbol}"; gene_type "{biotype}";'
        for feature in ("gene", "transcript", "exon"):
            lines.append(f"{chrom}\tX\t{feature}\t{start + 1}\t{start + 900}\t.\t+\t.\t{names}\n")
    return "".join(lines)


def write_h5(path, values=None, names=None, kinds=None, cells=None, **changes):
    """A 10x h5 of genes and peaks; ``changes`` replace its arrays, None leaves one out."""
    values = np.concatenate(counts(), 1) if values is None else values
    names = SYMBOLS + PEAKS if names is None else names
    kinds = ["Gene Expression"] * 6 + ["Peaks"] * 6 if kinds is None else kinds
    matrix = sparse.csr_matrix(values)  # cells in rows: CSC of features in rows
    arrays = {
        "data": matrix.data,
        "indices": matrix.indices,
        "indptr": matrix.indptr,
        "shape": np.array(matrix.shape[::-1]),
        "barcodes": np.array(barcodes() if cells is None else cells, dtype="S"),
        "features/id": np.array(names, dtype="S"),
        "features/name": np.array(names, dtype="S"),
        "features/feature_type": np.array(kinds, dtype="S"),
        "features/genome": np.array(["mm10"] * len(names), dtype="S"),
    }
    with h5py.File(path, "w") as file:
        for name, array in {**arrays, **changes}.items():
            if array is not None:
                file[f"matrix/{name}"] = array
    return path


def write_mtx(folder, values=None, cells=None, names=SYMBOLS):
    """A version 3 folder of genes."""
    folder.mkdir(parents=True)
    values = counts()[0] if values is None else values
    scipy.io.mmwrite(folder / "matrix.mtx", sparse.coo_matrix(values.T))
    (folder / "barcodes.tsv").write_text("\n".join(barcodes() if cells is None else cells) + "\n")
    rows = (f"{name}\t{name}\tGene Expression\n" for name in names)
    (folder / "features.tsv").write_text("".join(rows))
    return folder


def fragment_rows(cells=None, chrom="chr1"):
    """Two fragments a cell in each promoter, in the order of Cell Ranger."""
    cells = barcodes() if cells is None else cells
    return [(chrom, s + i, s + i + 150, cell, 1) for s in STARTS for i, cell in enumerate(cells)]


def write_fragments(path, rows=None):
    with gzip.open(path, "wt") as handle:
        rows = fragment_rows() if rows is None else rows
        handle.writelines("\t".join(map(str, row)) + "\n" for row in rows)
    return path


def table(values=None, names=SYMBOLS, cells=None):
    """An AnnData of RNA counts."""
    values = counts()[0] if values is None else values
    index = pd.DataFrame(index=barcodes() if cells is None else cells)
    var = pd.DataFrame(index=list(names))
    return ad.AnnData(sparse.csr_matrix(values.astype(np.float32)), index, var)


def run_rule(name, folder, **parts):
    """Run a rule's own script as Snakemake would; outputs lie in ``folder/out``."""
    outputs = {key: str(folder / "out" / value) for key, value in parts.pop("output").items()}
    rule = SimpleNamespace(
        log=[str(folder / "log.txt")],
        output=Files(outputs),
        **{key: SimpleNamespace(**value) for key, value in parts.items()},
    )
    runpy.run_path(str(SCRIPTS / f"{name}.py"), init_globals={"snakemake": rule})


class Files(SimpleNamespace):
    """Named files, of which the first is ``[0]``."""

    def __init__(self, names):
        super().__init__(**names)

    def __getitem__(self, i):
        return list(vars(self).values())[i]


def sheet_row(**columns):
    """A row of the sample sheet, empty save for some columns."""
    empty = dict.fromkeys([*FILES, *LAYERS, "metadata"], "")
    return {"sample": "s", "kind": "10x", **empty, **{k: str(v) for k, v in columns.items()}}


def build_vocabulary(folder, annotation=None, tfs="Tbx6\nSox2\n", samples=()):
    """Run the rule build_vocabulary; the annotation is written if it is text."""
    (folder / "genes.gtf").write_text(gtf())
    if isinstance(tfs, str):
        (folder / "tfs.txt").write_text(tfs)
        tfs = folder / "tfs.txt"
    run_rule(
        "build_vocabulary",
        folder,
        input={
            "annotation": str(annotation or folder / "genes.gtf"),
            "tfs": str(tfs),
        },
        output={"genes": "genes.tsv"},
        params={"biotypes": ["protein_coding"], "rows": [sheet_row(path=path) for path in samples]},
    )


def ingest_sample(folder, qc=None, translation=None, **row):
    """Run the rule ingest_sample on one row of a sheet, after build_vocabulary.

    Its preflight found nothing: what ingestion refuses by itself is looked at.
    """
    if not (folder / "out" / "genes.tsv").exists():
        build_vocabulary(folder)
    (folder / "preflight.tsv").write_text("subject\tcheck\tfound\tpassed\ns\tcells\t40\tTrue\n")
    run_rule(
        "ingest_sample",
        folder,
        input={
            "files": [],
            "gathered": str(folder / "preflight.tsv"),
            "preflight": str(folder / "preflight.tsv"),
            "genes": str(folder / "out" / "genes.tsv"),
            "translation": [str(translation)] if translation else [],
        },
        output={"cells": "s.zarr", "qc": "s.qc.tsv"},
        params={
            "row": sheet_row(**row),
            "windows": {"upstream": 1500, "downstream": 500},
            "thresholds": {},
            "qc": {**QC, **(qc or {})},
            "seed": 1,
        },
        wildcards={"sample": "s"},
    )
