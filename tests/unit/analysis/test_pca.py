"""Principal components of a corpus, against those of all values at once."""

import numpy as np
import pytest
from small_corpus import make_sample, make_samples, write_corpus

from scdyn.data import pca
from scdyn.data.corpus import Corpus, make_corpus
from scdyn.errors import InputError


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus")


def components_at_once(values, n_components):
    """Scores and variances by the singular values of the centred matrix."""
    centred = values - values.mean(0)
    left, spread, right = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(1)])
    scores = left * spread * signs
    return scores[:, :n_components], spread[:n_components] ** 2 / (len(values) - 1)


def test_components_are_those_of_the_whole_matrix(corpus, monkeypatch):
    monkeypatch.setattr(pca, "CELLS_AT_ONCE", 7)
    pca.compute_pca(corpus, corpus.folder / "pca.zarr", n_components=6)
    found = pca.Pca(corpus.folder / "pca.zarr", corpus)
    values = corpus.to_memory(layers=["rna_log", "promoter_log"])
    expected, _ = components_at_once(values.layers["rna_log"].toarray().astype(float), 6)
    np.testing.assert_allclose(found.rna, expected, atol=2e-3)
    measured = values.layers["promoter_log"].toarray().astype(float)[corpus.measured]
    expected, _ = components_at_once(measured, 6)
    np.testing.assert_allclose(found.promoter[corpus.measured], expected, atol=2e-3)
    assert not found.promoter[~corpus.measured].any()


def test_blocks_and_the_order_of_samples_change_rounding_alone(tmp_path, corpus, monkeypatch):
    first = pca.open_pca(corpus).rna
    monkeypatch.setattr(pca, "CELLS_AT_ONCE", 11)
    paths = [shard.path for shard in corpus.shards]
    make_corpus(tmp_path / "turned", paths[::-1])
    turned = Corpus(tmp_path / "turned")
    names = turned.find_rows(corpus.obs.index)
    np.testing.assert_allclose(pca.open_pca(turned).rna[names], first, atol=2e-3)


def test_genes_of_the_highest_variance_are_chosen(corpus):
    values = corpus.to_memory(layers=["rna_log"]).layers["rna_log"].toarray().astype(float)
    moments = pca.sum_moments(corpus)
    chosen = pca.choose_genes(moments, "rna", len(corpus), 5)
    assert chosen.tolist() == sorted(np.argsort(-values.var(0))[:5])


def test_constant_genes_are_not_chosen(corpus):
    moments = pca.sum_moments(corpus)
    name, squares = pca.MOMENTS["rna"]
    moments[name], moments[squares] = 80 * 1.1, 80 * 1.1**2
    assert not len(pca.choose_genes(moments, "rna", 80, 5))


def test_a_corpus_without_promoters_has_no_components_of_them(tmp_path):
    samples = [make_sample("a", measured=False), make_sample("b", measured=False)]
    found = pca.open_pca(write_corpus(tmp_path / "corpus", samples))
    assert found.promoter.shape == (80, 0)
    assert found.select(np.array([3, 1]), both=True).shape == (2, found.rna.shape[1])


def test_both_modalities_stand_side_by_side(corpus):
    found, rows = pca.open_pca(corpus), np.array([70, 3])
    n_rna = found.rna.shape[1]
    both = found.select(rows, both=True)
    np.testing.assert_array_equal(both[:, :n_rna], found.select(rows))
    np.testing.assert_array_equal(both[:, n_rna:], found.promoter[rows])


def test_components_of_another_corpus_and_damaged_ones_are_refused(tmp_path, corpus):
    pca.open_pca(corpus)
    make_corpus(tmp_path / "other", [corpus.shards[0].path])
    with pytest.raises(InputError, match=r"pca\.zarr: was computed from another corpus"):
        pca.Pca(corpus.folder / "pca.zarr", Corpus(tmp_path / "other"))
    (corpus.folder / "pca.zarr" / "zarr.json").write_text("{")
    with pytest.raises(InputError, match=r"pca\.zarr: the counts cannot be read|cannot be read"):
        pca.open_pca(corpus)


def test_three_samples_give_fewer_components_than_cells(tmp_path):
    tiny = [sample[:2].copy() for sample in make_samples()]
    found = pca.open_pca(write_corpus(tmp_path / "corpus", tiny))
    assert found.rna.shape[0] == 6 and found.rna.shape[1] <= 5
