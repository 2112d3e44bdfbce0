"""Bins, the regulon-aware vocabulary and the token store."""

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scdyn import tokens
from scdyn.errors import InputError
from scdyn.files import sha256

GENES = pd.DataFrame(
    {"gene_id": ["g1", "g2", "g3"], "symbol": ["Tf1", "Tf2", "Act"], "is_tf": [True, True, False]}
)
REGULONS = pd.DataFrame(
    {"tf": ["Tf2", "Tf2", "Tf1"], "target": ["Act", "Tf1", "Act"], "weight": [4.0, 1.0, 3.0]}
)


def corpus():
    values = sparse.csr_matrix(np.array([[0.0, 0.2, 13.7], [1.0, 1.01, 40.0]], dtype=np.float32))
    return ad.AnnData(
        values,
        obs=pd.DataFrame(index=["a", "b"]),
        var=pd.DataFrame(index=["g1", "g2", "g3"]),
        layers={"rna_log": values, "promoter_log": values[::-1].copy()},
    )


def write(folder):
    source = folder / "corpus.h5ad"
    corpus().write_h5ad(source)
    tokens.write_tokens(corpus(), GENES, REGULONS, 14, source, folder / "tokens")
    return folder / "tokens"


def test_bins_are_the_ceiling_and_capped():
    bins = tokens.bin_values(corpus().X, 14)
    np.testing.assert_array_equal(bins.toarray(), [[0, 1, 14], [1, 2, 14]])
    assert bins.dtype == np.uint8


def test_a_gene_knows_its_regulons():
    assert tokens.add_regulons(GENES, REGULONS)["regulons"].tolist() == ["Tf2", "", "Tf1,Tf2"]


def test_regulon_weights_are_relative_and_hold_the_tf():
    weights = tokens.regulon_weights(GENES, REGULONS)
    np.testing.assert_allclose(weights, [[0.25, 1, 1], [1, 0, 1]])


def test_store_gives_back_what_was_written(tmp_path):
    store = tokens.TokenStore(write(tmp_path))
    assert list(store.cells) == ["a", "b"]
    rna, promoter = store.read(np.array([1]))
    np.testing.assert_array_equal(rna.toarray(), [[1, 2, 14]])
    np.testing.assert_array_equal(promoter.toarray(), [[0, 1, 14]])
    assert store.meta["n_tfs"] == 2


def test_same_input_gives_the_same_bytes(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    first, second = write(tmp_path / "x"), write(tmp_path / "y")
    assert sha256(first / "tokens.zarr") == sha256(second / "tokens.zarr")
    assert sha256(first / "vocabulary.tsv") == sha256(second / "vocabulary.tsv")


def test_vocabulary_hash_tells_order_and_tfs():
    same = tokens.vocabulary_hash(GENES.copy())
    assert tokens.vocabulary_hash(GENES) == same
    assert tokens.vocabulary_hash(GENES[::-1]) != same
    assert tokens.vocabulary_hash(GENES.assign(is_tf=False)) != same


def test_another_vocabulary_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="genes.tsv"):
        tokens.write_tokens(corpus(), GENES[::-1], REGULONS, 14, tmp_path, tmp_path / "tokens")
    assert not list(tmp_path.iterdir())


def test_meta_is_plain_json(tmp_path):
    meta = json.loads((write(tmp_path) / "meta.json").read_text())
    assert meta["n_bins"] == 14
    assert len(meta["corpus_sha256"]) == 64
