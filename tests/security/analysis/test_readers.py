"""AnnData, MuData and 10x files that hold pickles, or claim to be huge: data, or refused.

Runs in the environment `analysis`; models and tokens are tried in tests/security/torch.
"""

import pickle

import anndata as ad
import h5py
import mudata
import numpy as np
import pytest
import small_input as small
from payload import Payload, file_that_tells  # noqa: F401, a fixture

from scdyn.errors import InputError
from scdyn.io.artefacts import read_arrays
from scdyn.io.hdf5 import SMALL_BYTES, open_hdf5
from scdyn.io.sample_files import LibraryFiles, locate
from scdyn.pp import ingestion


def pickled(ran):
    return np.void(pickle.dumps(Payload(ran)))


def in_uns(file, ran):
    file["uns/model"] = pickled(ran)


def in_uns_as_pickle(file, ran):
    file["uns/model"] = pickled(ran)
    file["uns/model"].attrs["encoding-type"] = "pickle"
    file["uns/model"].attrs["encoding-version"] = "0.1.0"


def in_obs(file, ran):
    content = np.array([pickle.dumps(Payload(ran)).hex()] * small.N_CELLS, dtype="S400")
    file["obs/label"] = content
    file["obs"].attrs["column-order"] = ["label"]


def as_matrix(file, ran):
    del file["X"]
    file["X"] = pickled(ran)


def as_python_class(file, ran):
    """PyTables keeps Python objects so; nobody here reads them."""
    file["uns/object"] = pickled(ran)
    file["uns/object"].attrs["CLASS"] = "VLARRAY"
    file["uns/object"].attrs["FLAVOR"] = "object"
    file["uns/object"].attrs["PSEUDOATOM"] = "object"


@pytest.mark.parametrize("damage", [in_uns, in_uns_as_pickle, in_obs, as_matrix, as_python_class])
@pytest.mark.parametrize("kind", ["h5ad", "h5mu"])
def test_what_is_pickled_stays_so(kind, damage, tmp_path, ran):
    path = tmp_path / f"s.{kind}"
    if kind == "h5ad":
        small.table().write_h5ad(path)
    else:
        mudata.MuData({"rna": small.table(), "atac": small.table()}).write(path)
    with h5py.File(path, "a") as file:
        damage(file if kind == "h5ad" else file["mod/rna"], ran)
    files = locate(LibraryFiles(kind, str(path), rna_only=True))
    try:
        assert isinstance(ingestion.read_library(files).rna, ad.AnnData)
    except InputError as error:
        assert str(path) in str(error)


def test_a_pickled_array_is_refused(tmp_path, ran):
    path = tmp_path / "edges.npz"
    np.savez(path, importance=np.array([Payload(ran)], dtype=object))
    with pytest.raises(InputError, match="edges.npz: was changed"):
        read_arrays(path)


def test_the_payload_works(tmp_path):
    pickle.loads(pickled(tmp_path / "worked").tobytes())
    assert (tmp_path / "worked").exists()


@pytest.mark.parametrize("kind", ["10x", "h5ad"])
def test_an_array_that_was_never_written_is_not_read(kind, tmp_path):
    """HDF5 makes it up: here 800 GB."""
    path = tmp_path / {"10x": "s.h5", "h5ad": "s.h5ad"}[kind]
    small.write_h5(path) if kind == "10x" else small.table().write_h5ad(path)
    name = {"10x": "matrix/data", "h5ad": "X/data"}[kind]
    with h5py.File(path, "a") as file:
        del file[name]
        file.create_dataset(name, (10**11,), "i8", chunks=(2**20,), compression="gzip")
    files = locate(LibraryFiles(kind, str(path), rna_only=True))
    with pytest.raises(InputError, match="declare arrays of .* more than 300 times"):
        ingestion.read_library(files)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ("6 40 1000000000000", "has 240 entries"),
        ("6 1000000000000 240", "6 features and 1000000000000 cells"),
    ],
)
def test_the_header_of_a_matrix_is_believed_only_where_the_file_agrees(sizes, words, tmp_path):
    place = small.write_mtx(tmp_path / "filtered_feature_bc_matrix")
    text = (place / "matrix.mtx").read_text()
    (place / "matrix.mtx").write_text(text.replace("\n6 40 240\n", f"\n{sizes}\n"))
    files = locate(LibraryFiles("10x", str(place), rna_only=True))
    with pytest.raises(InputError, match=words):
        ingestion.read_library(files)


def test_a_sparse_matrix_that_is_stored_dense_is_read(tmp_path):
    """It shrinks a hundredfold, which is less than what is refused."""
    dense = np.zeros((2000, 10_000), np.float32)
    rng = np.random.default_rng(0)
    dense[rng.integers(0, 2000, 100_000), rng.integers(0, 10_000, 100_000)] = 1
    with h5py.File(tmp_path / "dense.h5", "w") as file:
        file.create_dataset("X", data=dense, compression="gzip", compression_opts=9)
    assert dense.nbytes > SMALL_BYTES
    open_hdf5(tmp_path / "dense.h5").close()
