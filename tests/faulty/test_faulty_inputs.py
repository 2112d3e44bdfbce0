"""What a careless user gets: one sentence with file and remedy, no traceback, no output.

Each case damages a small good input and runs the rule's own script on it.
"""

import gzip
import re
import shutil

import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.io
import small_input as small
from scipy import sparse

from scdyn.pp import metadata

GARBAGE = np.random.default_rng(0).integers(0, 256, 4000, dtype=np.uint8).tobytes()


def cut(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def link(path):
    path.symlink_to("/nowhere")
    return path


def changed(values, value):
    values = values.astype(float)
    values[3, 2] = value
    return values


def h5(folder, **changes):
    """A row with a matrix that has ``changes``."""
    return {"path": small.write_h5(folder / "s.h5", **changes)}


def h5_values(folder, value):
    return h5(folder, values=changed(np.concatenate(small.counts(), 1), value))


def h5_genes(folder, names):
    return h5(folder, names=names + small.PEAKS)


def mtx(folder, damage=None, **changes):
    """A row with an mtx folder, and fragments beside it."""
    place = small.write_mtx(folder / "outs" / "filtered_feature_bc_matrix", **changes)
    small.write_fragments(folder / "outs" / "atac_fragments.tsv.gz")
    if damage:
        damage(place)
    return {"path": folder / "outs"}


def truncated_mtx(place):
    text = (place / "matrix.mtx").read_bytes()
    (place / "matrix.mtx").unlink()
    cut(write(place / "matrix.mtx.gz", gzip.compress(text)))


def transposed_mtx(place):
    scipy.io.mmwrite(place / "matrix.mtx", sparse.coo_matrix(small.counts()[0]))


def fragments(folder, rows=None, damage=None):
    """A row with a good matrix without peaks, and fragments."""
    values = small.counts()[0]
    kinds = ["Gene Expression"] * 6
    small.write_h5(folder / "s.h5", values=values, names=small.SYMBOLS, kinds=kinds)
    path = small.write_fragments(folder / "f.tsv.gz", rows)
    if damage:
        damage(path)
    return {"path": folder / "s.h5", "fragments": path}


def h5ad(folder, atac=None, damage=None, **changes):
    """A row with an h5ad of counts and one of peaks."""
    small.table(**changes).write_h5ad(folder / "rna.h5ad")
    atac = {"values": small.counts()[1], "names": small.PEAKS, **(atac or {})}
    small.table(**atac).write_h5ad(folder / "atac.h5ad")
    if damage:
        damage(folder / "rna.h5ad")
    return {"kind": "h5ad", "path": folder / "rna.h5ad", "atac_path": folder / "atac.h5ad"}


def h5mu(folder, damage=None, name="rna"):
    peaks = small.table(small.counts()[1], small.PEAKS)
    mudata.MuData({name: small.table(), "atac": peaks}).write(folder / "s.h5mu")
    if damage:
        damage(folder / "s.h5mu")
    return {"kind": "h5mu", "path": folder / "s.h5mu"}


def twice(cells):
    return [cells[0], *cells[:-1]]


def cells_table(names):
    return "barcode\tlabel\n" + "".join(f"{name}\tx\n" for name in names)


NO_CELLS = {"values": np.zeros((0, 12)), "cells": []}
OTHERS = small.barcodes(seed=5)
SAMPLES = {
    # matrices in h5
    "h5 is not there": (lambda f: {"path": f / "s.h5"}, "s.h5: no such file"),
    "h5 is empty": (lambda f: {"path": write(f / "s.h5", b"")}, "s.h5: its barcodes cannot"),
    "h5 is garbage": (lambda f: {"path": write(f / "s.h5", GARBAGE)}, "s.h5: its barcodes cannot"),
    "h5 is a gzip": (
        lambda f: {"path": write(f / "s.h5", gzip.compress(GARBAGE))},
        "s.h5: its barcodes cannot be read",
    ),
    "h5 is packed": (
        lambda f: {"path": write(f / "s.h5.gz", gzip.compress(h5(f)["path"].read_bytes()))},
        r"s.h5.gz: is packed; unpack it \(gunzip\)",
    ),
    "a table of counts as path": (
        lambda f: {"path": write(f / "s.csv.gz", gzip.compress(b",AAA-1,CCC-1\nTbx6,1,2\n"))},
        "s.csv.gz: is a text, not HDF5; name the folder of matrix.mtx",
    ),
    "a list of barcodes as path": (
        lambda f: {"path": mtx(f)["path"] / "filtered_feature_bc_matrix" / "barcodes.tsv"},
        "barcodes.tsv: is a text, not HDF5",
    ),
    "a link that leads nowhere": (
        lambda f: {"path": link(f / "s.h5")},
        "s.h5: broken link to /nowhere",
    ),
    "a matrix that is a link that leads nowhere": (
        lambda f: {"path": link(f / "filtered_feature_bc_matrix.h5").parent},
        "matrix.h5: broken link to /nowhere",
    ),
    "h5 is cut in half": (
        lambda f: {"path": cut(small.write_h5(f / "s.h5"))},
        "s.h5: its barcodes cannot be read",
    ),
    "h5 lacks features": (lambda f: h5(f, **{"features/id": None}), "s.h5: its features cannot"),
    "h5 lacks barcodes": (lambda f: h5(f, barcodes=None), "s.h5: its barcodes cannot"),
    "h5 lacks its data": (lambda f: h5(f, data=None), "s.h5: not a readable 10x"),
    "h5 turned on its side": (lambda f: h5(f, shape=np.array([40, 12])), "s.h5: not a readable"),
    "h5 with indices beyond it": (
        lambda f: h5(f, indices=np.full(480, 99)),
        "s.h5: not a readable 10x",
    ),
    "h5 with negative counts": (lambda f: h5_values(f, -1), "s.h5: the counts are not"),
    "h5 with fractions": (lambda f: h5_values(f, 0.5), "s.h5: the counts are not integers"),
    "h5 with NaN": (lambda f: h5_values(f, np.nan), "s.h5: the counts are not integers"),
    "h5 with infinity": (lambda f: h5_values(f, np.inf), "s.h5: the counts are not integers"),
    "h5 with a barcode twice": (
        lambda f: h5(f, cells=twice(small.barcodes())),
        "duplicate barcode",
    ),
    "h5 without cells": (lambda f: h5(f, **NO_CELLS), "s.h5: has 0 cells"),
    "h5 without features": (
        lambda f: h5(f, values=np.zeros((40, 0)), names=[], kinds=[]),
        "s.h5: has no features",
    ),
    "h5 of antibodies": (lambda f: h5(f, kinds=["Antibody Capture"] * 12), "Antibody Capture"),
    "h5 of peaks alone": (lambda f: h5(f, kinds=["Peaks"] * 12), "the GEX output into path"),
    "barcode metrics are garbage": (
        lambda f: (write(f / "per_barcode_metrics.csv", GARBAGE), h5(f))[1],
        "per_barcode_metrics.csv: not a readable table of barcodes",
    ),
    "barcode metrics of another program": (
        lambda f: (write(f / "per_barcode_metrics.csv", b"barcode,total\nA-1,3\n"), h5(f))[1],
        "per_barcode_metrics.csv: not a readable table of barcodes .*; copy it again, or remove it",
    ),
    "h5 without peaks or fragments": (
        lambda f: h5(f, kinds=["Gene Expression"] * 12),
        "no promoter accessibility found",
    ),
    "human genes on mouse": (
        lambda f: h5_genes(f, [f"ENSG{i:011d}" for i in range(6)]),
        "use the annotation of the same species",
    ),
    "probe ids where genes are expected": (
        lambda f: h5_genes(f, [f"AFFX-{i}" for i in range(6)]),
        "use the annotation of the same species",
    ),
    "peaks of chromosomes that are not there": (
        lambda f: h5(f, names=small.SYMBOLS + [p.replace("chr1", "chr30") for p in small.PEAKS]),
        "none of the 6 peaks",
    ),
    "peaks without places": (
        lambda f: h5(f, names=small.SYMBOLS + [f"peak{i}" for i in range(6)]),
        "is not chrom:start-end",
    ),
    # matrices in folders
    "folder is empty": (lambda f: {"path": f}, "no count matrix found"),
    "mtx cut short": (lambda f: mtx(f, truncated_mtx), "not a readable 10x matrix"),
    "mtx is garbage": (
        lambda f: mtx(f, lambda p: write(p / "matrix.mtx", GARBAGE)),
        "not a readable 10x matrix",
    ),
    "mtx without features": (
        lambda f: mtx(f, lambda p: (p / "features.tsv").unlink()),
        "features.tsv or genes.tsv or peaks.bed is missing",
    ),
    "mtx without barcodes": (
        lambda f: mtx(f, lambda p: (p / "barcodes.tsv").unlink()),
        "barcodes.tsv is missing",
    ),
    "mtx turned on its side": (lambda f: mtx(f, transposed_mtx), "transposed"),
    "mtx with empty lists": (
        lambda f: mtx(f, lambda p: write(p / "barcodes.tsv", b"")),
        "not a readable 10x matrix|list 6 and 0",
    ),
    "mtx with a barcode twice": (
        lambda f: mtx(f, cells=twice(small.barcodes())),
        "duplicate barcode",
    ),
    "mtx with fractions": (
        lambda f: mtx(f, values=changed(small.counts()[0], 0.5)),
        "the counts are not integers",
    ),
    # fragments
    "fragments are not there": (
        lambda f: fragments(f, damage=lambda p: p.unlink()),
        "f.tsv.gz: no such file",
    ),
    "fragments cut short": (lambda f: fragments(f, damage=cut), "f.tsv.gz: not a readable"),
    "fragments are garbage": (
        lambda f: fragments(f, damage=lambda p: write(p, GARBAGE)),
        "f.tsv.gz: line [12] ",
    ),
    "fragments are empty": (lambda f: fragments(f, rows=[]), "f.tsv.gz: "),
    "fragments with three columns": (
        lambda f: fragments(f, rows=[row[:3] for row in small.fragment_rows()]),
        "f.tsv.gz: line [12] ",
    ),
    "fragments with words for numbers": (
        lambda f: fragments(f, rows=[("chr1", "start", "end", "barcode", "n")] * 2),
        "f.tsv.gz: line [12] ",
    ),
    "fragments that end before they begin": (
        lambda f: fragments(f, rows=[(c, e, s, b, n) for c, s, e, b, n in small.fragment_rows()]),
        "f.tsv.gz: ",
    ),
    "fragments before the chromosome": (
        lambda f: fragments(f, rows=[("chr1", -5, 50, b, 1) for b in small.barcodes()]),
        "f.tsv.gz: ",
    ),
    "fragments of unknown chromosomes": (
        lambda f: fragments(f, rows=small.fragment_rows(chrom="KI270728.1")),
        "same genome build",
    ),
    "fragments of other cells": (
        lambda f: fragments(f, rows=small.fragment_rows(OTHERS)),
        "use files of the same cells",
    ),
    # h5ad and h5mu
    "h5ad is not there": (
        lambda f: h5ad(f, damage=lambda p: p.unlink()),
        "rna.h5ad: no such file",
    ),
    "h5ad is garbage": (lambda f: h5ad(f, damage=lambda p: write(p, GARBAGE)), "rna.h5ad: not a"),
    "h5ad is packed": (
        lambda f: h5ad(f, damage=lambda p: write(p, gzip.compress(p.read_bytes()))),
        "rna.h5ad: is packed",
    ),
    "h5ad is a table": (
        lambda f: h5ad(f, damage=lambda p: write(p, ",é,b\nc,1,2\n")),
        "rna.h5ad: is a text, not HDF5",
    ),
    "h5ad cut in half": (lambda f: h5ad(f, damage=cut), "rna.h5ad: not a readable h5ad"),
    "h5ad is an h5 of something else": (
        lambda f: h5ad(f, damage=lambda p: h5py.File(p, "w").close()),
        "rna.h5ad: ",
    ),
    "h5ad of logarithms": (
        lambda f: h5ad(f, values=np.log1p(small.counts()[0])),
        "raw counts are needed, not normalised values",
    ),
    "h5ad with negative counts": (
        lambda f: h5ad(f, values=changed(small.counts()[0], -1)),
        "rna.h5ad: the counts in X are not integers",
    ),
    "h5ad with a barcode twice": (
        lambda f: h5ad(f, cells=twice(small.barcodes())),
        "duplicate barcode",
    ),
    "h5ad without cells": (
        lambda f: h5ad(f, values=np.zeros((0, 6)), cells=[]),
        "the count matrix is empty",
    ),
    "h5ad without a second modality": (
        lambda f: {**h5ad(f), "atac_path": ""},
        "no promoter accessibility found",
    ),
    "h5ad without the layer that the sheet names": (
        lambda f: {**h5ad(f), "rna_layer": "raw"},
        "rna.h5ad: has no layer 'raw' .layers: X",
    ),
    "fragments of a sample of RNA only": (
        lambda f: {
            **h5ad(f),
            "atac_path": "none",
            "fragments": small.write_fragments(f / "f.tsv.gz"),
        },
        "but fragments or promoter_layer is set",
    ),
    "peaks of other cells": (
        lambda f: h5ad(f, atac={"cells": OTHERS}),
        "use files of the same cells",
    ),
    "peaks of logarithms": (
        lambda f: h5ad(f, atac={"values": np.log1p(small.counts()[1])}),
        "atac.h5ad: the counts in X are not integers",
    ),
    "h5mu is garbage": (lambda f: h5mu(f, lambda p: write(p, GARBAGE)), "s.h5mu: not a readable"),
    "h5mu without RNA": (lambda f: h5mu(f, name="protein"), "s.h5mu: has no modality 'rna'"),
    # quality
    "no good cell": (
        lambda f: {**h5(f), "qc": {"min_rna_counts": 1000}},
        "0 of 40 cells pass quality control",
    ),
}


def gtf(folder, text):
    return {"annotation": write(folder / "faulty.gtf", text)}


def packed_gtf(folder):
    return {"annotation": cut(write(folder / "x.gtf.gz", gzip.compress(small.gtf().encode())))}


def bed(folder, text):
    return {"annotation": write(folder / "faulty.bed", text)}


def only_peaks(folder):
    return {"samples": [small.write_h5(folder / "s.h5", names=["a"] * 12)]}


REFERENCES = {
    "GTF is empty": (lambda f: gtf(f, ""), "faulty.gtf: "),
    "GTF is garbage": (lambda f: gtf(f, GARBAGE), "faulty.gtf: "),
    "GTF cut short": (packed_gtf, "x.gtf.gz: not a readable GTF"),
    "GTF without gene_id": (lambda f: gtf(f, small.gtf().replace("gene_id", "id")), "no gene_id"),
    "GTF without exons": (
        lambda f: gtf(f, small.gtf().replace("\texon\t", "\tCDS\t")),
        "has no exon line",
    ),
    "GTF without proteins": (
        lambda f: gtf(f, small.gtf(biotype="lncRNA")),
        "set reference.biotypes",
    ),
    "GTF with words for places": (
        lambda f: gtf(f, small.gtf().replace("\t10001\t", "\there\t")),
        "faulty.gtf: ",
    ),
    "GTF of comments": (lambda f: gtf(f, "# nothing\n# here\n"), "faulty.gtf: "),
    "BED with three columns": (lambda f: bed(f, "chr1\t5\t10\n"), "expected the columns"),
    "BED without strand": (lambda f: bed(f, "chr1\t5\t10\tTbx6\t.\n"), "expected the columns"),
    "BED with words for places": (
        lambda f: bed(f, "chr1\tfrom\tto\tTbx6\t+\n"),
        "faulty.bed: ",
    ),
    "BED is empty": (lambda f: bed(f, ""), "faulty.bed: not a readable BED"),
    "TF list is empty": (lambda f: {"tfs": ""}, "the TF list is empty"),
    "TF list of another species": (lambda f: {"tfs": "TBX6\nSOX2\n"}, "same species"),
    "TF list is garbage": (lambda f: {"tfs": write(f / "tf.bin", GARBAGE)}, "tf.bin: "),
    "TF list is not there": (lambda f: {"tfs": f / "nowhere.txt"}, "nowhere.txt: "),
    "panel of genes that are not annotated": (only_peaks, "use the annotation of the same species"),
}


def expect_one_sentence(capsys, folder, run, words):
    """Run a rule that must fail as a user is meant to see it."""
    with pytest.raises(SystemExit) as stopped:
        run()
    assert stopped.value.code == 1
    printed = capsys.readouterr()
    errors = [line for line in printed.err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, printed.err
    assert re.search(words, errors[0]), errors[0]
    assert "Traceback" not in printed.err + printed.out
    assert "Traceback" in (folder / "log.txt").read_text()
    assert len(errors[0]) < 700


@pytest.mark.parametrize("case", SAMPLES)
def test_a_faulty_sample_is_refused(case, tmp_path, capsys):
    prepare, words = SAMPLES[case]
    row = prepare(tmp_path)
    small.build_vocabulary(tmp_path)
    expect_one_sentence(capsys, tmp_path, lambda: small.ingest_sample(tmp_path, **row), words)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["genes.tsv"]


TABLES = {
    "not there": (None, "cells.tsv: no such file; correct metadata in the sample sheet"),
    "of other cells": (cells_table(small.barcodes(seed=6)), "no barcodes in common with sample s"),
    "with a cell twice": (
        cells_table(small.barcodes()) + f"{small.barcodes()[0]}\ty\n",
        "duplicate barcode",
    ),
    "empty": ("", "cells.tsv: the table is empty"),
    "garbage": (GARBAGE, "cells.tsv: is not a text file"),
    "cut gzip": (gzip.compress(GARBAGE)[:50], "cells.tsv: is not a text file|not a readable table"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_faulty_table_of_cells_is_refused(case, tmp_path):
    content, words = TABLES[case]
    path = tmp_path / "cells.tsv"
    if content is not None:
        write(path, content)
    own = pd.Index(small.barcodes())
    good = write(tmp_path / "good.tsv", cells_table(OTHERS))
    samples = [("s", own, str(path)), ("t", pd.Index(OTHERS), str(good))]
    of_s, of_t = metadata.examine_metadata(samples, 0.5)
    assert not of_s.passed and re.search(words, of_s.found) and len(of_s.found) < 700
    assert of_t.passed


@pytest.mark.parametrize("case", REFERENCES)
def test_a_faulty_reference_is_refused(case, tmp_path, capsys):
    prepare, words = REFERENCES[case]
    change = prepare(tmp_path)
    expect_one_sentence(capsys, tmp_path, lambda: small.build_vocabulary(tmp_path, **change), words)
    assert not list((tmp_path / "out").glob("*"))


def unsorted(folder):
    rows = small.fragment_rows()
    order = np.random.default_rng(0).permutation(len(rows))
    return fragments(folder, [rows[i] for i in order])


def stale_index(folder):
    row = fragments(folder)
    write(folder / "f.tsv.gz.tbi", GARBAGE)
    return row


def in_a_folder_of_any_name(folder):
    place = folder / "Größe und Übersicht"
    place.mkdir()
    for path in fragments(folder).values():
        shutil.move(path, place)
    return {"path": place / "s.h5", "fragments": place / "f.tsv.gz"}


def duplicated_genes(folder):
    """A gene in two rows, whose counts are summed."""
    values = small.counts()[0]
    halves = np.concatenate([values[:, :5], values[:, 5:] - 1, np.ones((40, 1), int)], 1)
    row = fragments(folder)
    kinds = ["Gene Expression"] * 7
    names = [*small.SYMBOLS, small.SYMBOLS[5]]
    small.write_h5(folder / "s.h5", values=halves, names=names, kinds=kinds)
    return row


def ids_with_versions(folder):
    row = fragments(folder)
    names = [f"{gene}.7" for gene in small.IDS]
    kinds = ["Gene Expression"] * 6
    small.write_h5(folder / "s.h5", values=small.counts()[0], names=names, kinds=kinds)
    return row


@pytest.mark.parametrize(
    "prepare",
    [unsorted, stale_index, in_a_folder_of_any_name, duplicated_genes, ids_with_versions],
)
def test_what_only_looks_faulty_gives_what_the_good_sample_gives(prepare, tmp_path):
    import anndata as ad

    (tmp_path / "good").mkdir()
    small.ingest_sample(tmp_path / "good", **fragments(tmp_path / "good"))
    (tmp_path / "other").mkdir()
    small.ingest_sample(tmp_path / "other", **prepare(tmp_path / "other"))
    good, other = (ad.read_zarr(tmp_path / name / "out" / "s.zarr") for name in ("good", "other"))
    pd.testing.assert_frame_equal(good.obs, other.obs)
    np.testing.assert_array_equal(good.X.toarray(), other.X.toarray())
    np.testing.assert_array_equal(
        good.layers["promoter"].toarray(), other.layers["promoter"].toarray()
    )
    assert good.X.sum() == small.counts()[0].sum()
