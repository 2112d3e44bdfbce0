"""Cells and genes that regulators are inferred from."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scdyn.data.corpus import Corpus
from scdyn.data.pca import open_pca
from scdyn.errors import InputError
from scdyn.grn import cells as grn_cells
from scdyn.grn.expression import read_expression
from scdyn.pp.counts import normalise
from scdyn.pp.selection import draw_cells


def many_cells(n_cells=300, n_genes=40, seed=0):
    """Cells of two samples and two kinds, one of them rare."""
    rng = np.random.default_rng(seed)
    rare = np.arange(n_cells) % 30 == 0
    rates = np.where(rare[:, None], np.r_[np.full(20, 9.0), np.full(20, 0.5)], 2.0)
    counts = rng.poisson(rates).astype(np.int32)
    cells = ad.AnnData(
        sparse.csr_matrix(counts),
        obs=pd.DataFrame(
            {
                "sample": np.where(np.arange(n_cells) < n_cells // 3, "a", "b"),
                "promoter_source": "fragments",
                "rare": rare,
            },
            index=[f"c{i:03d}" for i in range(n_cells)],
        ),
        var=pd.DataFrame(
            {
                "symbol": [f"S{i}" for i in range(n_genes)],
                "is_tf": np.arange(n_genes) < 5,
                "length": 1000,
                "n_tss": 1,
            },
            index=[f"g{i}" for i in range(n_genes)],
        ),
        layers={"promoter": sparse.csr_matrix(rng.poisson(1.0, counts.shape))},
    )
    normalise(cells)
    return cells


def write(folder, cells):
    return Corpus.write(folder, [cells[cells.obs["sample"] == name].copy() for name in "ab"])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write(tmp_path_factory.mktemp("corpus"), many_cells())


def choose(corpus, *settings):
    return grn_cells.choose_cells(corpus, open_pca(corpus)["rna"], *settings)


def test_cells_are_drawn_from_each_sample_in_proportion_and_the_rare_are_kept(corpus):
    drawn, report = choose(corpus, "drawn", 90, 1)
    assert drawn.n_obs == 90 == report["n_used"].sum()
    assert report["n_cells"].sum() == 300
    assert 25 <= (drawn.obs["sample"] == "a").sum() <= 40
    rare = many_cells().obs["rare"]
    assert rare[drawn.obs_names].any()
    again, _ = choose(corpus, "drawn", 90, 1)
    assert drawn.obs_names.equals(again.obs_names)
    other, _ = choose(corpus, "drawn", 90, 2)
    assert not drawn.obs_names.equals(other.obs_names)


def test_small_strata_give_a_few_cells_and_the_sum_is_kept():
    strata = pd.DataFrame({"cluster": np.repeat([0, 1, 2], [1000, 12, 3])})
    rows = draw_cells(strata, 100, 0)
    numbers = strata.iloc[rows]["cluster"].value_counts()
    assert numbers.to_dict() == {0: 87, 1: 10, 2: 3}
    assert len(draw_cells(strata, 2000, 0)) == 1015
    many = pd.DataFrame({"cluster": np.arange(50)})
    assert len(draw_cells(many, 20, 0)) == 20


def test_cells_without_a_value_are_a_stratum():
    strata = pd.DataFrame({"type": ["x"] * 5 + [None] * 100})
    rows = draw_cells(strata, 10, 0)
    assert len(rows) == 10 and (rows >= 5).any()


def test_a_small_corpus_is_taken_whole(corpus):
    drawn, report = choose(corpus, "drawn", 1000, 1)
    assert drawn.n_obs == 300 and report["n_used"].tolist() == report["n_cells"].tolist()


def test_metacells_sum_cells_of_one_sample(corpus):
    used, report = choose(corpus, "metacells", 30, 1)
    assert used.n_obs <= 30 and used.obs["n_cells"].sum() == 300
    np.testing.assert_array_equal(np.asarray(used.X.sum(0)), np.asarray(many_cells().X.sum(0)))
    of_sample = used.obs.groupby("sample", observed=True)["n_cells"].sum()
    assert of_sample.to_dict() == {"a": 100, "b": 200}
    assert report.set_index("sample")["n_used"].sum() == used.n_obs
    assert used.layers["rna_log"].max() > 0


@pytest.mark.parametrize(("share", "source"), [(1, "fragments"), (0, "none")])
def test_a_metacell_has_promoters_if_any_of_its_cells_has(tmp_path, share, source):
    cells = many_cells()
    cells.obs["promoter_source"] = np.where(np.arange(300) % 3 < share, "fragments", "none")
    used, _ = choose(write(tmp_path / "corpus", cells), "metacells", 6, 1)
    assert (used.obs["promoter_source"] == source).all()


def test_the_blocks_of_a_corpus_change_no_metacell(corpus, monkeypatch):
    whole, _ = choose(corpus, "metacells", 30, 1)
    monkeypatch.setattr(Corpus.iter_blocks, "__defaults__", (None, ("rna", "promoter"), 7))
    parts, _ = choose(corpus, "metacells", 30, 1)
    assert (whole.X != parts.X).nnz == 0


def test_genes_hardly_detected_or_constant_are_left_out():
    cells = many_cells()
    values = cells.layers["rna_log"].toarray()
    values[3:, 1] = 0  # a TF in three cells
    values[:, 2] = 0  # a TF in none
    values[:, 7] = 5.0  # constant
    cells.layers["rna_log"] = sparse.csr_matrix(values)
    kept = grn_cells.choose_genes(cells, 0.1)
    assert np.flatnonzero(~kept).tolist() == [1, 2, 7]
    cells.layers["rna_log"] = sparse.csr_matrix(values * (np.arange(40) >= 5))
    with pytest.raises(InputError, match="none of the 5 TFs"):
        grn_cells.choose_genes(cells, 0.1)


def test_the_matrix_comes_back_by_h5py_alone(tmp_path):
    cells = many_cells()
    kept = np.arange(40) != 2
    grn_cells.write_expression(cells, kept, tmp_path / "e.h5ad")
    read = read_expression(tmp_path / "e.h5ad")
    assert read.genes == [f"S{i}" for i in range(40) if i != 2]
    assert read.tfs.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(read.values.toarray(), cells.layers["rna_log"][:, kept].toarray())
