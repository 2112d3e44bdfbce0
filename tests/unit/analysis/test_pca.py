"""Principal components of a corpus, against those of all values at once."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.decomposition import PCA
from small_corpus import make_sample, make_samples, write_corpus

from scdyn.data import pca
from scdyn.data.corpus import Corpus, make_corpus
from scdyn.errors import InputError


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus")


def read_values(corpus):
    """Log-normalised values of both modalities, centred; promoters not measured are at zero."""
    cells = corpus.to_memory(layers=["rna_log", "promoter_log"])
    rna, promoter = (
        cells.layers[name].toarray().astype(float) for name in ("rna_log", "promoter_log")
    )
    promoter[~corpus.measured] = np.nan
    return rna - rna.mean(0), promoter - np.nanmean(promoter, 0)


def scale(values):
    deviation = np.nanstd(values, 0, ddof=1)
    return np.clip(values / deviation, -10, 10)


@pytest.mark.parametrize("space", pca.SPACES)
def test_components_are_scikit_learns_of_the_whole_matrix(corpus, monkeypatch, space):
    monkeypatch.setattr(pca, "CELLS_AT_ONCE", 7)
    pca.compute_pca(corpus, corpus.folder / "pca.zarr", n_components=6)
    found = pca.Pca(corpus.folder / "pca.zarr", corpus)[space]
    parts = read_values(corpus)[: 1 if space.startswith("rna") else 2]
    if space.endswith("scaled"):
        parts = [scale(values) for values in parts]
    values = np.nan_to_num(np.hstack(parts))
    expected = PCA(6, svd_solver="full").fit_transform(values)
    assert found.shape == (80, 6)
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found, expected * signs, atol=2e-3)


def test_scaled_values_are_clipped(tmp_path):
    """A gene that one of 400 cells expresses has 20 standard deviations there."""
    sample = make_sample(n_cells=400)
    rna = sample.X.toarray()
    rna[:, 3] = 0
    rna[5, 3] = 100
    sample.X = sparse.csr_matrix(rna)
    corpus = write_corpus(tmp_path / "corpus", [sample])
    features = pca.choose_features(corpus, 30)
    values = np.concatenate([part for _, part in pca.iter_values(corpus, features, True)])
    assert values.max() == 10 and values[5, 3] == 10
    found = pca.open_pca(corpus)["rna_scaled"]
    whole = np.clip(scale(read_values(corpus)[0]), -10, 10)
    expected = PCA(found.shape[1], svd_solver="full").fit_transform(whole)
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found, expected * signs, atol=5e-3)


def test_promoters_that_were_not_measured_are_at_the_mean(corpus):
    features = pca.choose_features(corpus, 30)
    n_rna = len(features["rna"].genes)
    for scaled in (False, True):
        blocks = list(pca.iter_values(corpus, features, scaled))
        promoters = np.concatenate([values for _, values in blocks])[:, n_rna:]
        assert not promoters[~corpus.measured].any() and not corpus.measured.all()
        np.testing.assert_allclose(promoters[corpus.measured].mean(0), 0, atol=1e-5)


def test_blocks_and_the_order_of_samples_change_rounding_alone(tmp_path, corpus, monkeypatch):
    first = pca.open_pca(corpus)
    monkeypatch.setattr(pca, "CELLS_AT_ONCE", 11)
    paths = [shard.path for shard in corpus.shards]
    make_corpus(tmp_path / "turned", paths[::-1])
    turned = Corpus(tmp_path / "turned")
    names = turned.find_rows(corpus.obs.index)
    for space in pca.SPACES:
        again = pca.open_pca(turned).select(names, space)
        np.testing.assert_allclose(again[:, :10], first[space][:, :10], atol=5e-3)


def test_genes_of_the_highest_variance_are_chosen(corpus):
    rna, promoter = read_values(corpus)
    chosen = pca.choose_features(corpus, 5)
    for features, values in zip(chosen.values(), (rna, promoter), strict=True):
        variance = np.nanvar(values, 0, ddof=1)
        assert features.genes.tolist() == sorted(np.argsort(-variance)[:5])
        np.testing.assert_allclose(features.deviation**2, variance[features.genes], rtol=1e-5)


def test_genes_that_do_not_vary_are_not_chosen(tmp_path):
    sample = make_sample()
    rna = np.zeros(sample.shape, dtype=np.int32)
    rna[:, [2, 4]] = 3
    sample.X = sparse.csr_matrix(rna)
    corpus = write_corpus(tmp_path / "corpus", [sample])
    assert not len(pca.choose_features(corpus, 5)["rna"].genes)
    found = pca.open_pca(corpus)
    assert found["rna"].shape == (40, 0) and found["both"].shape[1] > 3


def test_without_promoters_both_is_the_rna(tmp_path):
    samples = [make_sample("a", measured=False), make_sample("b", measured=False)]
    found = pca.open_pca(write_corpus(tmp_path / "corpus", samples))
    assert found["rna"].shape[1] and found["rna_scaled"].shape[1]
    np.testing.assert_array_equal(found["both"], found["rna"])
    np.testing.assert_array_equal(found["both_scaled"], found["rna_scaled"])


def test_cells_are_selected_in_a_space(corpus):
    found = pca.open_pca(corpus)
    for space in pca.SPACES:
        np.testing.assert_array_equal(found.select(np.array([70, 3]), space), found[space][[70, 3]])
    with pytest.raises(IndexError):
        found.select(np.array([80]), "rna")


def test_components_of_another_corpus_and_damaged_ones_are_refused(tmp_path, corpus):
    pca.open_pca(corpus)
    make_corpus(tmp_path / "other", [corpus.shards[0].path])
    with pytest.raises(InputError, match=r"pca\.zarr: was computed from another corpus"):
        pca.Pca(corpus.folder / "pca.zarr", Corpus(tmp_path / "other"))
    (corpus.folder / "pca.zarr" / "zarr.json").write_text("{")
    with pytest.raises(InputError, match=r"pca\.zarr: the components cannot be read"):
        pca.open_pca(corpus)


@pytest.mark.parametrize("n_cells", [1, 2, 6])
def test_few_cells_give_fewer_components_than_cells(tmp_path, n_cells):
    tiny = [sample[: max(1, n_cells // 3)].copy() for sample in make_samples()]
    found = pca.open_pca(write_corpus(tmp_path / "corpus", tiny[: min(n_cells, 3)]))
    for space in pca.SPACES:
        assert found[space].shape[0] == n_cells and found[space].shape[1] < n_cells
