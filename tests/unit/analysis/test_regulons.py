"""Regulons from motifs or modules, agreed upon by runs; their activity and specificity."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scdyn.errors import InputError
from scdyn.grn import aucell, regulons


def test_targets_are_joined_over_motifs_and_kept_apart_by_sign():
    motifs = pd.DataFrame(
        {"regulon": ["A(+)", "A(+)", "A(-)"], "tf": "A", "targets": ["B,C", "B,A", "D"]}
    )
    edges = pd.DataFrame({"tf": "A", "target": list("BCD"), "importance": [3.5, 1.0, 0.5]})
    assert regulons.of_motifs(motifs, edges).to_dict("list") == {
        "regulon": ["A(+)", "A(+)", "A(+)", "A(-)"], "tf": ["A"] * 4,
        "target": ["A", "B", "C", "D"], "weight": [1.0, 3.5, 1.0, 0.5],
    }  # fmt: skip


def test_runs_without_an_enriched_motif_have_no_regulon():
    motifs = pd.DataFrame(columns=["regulon", "tf", "targets"], dtype=object)
    edges = pd.DataFrame({"tf": ["A"], "target": ["B"], "importance": [1.0]})
    empty = regulons.of_motifs(motifs, edges)
    assert empty.empty
    with pytest.raises(InputError, match="no regulon has 2 targets in any of 2 runs"):
        regulons.consensus({"1": empty, "2": empty}, 1, 2)


EDGES = pd.DataFrame(
    {
        "tf": list("AAAAB"), "target": list("wxyzw"), "importance": [5.0, 4, 3, 2, 1],
        "correlation": [0.5, -0.4, 0.3, 0.01, 0.2], "promoter_score": [3, 3, -3, 3, np.nan],
        "promoter_p": [0.01, 0.01, 0.01, 0.2, np.nan],
    }
)  # fmt: skip


def test_modules_take_the_strongest_of_each_sign():
    both = regulons.modules(EDGES, 2, True)
    assert both[["regulon", "target"]].values.tolist() == [
        ["A(+)", "w"], ["A(-)", "x"], ["A(+)", "y"], ["B(+)", "w"]
    ]  # fmt: skip
    activated = regulons.modules(EDGES, 1, False)
    assert activated[["regulon", "target"]].values.tolist() == [["A(+)", "w"], ["B(+)", "w"]]


def test_chromatin_keeps_what_it_supports_and_what_it_cannot_tell():
    modules = regulons.modules(EDGES, 5, True)
    kept = regulons.supported(modules, EDGES, 0.05)
    # x is repressed, but its promoter opens with the TF; y is activated, but its promoter closes.
    assert kept[["regulon", "target"]].values.tolist() == [["A(+)", "w"], ["B(+)", "w"]]


def run_of(**targets):
    rows = [(f"{tf}(+)", tf, target, 1.0) for tf, names in targets.items() for target in names]
    return pd.DataFrame(rows, columns=["regulon", "tf", "target", "weight"])


RUNS = {
    "1": run_of(A="wxyz", B="wx"),
    "2": run_of(A="wxyv", B="yz"),
    "3": run_of(A="wxu", C="wx"),
}


def test_the_consensus_keeps_what_enough_runs_found():
    kept = regulons.consensus(RUNS, 2, 2)
    assert kept["regulon"].unique().tolist() == ["A(+)"]
    assert dict(zip(kept["target"], kept["n_runs"], strict=True)) == {"w": 3, "x": 3, "y": 2}
    with pytest.raises(InputError, match="agree upon"):
        regulons.consensus(RUNS, 3, 3)


def test_stability_compares_all_edges_and_each_kept_regulon():
    table = regulons.stability(RUNS, regulons.consensus(RUNS, 2, 2))
    assert table["what"].unique().tolist() == ["regulons' edges", "A(+)"]
    one = table[(table["what"] == "A(+)") & (table["run_b"] == "2")]
    assert one["jaccard"].tolist() == [3 / 5]


def test_gmt_names_regulon_and_targets(tmp_path):
    regulons.write_gmt(RUNS["3"], tmp_path / "r.gmt")
    assert (tmp_path / "r.gmt").read_text().splitlines() == [
        "A(+)\t3 targets\tw\tx\tu", "C(+)\t2 targets\tw\tx"
    ]  # fmt: skip


def test_aucell_is_the_area_under_the_recovery_of_targets():
    rng = np.random.default_rng(0)
    values = rng.permuted(np.tile(np.arange(1.0, 101), (5, 1)), axis=1)  # no ties
    genes = [f"g{i}" for i in range(100)]
    table = pd.DataFrame({"regulon": "R(+)", "target": ["g3", "g50", "g99"]})
    found = aucell.aucell(sparse.csr_matrix(values), genes, table, 0.2, 1)["R(+)"]
    ranks = 100 - values[:, [3, 50, 99]]  # 0 is the best
    recovered = (ranks[:, :, None] <= np.arange(19)).sum((1, 2))
    np.testing.assert_allclose(found, recovered / (20 * 3))
    with pytest.raises(InputError, match="aucell_threshold"):
        aucell.aucell(sparse.csr_matrix(values), genes, table, 0.01, 1)


def test_chunks_do_not_change_activities(monkeypatch):
    values = sparse.random(50, 40, 0.3, format="csr", random_state=0)
    genes = [f"g{i}" for i in range(40)]
    table = pd.DataFrame({"regulon": ["A(+)"] * 3 + ["B(-)"], "target": genes[:4]})
    whole = aucell.aucell(values, genes, table, 0.25, 1)
    monkeypatch.setattr(aucell, "CELLS_AT_ONCE", 7)
    pd.testing.assert_frame_equal(whole, aucell.aucell(values, genes, table, 0.25, 1))


def test_specificity_is_one_for_a_label_of_its_own():
    activity = pd.DataFrame({"own": [1.0, 1, 0, 0, 9], "even": 1.0, "silent": 0.0})
    labels = pd.Series(["a", "a", "b", "b", None])
    found = aucell.specificity(activity, labels)
    assert found.loc["a", "own"] == pytest.approx(1) and found.loc["b", "own"] < 0.2
    assert found.loc["a", "even"] == pytest.approx(found.loc["b", "even"])
    assert found["silent"].isna().all()
