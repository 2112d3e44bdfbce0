"""Small files that would unpack to something huge: one sentence, in a node's usual memory.

Each is refused by the rule's own script, while the process's peak is watched. Runs in the
environment `analysis`.
"""

import gzip
import re
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import small_input as small

from scdyn.errors import InputError
from scdyn.io.bounds import LONGEST_LINE_BYTES, MOST_TIMES, SMALL_BYTES, open_bytes
from scdyn.io.hdf5 import open_bounded
from scdyn.pp.metadata_files import read_cell_table

MIB = 2**20
# As text the bombs are of 2 GiB, as tables of many times that; what Python's imports take is not
# counted.
MOST_MEMORY = 2048 * MIB


def bomb(path, line, start=""):
    """Gzip a good start and 2 GiB of one line again and again; members are repeated, too."""
    text = line.encode() * (32 * MIB // len(line))
    path.write_bytes(gzip.compress(start.encode()) + gzip.compress(text) * 64)
    assert path.stat().st_size < 32 * MIB
    return path


def mtx_bomb(folder, name, line, start="", **changes):
    place = small.write_mtx(folder / "outs" / "filtered_feature_bc_matrix", **changes)
    (place / name).unlink()
    bomb(place / f"{name}.gz", line, start)
    small.write_fragments(folder / "outs" / "atac_fragments.tsv.gz")
    return {"path": folder / "outs"}


def mtx_header(folder, sizes):
    place = small.write_mtx(folder / "outs" / "filtered_feature_bc_matrix")
    text = (place / "matrix.mtx").read_text().splitlines()
    at = next(i for i, line in enumerate(text) if not line.startswith("%"))
    (place / "matrix.mtx").write_text("\n".join([*text[:at], sizes, *text[at + 1 :]]) + "\n")
    small.write_fragments(folder / "outs" / "atac_fragments.tsv.gz")
    return {"path": folder / "outs"}


def h5_declares(folder, name, shape, dtype="i8"):
    """An array that was never written: HDF5 makes it up when it is read."""
    path = small.write_h5(folder / "s.h5", **{name: None})
    with h5py.File(path, "a") as file:
        file.create_dataset(f"matrix/{name}", shape, dtype, chunks=(MIB,), compression="gzip")
    return {"path": path}


def h5_packed(folder, name):
    """An array of 4 GiB of zeros that takes 4 MB."""
    path = small.write_h5(folder / "s.h5", **{name: None})
    chunk, n_chunks = zlib.compress(bytes(64 * MIB)), 64
    with h5py.File(path, "a") as file:
        array = file.create_dataset(
            f"matrix/{name}", (n_chunks * 8 * MIB,), "i8", chunks=(8 * MIB,), compression="gzip"
        )
        for i in range(n_chunks):
            array.id.write_direct_chunk((i * 8 * MIB,), chunk)
    return {"path": path}


def h5ad(folder, damage):
    path = folder / "s.h5ad"
    small.table().write_h5ad(path)
    with h5py.File(path, "a") as file:
        damage(file)
    return {"kind": "h5ad", "path": path}


def declared_values(file):
    del file["X/data"]
    file["X"].create_dataset("data", (10**11,), "f4", chunks=(MIB,), compression="gzip")


def declared_barcodes(file):
    name = file["obs"].attrs["_index"]
    del file[f"obs/{name}"]
    file["obs"].create_dataset(name, (10**11,), h5py.string_dtype(), chunks=(MIB,))


def fragments(folder, damage):
    kinds = ["Gene Expression"] * 6
    small.write_h5(folder / "s.h5", values=small.counts()[0], names=small.SYMBOLS, kinds=kinds)
    path = folder / "f.tsv.gz"
    damage(path)
    return {"path": folder / "s.h5", "fragments": path}


def translation(folder):
    bomb(folder / "pairs.tsv.gz", "ACGTACGTACGTACGT\tACGTACGTACGTACGT\n")
    return {"path": small.write_h5(folder / "s.h5"), "translation": folder / "pairs.tsv.gz"}


UNPACKS, LINE = "unpack to more than [0-9]+ times", "has a line of more than 16 MB"
DECLARES = "declare arrays of .* more than 300 times"
SAMPLES = {
    "barcodes without end": (
        lambda f: mtx_bomb(f, "barcodes.tsv", "ACGTACGTACGTACGT-1\n"),
        rf"barcodes\.tsv\.gz: .*{UNPACKS}",
    ),
    "one barcode without end": (lambda f: mtx_bomb(f, "barcodes.tsv", "A"), LINE),
    "features without end": (
        lambda f: mtx_bomb(f, "features.tsv", "a\tb\tGene Expression\n"),
        UNPACKS,
    ),
    "entries without end": (
        lambda f: mtx_bomb(
            f,
            "matrix.mtx",
            "1 1 1\n",
            "%%MatrixMarket matrix coordinate integer general\n6 40 1000000000000\n",
        ),
        rf"matrix\.mtx\.gz: .*{UNPACKS}",
    ),
    "comments without end": (
        lambda f: mtx_bomb(f, "matrix.mtx", "%" * 8, "%%MatrixMarket matrix coordinate\n"),
        LINE,
    ),
    "header of 10^12 entries": (lambda f: mtx_header(f, "6 40 1000000000000"), "has 240 entries"),
    "header of 10^12 cells": (
        lambda f: mtx_header(f, "6 1000000000000 240"),
        "6 features and 1000000000000 cells",
    ),
    "header of 10^5000 cells": (lambda f: mtx_header(f, f"6 {'9' * 5000} 240"), "outs"),
    "pointers never written": (lambda f: h5_declares(f, "indptr", (10**11,)), DECLARES),
    "barcodes never written": (lambda f: h5_declares(f, "barcodes", (10**11,), "S32"), DECLARES),
    "names never written": (lambda f: h5_declares(f, "features/id", (10**11,), "S32"), DECLARES),
    "packed pointers": (lambda f: h5_packed(f, "indptr"), DECLARES),
    "h5ad of values never written": (lambda f: h5ad(f, declared_values), DECLARES),
    "h5ad of barcodes never written": (lambda f: h5ad(f, declared_barcodes), DECLARES),
    "one fragment without end": (
        lambda f: fragments(f, lambda path: bomb(path, "chr1")),
        "f.tsv.gz: has a line of more than 16 MB",
    ),
    "fragments of zeros": (
        lambda f: fragments(f, lambda path: bomb(path, "\0")),
        "f.tsv.gz: has a line of more than 16 MB",
    ),
    "comment of fragments without end": (
        lambda f: fragments(f, lambda path: bomb(path, "#")),
        "f.tsv.gz: has a line of more than 16 MB",
    ),
    "translation without end": (translation, UNPACKS),
}
REFERENCES = {
    "GTF without end": ("x.gtf.gz", 'chr1\tX\tgene\t1\t2\t.\t+\t.\tgene_id "a";\n', UNPACKS),
    "GTF in a line": ("x.gtf.gz", "chr1", LINE),
    "BED without end": ("x.bed.gz", "chr1\t5\t10\tTbx6\t+\n", UNPACKS),
}


@pytest.fixture
def peak():
    """Bytes by which the process grew at its peak since the test began."""
    resident = reset_peak()
    return lambda: memory("VmHWM") - resident


def memory(key):
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("the process's memory is only told by Linux")
    return int(re.search(rf"{key}:\s+(\d+) kB", status.read_text())[1]) * 1024


def reset_peak():
    resident = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    return resident


def expect_one_sentence(capsys, run, words):
    with pytest.raises(SystemExit):
        run()
    printed = capsys.readouterr().err
    errors = [line for line in printed.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and "MemoryError" not in errors[0], printed
    assert re.search(words, errors[0]), errors[0]
    assert len(errors[0]) < 700


@pytest.mark.parametrize("case", SAMPLES)
def test_a_sample_that_is_a_bomb_is_refused(case, tmp_path, capsys, peak):
    prepare, words = SAMPLES[case]
    small.build_vocabulary(tmp_path)
    row = prepare(tmp_path)
    reset_peak()
    expect_one_sentence(capsys, lambda: small.ingest_sample(tmp_path, **row), words)
    assert peak() < MOST_MEMORY


@pytest.mark.parametrize(("line", "words"), [("ACGTACGTACGTACGT-1\tx\n", UNPACKS), ("x\t", LINE)])
def test_a_table_of_cells_that_is_a_bomb_is_refused(line, words, tmp_path, peak):
    path = bomb(tmp_path / "cells.tsv.gz", line, "barcode\tlabel\n")
    reset_peak()
    with pytest.raises(InputError, match=words):
        read_cell_table(path)
    assert peak() < MOST_MEMORY


@pytest.mark.parametrize("case", REFERENCES)
def test_a_reference_that_is_a_bomb_is_refused(case, tmp_path, capsys, peak):
    name, line, words = REFERENCES[case]
    annotation = bomb(tmp_path / name, line)
    reset_peak()
    expect_one_sentence(
        capsys, lambda: small.build_vocabulary(tmp_path, annotation=annotation), words
    )
    assert peak() < MOST_MEMORY


def test_the_peak_would_be_seen(peak):
    # Some of it may fit into what the process had already.
    assert len(bytearray(b"x") * MOST_MEMORY) and peak() > 0.9 * MOST_MEMORY


@pytest.mark.parametrize("how", ["external array", "virtual array", "external link"])
def test_a_file_that_leads_to_another_is_refused(how, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"ACGT" * 100)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["array"] = np.arange(4)
    with h5py.File(tmp_path / "s.h5", "w") as file:
        if how == "external array":
            file.create_dataset("matrix/barcodes", (400,), "S1", external=[(str(secret), 0, 400)])
        elif how == "external link":
            file["matrix/barcodes"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/array")
        else:
            layout = h5py.VirtualLayout((4,), "i8")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "array", (4,))
            file.create_virtual_dataset("matrix/barcodes", layout)
    with pytest.raises(InputError, match=r"s\.h5: matrix/barcodes is kept in another file"):
        open_bounded(tmp_path / "s.h5")


def test_real_files_keep_their_distance_from_the_bounds(tmp_path):
    """GENCODE's annotation shrinks thirtyfold, a sparse matrix stored dense a hundredfold."""
    lines = "".join(
        f"chr{i % 20}\tHAVANA\texon\t{i * 97}\t{i * 97 + 150}\t.\t+\t.\t"
        f'gene_id "ENSG{i // 9:011d}.1"; '
        f'transcript_id "ENST{i // 3:011d}.2"; gene_type "protein_coding"; level 2;\n'
        for i in range(600_000)
    )
    (tmp_path / "x.gtf.gz").write_bytes(gzip.compress(lines.encode(), 1))
    assert len(lines) > SMALL_BYTES
    assert len(open_bytes(tmp_path / "x.gtf.gz").read()) == len(lines)
    dense = np.zeros((2000, 10_000), np.float32)
    rng = np.random.default_rng(0)
    dense[rng.integers(0, 2000, 100_000), rng.integers(0, 10_000, 100_000)] = 1
    with h5py.File(tmp_path / "dense.h5", "w") as file:
        file.create_dataset("X", data=dense, compression="gzip", compression_opts=9)
    assert dense.nbytes > SMALL_BYTES
    open_bounded(tmp_path / "dense.h5").close()


def test_a_line_may_be_long_but_not_endless(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_bytes(b"a" * (LONGEST_LINE_BYTES - 1) + b"\n" + b"b" * 10)
    assert len(open_bytes(path).read()) == LONGEST_LINE_BYTES + 10
    path.write_bytes(b"a" * (LONGEST_LINE_BYTES + 2**21))
    with pytest.raises(InputError, match="has a line of more than 16 MB"):
        open_bytes(path).read()
    assert MOST_TIMES * 48 * MIB > 1500 * MIB  # GENCODE 44, as it is
