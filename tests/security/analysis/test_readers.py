"""AnnData, MuData and 10x files that hold pickles and more: data, or refused.

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
from scdyn.io.sample_files import LibraryFiles, locate
from scdyn.pp import ingest


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
        assert isinstance(ingest.read_library(files).rna, ad.AnnData)
    except InputError as error:
        assert str(path) in str(error)


def test_the_payload_works(tmp_path):
    pickle.loads(pickled(tmp_path / "worked").tobytes())
    assert (tmp_path / "worked").exists()
