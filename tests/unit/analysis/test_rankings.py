"""Rankings of genes for each class, and the rank-sum test, worked out by hand."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import mannwhitneyu
from small_corpus import make_genes

from scdyn.data.corpus import Corpus
from scdyn.pp import wilcoxon
from scdyn.pp.wilcoxon import compare_groups
from scdyn.tasks import rankings

GENES = pd.DataFrame({"gene_id": ["g1", "g2"], "symbol": ["A", "B"], "is_tf": [True, False]})
# Four cells: g1 is highest in a's cells, g2 in b's.
VALUES = sparse.csr_matrix([[4.0, 1.0], [3.0, 2.0], [2.0, 3.0], [1.0, 4.0]])


def test_the_z_of_a_rank_sum_is_that_of_the_formula():
    found = compare_groups(VALUES, pd.Index(["g1", "g2"]), pd.Categorical(list("aabb")))
    # Ranks 4 and 3 sum to 7; by chance 2 * 5 / 2 = 5, of variance 2 * 2 * 5 / 12.
    z = (7 - 5) / np.sqrt(2 * 2 * 5 / 12)
    assert found[["group", "gene_id"]].values.tolist() == [
        ["a", "g1"], ["a", "g2"], ["b", "g2"], ["b", "g1"]
    ]  # fmt: skip
    np.testing.assert_allclose(found["score"], [z, -z, z, -z], rtol=1e-6)


def test_a_group_can_be_compared_with_one_other_and_ties_corrected():
    values = sparse.csr_matrix([[0.0], [0.0], [2.0], [0.0], [3.0], [3.0], [9.0]])
    groups = pd.Categorical(["control"] * 4 + ["perturbed"] * 2 + ["other"])
    found = compare_groups(
        values, pd.Index(["g"]), groups, tested=["perturbed"], reference="control", tie_correct=True
    )
    exact = mannwhitneyu([3, 3], [0, 0, 2, 0], method="asymptotic", use_continuity=False)
    assert found["group"].tolist() == ["perturbed"]
    assert found["p_value"].item() == pytest.approx(exact.pvalue)
    assert found["log2_fold_change"].item() > 0


def test_as_many_cells_of_each_group_are_drawn_and_a_smaller_one_is_kept(monkeypatch):
    monkeypatch.setattr(wilcoxon, "MAX_PER_GROUP", 5)
    groups = pd.Series(list("aabbbbbbbb" + "c" * 20), index=[f"c{i}" for i in range(30)])
    rows = wilcoxon.draw_groups(groups, 1)
    assert groups.iloc[rows].value_counts().to_dict() == {"b": 5, "c": 5, "a": 2}
    assert rows.tolist() == sorted(rows) and len(set(rows)) == 12
    np.testing.assert_array_equal(rows, wilcoxon.draw_groups(groups, 1))
    assert rows.tolist() != wilcoxon.draw_groups(groups, 2).tolist()
    monkeypatch.setattr(wilcoxon, "MAX_CELLS", 9)
    assert groups.iloc[wilcoxon.draw_groups(groups, 1)].value_counts().max() == 3
    monkeypatch.undo()
    assert wilcoxon.draw_groups(groups, 1).tolist() == list(range(30))


def test_cells_of_a_class_are_ranked_against_all_others(tmp_path):
    genes = make_genes(3).assign(length=1000, n_tss=1, gene_id=["g1", "g2", "rest"])
    genes = genes.assign(symbol=["A", "B", "C"], is_tf=[True, False, False])
    counts = sparse.csr_matrix(
        [[40, 10, 50], [30, 20, 50], [20, 30, 50], [10, 40, 50], [90, 5, 5]], dtype=np.int32
    )
    names = [f"s_{i}" for i in range(5)]
    obs = {"sample": "s", "barcode": list("01234"), "promoter_source": "none"}
    cells = ad.AnnData(counts, pd.DataFrame(obs, names), genes.set_index("gene_id"))
    cells.layers["promoter"] = sparse.csr_matrix(counts.shape, dtype=np.int32)
    corpus = Corpus.write(tmp_path, [cells])
    # The last cell has no label and takes no part; the order is not that of the corpus.
    label = pd.Series(list("abab"), index=["s_1", "s_3", "s_0", "s_2"])
    compared = rankings.read_compared_cells(corpus, label, 1)
    assert dict(compared.obs["class"]) == dict(label)
    np.testing.assert_allclose(
        compared["s_1"].layers["rna_log"].toarray(), np.log1p([[30, 20, 50]]), rtol=1e-6
    )
    table = rankings.wilcoxon_ranking(compared)
    table = table[table["symbol"] != "C"]
    assert table[["class", "symbol", "is_tf"]].values.tolist() == [
        ["a", "A", True], ["a", "B", False], ["b", "B", False], ["b", "A", True]
    ]  # fmt: skip


def test_weights_are_averaged_over_folds_and_the_larger_modality_counts():
    folds = pd.DataFrame(
        {
            "class": "a", "gene_id": ["g1", "g2", "g1", "g2"],
            "rna": [1.0, 0.0, 3.0, 1.0], "promoter": [0.0, 2.0, 0.0, 4.0],
        }
    )  # fmt: skip
    table = rankings.weight_ranking(folds, GENES)
    assert dict(zip(table["symbol"], table["score"], strict=True)) == {"A": 2.0, "B": 3.0}


def test_attributions_rank_by_specificity_of_genes_that_are_higher_in_the_class():
    values = np.array([[2.0, 1.0, 1.0, 1.0], [2.0, 0.0, 1.0, 1.0], [0.0, 3.0, 1.0, 0.0]])
    cells = ad.AnnData(
        obs=pd.DataFrame({"class": ["a", "a", "b"]}, index=list("xyz")),
        var=pd.DataFrame(index=["g1", "g2", "g3", "g4"]),
        layers={"rna_log": sparse.csr_matrix(values)},
    )  # fmt: skip
    assert rankings.find_higher(cells).loc["a"].tolist() == [True, False, False, True]
    assert rankings.find_higher(cells).loc["b"].tolist() == [False, True, False, False]
    table = pd.DataFrame(
        {
            "class": "a", "gene_id": ["g1", "g1", "g2", "g3", "g4"], "symbol": list("AABCD"),
            "is_tf": True, "modality": ["rna", "both", "both", "both", "both"],
            "specificity": [1.0, 2.0, 5.0, -1.0, -3.0],
        }
    )  # fmt: skip
    found = rankings.attribution_ranking(table, cells)
    score = dict(zip(found["symbol"], found["score"], strict=True))
    # D is higher in the class, so that it comes before B, although little speaks for it.
    assert score["A"] == 2 and score["D"] == -3
    assert sorted(score, key=score.get, reverse=True) == list("ADBC")
    # A gene of unknown specificity leaves the others' scores known.
    table.loc[table["symbol"] == "D", "specificity"] = np.nan
    found = rankings.attribution_ranking(table, cells).set_index("symbol")["score"]
    assert np.isnan(found.pop("D")) and found.sort_values().index.tolist() == list("CBA")
