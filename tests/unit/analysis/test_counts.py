"""Normalisation against values worked out by hand."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

from scdyn.errors import InputError
from scdyn.pp import counts
from scdyn.pp.selection import select, select_samples


def sample(counts, promoter, name="s"):
    genes = pd.DataFrame({"length": [1000, 4000, 500], "n_tss": [1, 2, 1]}, index=["a", "b", "c"])
    obs = pd.DataFrame({"sample": name}, index=[f"{name}_{i}" for i in range(len(counts))])
    return ad.AnnData(
        sparse.csr_matrix(np.array(counts, dtype=np.int32)),
        obs=obs,
        var=genes,
        layers={"promoter": sparse.csr_matrix(np.array(promoter, dtype=np.int32))},
    )


def test_values_as_worked_out_by_hand():
    rna = [[2, 8, 0], [0, 0, 0], [10, 5, 5], [1, 1, 38]]
    cells = sample(rna, [[1, 2, 1], [0, 2, 0], [0, 0, 0], [0, 0, 0]])
    counts.normalise(cells)
    # Totals are 10, 0, 20 and 40; the median of those above zero is 20.
    expected = np.log1p([[4, 16, 0], [0, 0, 0], [10, 5, 5], [0.5, 0.5, 19]])
    np.testing.assert_allclose(cells.layers["rna_log"].toarray(), expected, rtol=1e-6)
    # Totals are 4 and 2: the median is 3.
    expected = np.log1p([[0.75, 1.5, 0.75], [0, 3, 0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(cells.layers["promoter_log"].toarray(), expected, rtol=1e-6)
    np.testing.assert_array_equal(cells.X.toarray(), rna)  # counts are kept


def test_one_umi_in_a_cell_of_median_depth_is_log_two():
    """Whatever the length of the gene and the number of its TSSs."""
    cells = sample([[1, 1, 8], [1, 1, 0], [6, 1, 50]], [[1, 1, 1]] * 3)
    counts.normalise(cells)
    np.testing.assert_allclose(cells.layers["rna_log"].toarray()[0, :2], np.log(2), rtol=1e-6)
    np.testing.assert_allclose(cells.layers["promoter_log"].data, np.log(2), rtol=1e-6)


def test_values_are_those_of_scanpy():
    rng = np.random.default_rng(0)
    cells = sample(rng.poisson(3, (31, 3)), rng.poisson(1, (31, 3)))
    same = ad.AnnData(cells.X.astype(np.float32))
    sc.pp.normalize_total(same)
    sc.pp.log1p(same)
    counts.normalise(cells)
    found = cells.layers["rna_log"].toarray()
    np.testing.assert_allclose(found, same.X.toarray(), rtol=1e-5)


def test_cells_without_any_promoter_counts_are_normalised_to_none():
    cells = sample([[2, 8, 0]], [[0, 0, 0]])
    counts.normalise(cells)
    assert cells.layers["promoter_log"].shape == (1, 3) and not cells.layers["promoter_log"].nnz


def test_selection_needs_every_column_to_match():
    obs = pd.DataFrame({"type": ["x", "x", "y"], "day": [1, 2, 1]})
    assert list(select(obs, {"type": ["x"], "day": [1]}, "here")) == [True, False, False]
    assert select(obs, {}, "here").all()
    with pytest.raises(InputError, match="here: no cell has type 'z'"):
        select(obs, {"type": ["z"]}, "here")
    with pytest.raises(InputError, match="no column 'kind'"):
        select(obs, {"kind": ["x"]}, "here")
    with pytest.raises(InputError, match="no cell matches"):
        select(obs, {"type": ["y"], "day": [2]}, "here")


def test_a_selection_and_the_cells_spell_values_alike():
    obs = pd.DataFrame({"stage": ["8", "8.5"], "infected": ["True", "False"]})
    for stage, infected in ((8.0, True), ("8.0", "TRUE"), (8, "true")):
        chosen = select(obs, {"stage": [stage], "infected": [infected]}, "here")
        assert chosen.tolist() == [True, False]
    sheet = pd.DataFrame({"stage": ["8.0", "8.5"], "infected": ["TRUE", "FALSE"]}, ["a", "b"])
    known = ["stage", "infected"]
    assert select_samples(sheet, {"stage": [8], "infected": [True]}, known, "here") == ["a"]


@pytest.mark.parametrize("missing", ["None", "nan", "NA"])
def test_a_word_for_missing_chooses_neither_cells_nor_samples(missing):
    """Where a sheet says None, its cells have no value: both selections must say so alike."""
    words = f"no cell has drug '{missing}' .this word means a missing value; .*; there are x[.]"
    with pytest.raises(InputError, match=words):
        select(pd.DataFrame({"drug": ["x", np.nan]}), {"drug": [missing]}, "here")
    sheet = pd.DataFrame({"drug": ["x", missing]}, ["a", "b"])
    with pytest.raises(InputError, match=words):
        select_samples(sheet, {"drug": [missing]}, ["drug"], "here")
    assert select_samples(sheet, {"drug": ["x"]}, ["drug"], "here") == ["a"]
