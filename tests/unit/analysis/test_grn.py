"""Edges over seeds, pySCENIC's output, and regulons."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scdyn import grn
from scdyn.errors import InputError

RUNS = {
    "1": pd.DataFrame({"TF": ["A", "A"], "target": ["B", "C"], "importance": [4.0, 2.0]}),
    "2": pd.DataFrame({"TF": ["A", "B"], "target": ["B", "C"], "importance": [6.0, 1.0]}),
}
EXPRESSION = pd.DataFrame({"A": [0, 1, 2, 3], "B": [0, 2, 4, 6], "C": [3, 2, 1, 0]})


def test_edges_are_averaged_over_all_seeds():
    merged = grn.merge_adjacencies(RUNS, EXPRESSION).set_index(["tf", "target"])
    assert merged["importance"].to_dict() == {("A", "B"): 5.0, ("A", "C"): 1.0, ("B", "C"): 0.5}
    assert merged["n_seeds"].to_dict() == {("A", "B"): 2, ("A", "C"): 1, ("B", "C"): 1}
    np.testing.assert_allclose(merged["correlation"], [1, -1, -1])


def test_stability_is_the_jaccard_index_of_the_strongest():
    table = grn.stability(RUNS, 2)
    assert table["jaccard"].tolist() == [pytest.approx(1 / 3)]
    assert grn.stability({"1": RUNS["1"]}, 2).empty


def test_an_empty_run_is_refused():
    with pytest.raises(InputError, match="seed 2 found no edge"):
        grn.merge_adjacencies({**RUNS, "2": RUNS["2"].iloc[:0]}, EXPRESSION)


CTX = (
    ",,Enrichment,Enrichment\n,,AUC,TargetGenes\nTF,MotifID,,\n"
    "A,m1,0.1,\"[('B', 2.5), ('C', 1.0)]\"\nA,m2,0.1,\"[('B', 3.5)]\"\n"
)


def test_ctx_targets_are_joined_over_motifs(tmp_path):
    path = tmp_path / "motifs.csv"
    path.write_text(CTX)
    table = grn.read_ctx(path)
    assert table.to_dict("list") == {
        "tf": ["A", "A"], "target": ["B", "C"], "weight": [3.5, 1.0], "n_motifs": [2, 1]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [("".join(CTX.splitlines(True)[:3]), "no regulon"), ("", "ended? early|early")],
)
def test_an_empty_ctx_is_no_success(tmp_path, text, words):
    path = tmp_path / "motifs.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        grn.read_ctx(path)


def test_modules_take_the_strongest_activated_targets():
    merged = grn.merge_adjacencies(RUNS, EXPRESSION)
    assert grn.modules(merged, 5)[["tf", "target"]].values.tolist() == [["A", "B"]]


def test_small_regulons_are_left_out_and_none_is_an_error():
    edges = pd.DataFrame(
        {"tf": ["A", "B", "B"], "target": ["x", "x", "y"], "weight": [1.0, 1.0, 2.0]}
    )
    kept = grn.finish_regulons(edges, 2)
    assert kept[["tf", "target"]].values.tolist() == [["B", "y"], ["B", "x"]]
    with pytest.raises(InputError, match="grn.min_targets"):
        grn.finish_regulons(edges, 3)


def test_expression_leaves_out_what_is_hardly_detected(tmp_path):
    values = np.ones((40, 4), dtype=np.float32)
    values[3:, 1] = 0  # detected in three cells
    values[:, 2] = 0  # not detected
    cells = ad.AnnData(
        sparse.csr_matrix(values),
        obs=pd.DataFrame({"sample": ["a", "b"] * 20}, index=[f"c{i}" for i in range(40)]),
        var=pd.DataFrame(
            {"symbol": ["T", "U", "V", "W"], "is_tf": [True, True, True, False]}, index=list("1234")
        ),
        layers={"rna_log": sparse.csr_matrix(values)},
    )
    table = grn.write_expression(cells, 100, 0.1, 0, tmp_path / "m.tsv", tmp_path / "tfs.txt")
    assert list(table.columns) == ["T", "W"]
    assert (tmp_path / "tfs.txt").read_text().split() == ["T"]
    drawn = grn.write_expression(cells, 20, 0.1, 0, tmp_path / "m.tsv", tmp_path / "tfs.txt")
    assert cells.obs.loc[drawn.index, "sample"].value_counts().tolist() == [10, 10]
