"""Promises on files that are read: no code, bounded memory, no other file, https only.

One test for each promise of docs/security.md. Runs in the environment `analysis`.
"""

import gzip
import pickle
import re
from pathlib import Path
from urllib.request import Request

import anndata as ad
import h5py
import numpy as np
import pytest
import small_input as small
from payload import Payload, file_that_tells  # noqa: F401, a fixture

from scdyn.errors import InputError
from scdyn.io.bounds import LONGEST_LINE_BYTES, SMALL_BYTES, open_bytes
from scdyn.io.download import HttpsOnly
from scdyn.io.hdf5 import open_bounded
from scdyn.io.libraries import LibraryFiles, locate
from scdyn.pp import ingest

MIB = 2**20


def test_a_pickle_in_a_file_is_not_loaded(tmp_path, ran):
    path = tmp_path / "s.h5ad"
    small.table().write_h5ad(path)
    with h5py.File(path, "a") as file:
        file["uns/model"] = np.void(pickle.dumps(Payload(ran)))
        file["uns/model"].attrs["encoding-type"] = "pickle"
        file["uns/model"].attrs["encoding-version"] = "0.1.0"
    files = locate(LibraryFiles("h5ad", str(path), rna_only=True))
    try:
        assert isinstance(ingest.read_library(files).rna, ad.AnnData)
    except InputError as error:
        assert str(path) in str(error)


def memory(key):
    """Bytes of this process, by a key of Linux."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("only Linux tells the memory of a process")
    return int(re.search(rf"{key}:\s+(\d+) kB", status.read_text())[1]) * 1024


def test_a_small_file_that_unpacks_to_2_gib_is_refused_within_2_gib_of_memory(tmp_path, capsys):
    place = small.write_mtx(tmp_path / "outs" / "filtered_feature_bc_matrix")
    small.write_fragments(tmp_path / "outs" / "atac_fragments.tsv.gz")
    (place / "barcodes.tsv").unlink()
    line = b"ACGTACGTACGTACGT-1\n"
    part = gzip.compress(line * (32 * MIB // len(line)))
    (place / "barcodes.tsv.gz").write_bytes(part * 64)
    small.build_vocabulary(tmp_path)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    with pytest.raises(SystemExit):
        small.ingest_sample(tmp_path, path=tmp_path / "outs")
    assert memory("VmHWM") - before < 2048 * MIB
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert re.search(r"barcodes\.tsv\.gz: .*unpack to more than [0-9]+ times", errors[0])


def test_an_endless_line_is_refused(tmp_path):
    (tmp_path / "x.tsv").write_bytes(b"a" * (LONGEST_LINE_BYTES + 2**21))
    with pytest.raises(InputError, match="has a line of more than 16 MB"):
        open_bytes(tmp_path / "x.tsv").read()


def test_an_array_that_is_larger_than_its_file_is_refused(tmp_path):
    path = small.write_h5(tmp_path / "s.h5", barcodes=None)
    with h5py.File(path, "a") as file:  # never written: HDF5 makes it up when it is read
        file.create_dataset("matrix/barcodes", (10**11,), "S32", chunks=(MIB,), compression="gzip")
    with pytest.raises(InputError, match="declare arrays of .* more than 300 times"):
        open_bounded(path)


def test_real_files_are_below_the_bounds(tmp_path):
    """GENCODE's annotation shrinks thirtyfold, a sparse matrix stored dense a hundredfold."""
    lines = "".join(
        f"chr{i % 20}\tHAVANA\texon\t{i * 97}\t{i * 97 + 150}\t.\t+\t.\t"
        f'gene_id "ENSG{i // 9:011d}.1"; '
        f'transcript_id "ENST{i // 3:011d}.2"; gene_type "protein_coding"; level 2;\n'
        for i in range(600_000)
    )
    assert len(lines) > SMALL_BYTES
    (tmp_path / "x.gtf.gz").write_bytes(gzip.compress(lines.encode(), 1))
    assert len(open_bytes(tmp_path / "x.gtf.gz").read()) == len(lines)
    dense = np.zeros((2000, 10_000), np.float32)
    dense.flat[np.random.default_rng(0).integers(0, dense.size, 100_000)] = 1
    with h5py.File(tmp_path / "dense.h5", "w") as file:
        file.create_dataset("X", data=dense, compression="gzip", compression_opts=9)
    open_bounded(tmp_path / "dense.h5").close()


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


def test_a_server_cannot_lead_away_from_https():
    # Hashes: tests/unit/analysis/test_resources.py; certificates: tests/faults/test_downloads.py.
    request = Request("https://a/x")
    for url in ("http://a/x", "HTTP://a/x", "file:///etc/passwd", "ftp://a/x"):
        with pytest.raises(InputError, match="which is not https"):
            HttpsOnly().redirect_request(request, None, 302, "", {}, url)
    assert HttpsOnly().redirect_request(request, None, 302, "", {}, "https://b/x")
