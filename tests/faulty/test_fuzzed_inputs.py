"""Damaged files, anyhow: every reader returns or raises the one error a user is meant to read."""

import gzip
import shutil
from functools import cache
from pathlib import Path

import pytest
import small_input as small
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scdyn.errors import InputError
from scdyn.io import barcodes, fragments, tenx
from scdyn.io.features import read_barcodes, read_features
from scdyn.io.sample_files import LibraryFiles, locate
from scdyn.pp import ingestion, metadata, reference


def pack(path):
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))


def write_all(folder):
    """One good file for each reader."""
    small.write_h5(folder / "s.h5")
    small.table().write_h5ad(folder / "s.h5ad")
    small.write_fragments(folder / "fragments.tsv.gz", small.fragment_rows()[:60])
    (folder / "genes.gtf").write_text(small.gtf())
    (folder / "genes.bed").write_text("chr1\t5\t99\tTbx6\t+\nchr2\t7\t80\tSox2\t-\n")
    (folder / "tfs.txt").write_text("Tbx6\nSox2\n")
    (folder / "pairs.tsv").write_text("ACGTACGTAC\tTTTTTTTTTT\nACGTACGTAG\tTTTTTTTTTA\n")
    (folder / "cells.tsv").write_text("barcode\tlabel\nAAA-1\tx\nCCC-1\ty\n")
    small.write_mtx(folder / "m")
    for path in [folder / "genes.gtf", *(folder / "m").iterdir()]:
        pack(path)


def read_mtx(path):
    """Read a folder of which one file is damaged."""
    return tenx.read_matrix(path.parent)


def read_h5ad(path):
    return ingestion.read_library(locate(LibraryFiles("h5ad", str(path), rna_only=True)))


READERS = {
    "s.h5": [tenx.read_matrix, read_features, read_barcodes],
    "s.h5ad": [read_h5ad, read_features, read_barcodes],
    "fragments.tsv.gz": [lambda path: list(fragments.read_fragments(path))],
    "genes.gtf": [lambda path: reference.read_gtf(path, ["protein_coding"])],
    "genes.gtf.gz": [lambda path: reference.read_gtf(path, ["protein_coding"])],
    "genes.bed": [reference.read_bed],
    "tfs.txt": [reference.read_tfs],
    "pairs.tsv": [barcodes.read_translation],
    "cells.tsv": [lambda path: metadata.join_metadata(BARCODES, path, "s")],
    "m/matrix.mtx": [read_mtx],
    "m/barcodes.tsv": [read_mtx],
    "m/features.tsv": [read_mtx, lambda path: read_features(path.parent)],
    "m/matrix.mtx.gz": [read_mtx],
}
BARCODES = small.pd.Index(["AAA-1", "CCC-1"])


@cache
def good_files(folder):
    write_all(folder)
    return {name: (folder / name).read_bytes() for name in READERS}


@st.composite
def damage(draw, content):
    """Cut a file, or change, remove or put in some bytes."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(["cut", "change", "remove", "insert"]))
        if kind == "cut":
            del content[place:]
        elif kind == "change" and content:
            content[place] = draw(st.integers(0, 255))
        elif kind == "remove":
            del content[place : place + draw(st.integers(1, 40))]
        else:
            content[place:place] = draw(st.binary(min_size=1, max_size=40))
    return bytes(content)


@pytest.mark.parametrize("name", READERS)
@settings(
    max_examples=150,
    deadline=5000,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(name, data, tmp_path_factory):
    good = good_files(Path(tmp_path_factory.getbasetemp()))
    content = data.draw(damage(good[name]))
    folder = tmp_path_factory.mktemp("damaged")
    try:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if name.startswith("m/"):
            suffix = ".gz" if name.endswith(".gz") else ""
            for part in ("matrix.mtx", "barcodes.tsv", "features.tsv"):
                shutil.copy(tmp_path_factory.getbasetemp() / "m" / (part + suffix), path.parent)
        path.write_bytes(content)
        for reader in READERS[name]:
            try:
                reader(path)
            except InputError as error:
                assert "\n" not in str(error) and len(str(error)) < 700
    finally:
        shutil.rmtree(folder)
