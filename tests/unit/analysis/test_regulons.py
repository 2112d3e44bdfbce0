"""Regulons from motifs or modules, agreed upon by runs; their activity and specificity."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from small_edges import make_edges

from scdyn.data.corpus import Corpus
from scdyn.errors import InputError
from scdyn.grn import activity, regulons
from scdyn.grn.edges import MergedEdges
from scdyn.settings import LEFT_OUT


def test_targets_are_joined_over_motifs_and_kept_apart_by_sign():
    motifs = pd.DataFrame(
        {"regulon": ["A(+)", "A(+)", "A(-)"], "tf": "A", "targets": ["B,C", "B,A", "D"]}
    )
    edges = make_edges("A", "ABCD", [[0, 3.5, 1.0, 0.5]])
    assert regulons.build_motif_regulons(motifs, edges).to_dict("list") == {
        "regulon": ["A(+)", "A(+)", "A(+)", "A(-)"], "tf": ["A"] * 4,
        "target": ["A", "B", "C", "D"], "weight": [1.0, 3.5, 1.0, 0.5],
    }  # fmt: skip


def test_runs_without_an_enriched_motif_have_no_regulon():
    motifs = pd.DataFrame(columns=["regulon", "tf", "targets"], dtype=object)
    edges = make_edges("A", "B", [[1.0]])
    empty = regulons.build_motif_regulons(motifs, edges)
    assert empty.empty
    with pytest.raises(InputError, match="no regulon has 2 targets in any of 2 runs"):
        regulons.build_consensus({"1": empty, "2": empty}, 1, 2)


NAN = np.nan
EDGES = make_edges("AB", "wxyz", [[5, 4, 3, 2], [1, 0, 0, 0]])


def evidence(edges, correlation, score, p):
    """Merged edges of two runs, each with these edges."""
    arrays = (np.array(rows, dtype=np.float32) for rows in (correlation, score, p))
    n_runs = np.where(edges.importance > 0, 2, 0).astype(np.int16)
    return MergedEdges(*vars(edges).values(), n_runs, *arrays)


EVIDENCE = evidence(
    EDGES,
    [[0.5, -0.4, 0.3, 0.01], [0.2, NAN, NAN, NAN]],
    [[3, 3, -3, 3], [NAN] * 4],
    [[0.01, 0.01, 0.01, 0.2], [NAN] * 4],
)


def test_modules_take_the_strongest_of_each_sign():
    both = regulons.take_strongest_targets(EDGES, EVIDENCE.correlation, 2, True)
    assert both[["regulon", "tf", "target", "weight"]].values.tolist() == [
        ["A(+)", "A", "w", 5.0], ["A(+)", "A", "y", 3.0], ["B(+)", "B", "w", 1.0],
        ["A(-)", "A", "x", 4.0],
    ]  # fmt: skip
    activated = regulons.take_strongest_targets(EDGES, EVIDENCE.correlation, 1, False)
    assert activated[["regulon", "target"]].values.tolist() == [["A(+)", "w"], ["B(+)", "w"]]


def test_chromatin_keeps_what_it_supports_and_what_it_cannot_tell():
    modules = regulons.take_strongest_targets(EDGES, EVIDENCE.correlation, 5, True)
    kept = regulons.keep_supported(modules, EVIDENCE, 0.05)
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
    kept = regulons.build_consensus(RUNS, 2, 2)
    assert kept["regulon"].unique().tolist() == ["A(+)"]
    assert dict(zip(kept["target"], kept["n_runs"], strict=True)) == {"w": 3, "x": 3, "y": 2}
    with pytest.raises(InputError, match="found in 3 of 3 runs"):
        regulons.build_consensus(RUNS, 3, 3)


def test_stability_compares_all_edges_and_each_kept_regulon():
    table = regulons.compare_runs_by_regulon(RUNS, regulons.build_consensus(RUNS, 2, 2))
    assert table["what"].unique().tolist() == ["regulons' edges", "A(+)"]
    one = table[(table["what"] == "A(+)") & (table["run_b"] == "2")]
    assert one["jaccard"].tolist() == [3 / 5]


# Two runs and one without some cells.
ADJACENCIES = {
    "1": make_edges("AB", "wxy", [[9, 7, 5], [3, 0, 0]]),
    "2": make_edges("AB", "wxy", [[8, 6, 0], [4, 1, 0]]),
    LEFT_OUT: make_edges("AB", "wxy", [[0, 2, 1], [0, 0, 3]]),
}
# The edge of B and y is in none of the first two.
MERGED = evidence(
    make_edges("AB", "wxy", [[1, 1, 1], [1, 1, 0]]),
    [[0.5, 0.5, 0.5], [0.5, -0.5, NAN]],
    [[2, 2, 2], [-2, 0, NAN]],
    [[0.01, 0.3, NAN], [0.01, NAN, NAN]],
)
CHOICES = {"n_targets": 2, "repressing": False, "min_runs": 2, "min_targets": 1}


def test_regulons_without_motifs_are_the_strongest_targets_of_both_runs():
    found, stability = regulons.find_regulons(ADJACENCIES, MERGED, None, promoter_p=None, **CHOICES)
    # Of A the two strongest targets of each run, w and x; B's x is repressed. The run without some
    # cells has A's x and y and no say.
    assert found[["regulon", "target", "weight", "n_runs"]].values.tolist() == [
        ["A(+)", "w", 8.5, 2], ["A(+)", "x", 6.5, 2], ["B(+)", "w", 3.5, 2]
    ]  # fmt: skip
    assert found["promoter_score"].tolist() == [2.0, 2.0, -2.0]
    pairs = stability.set_index(["what", "run_a", "run_b"])["jaccard"]
    # Three targets have 15 strongest edges at most, so all count: 3 of 5 are in both runs.
    assert pairs["strongest edges", "1", "2"] == 3 / 5
    assert pairs["strongest edges", "1", LEFT_OUT] == 2 / 5
    assert pairs["regulons' edges", "1", "2"] == 1.0
    assert pairs["regulons' edges", "2", LEFT_OUT] == 1 / 4
    assert pairs["A(+)", "1", LEFT_OUT] == 1 / 3
    assert pairs["B(+)", "1", LEFT_OUT] == 0.0


def test_promoters_prune_each_run_before_the_consensus():
    found, _ = regulons.find_regulons(ADJACENCIES, MERGED, None, promoter_p=0.05, **CHOICES)
    # x is not supported, and w's promoter closes with B.
    assert found[["regulon", "target"]].values.tolist() == [["A(+)", "w"]]


def test_regulons_of_motifs_take_their_targets_from_the_motifs():
    motifs = {
        name: pd.DataFrame({"regulon": ["B(+)"], "tf": ["B"], "targets": ["w,x"]})
        for name in ADJACENCIES
    }
    found, _ = regulons.find_regulons(ADJACENCIES, MERGED, motifs, promoter_p=None, **CHOICES)
    # x is an edge of B in run 2 alone; without one its weight in run 1 is 1.
    assert found[["regulon", "target", "weight"]].values.tolist() == [
        ["B(+)", "w", 3.5], ["B(+)", "x", 1.0]
    ]  # fmt: skip


def test_a_run_of_other_genes_than_the_merged_edges_is_refused():
    other = ADJACENCIES | {"2": make_edges("AB", "wyx", [[8, 6, 0], [4, 1, 0]])}
    with pytest.raises(InputError, match="GRN run 2: its TFs or targets"):
        regulons.find_regulons(other, MERGED, None, promoter_p=None, **CHOICES)


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
    found = activity.aucell(sparse.csr_matrix(values), genes, table, 0.2, 1)["R(+)"]
    ranks = 100 - values[:, [3, 50, 99]]  # 0 is the best
    recovered = (ranks[:, :, None] <= np.arange(19)).sum((1, 2))
    np.testing.assert_allclose(found, recovered / (20 * 3))
    with pytest.raises(InputError, match="aucell_threshold"):
        activity.aucell(sparse.csr_matrix(values), genes, table, 0.01, 1)


def test_chunks_do_not_change_activities(monkeypatch):
    values = sparse.random(50, 40, 0.3, format="csr", random_state=0)
    genes = [f"g{i}" for i in range(40)]
    table = pd.DataFrame({"regulon": ["A(+)"] * 3 + ["B(-)"], "target": genes[:4]})
    whole = activity.aucell(values, genes, table, 0.25, 1)
    monkeypatch.setattr(activity, "CELLS_AT_ONCE", 7)
    pd.testing.assert_frame_equal(whole, activity.aucell(values, genes, table, 0.25, 1))


def test_specificity_is_one_for_a_label_of_its_own():
    values = pd.DataFrame({"own": [1.0, 1, 0, 0, 9], "even": 1.0, "silent": 0.0})
    labels = pd.Series(["a", "a", "b", "b", None])
    found = activity.regulon_specificity(values, labels)
    assert found.loc["a", "own"] == pytest.approx(1) and found.loc["b", "own"] < 0.2
    assert found.loc["a", "even"] == pytest.approx(found.loc["b", "even"])
    assert found["silent"].isna().all()


@pytest.fixture
def corpus_of_three_genes(tmp_path):
    """Two cells, of symbols a, b and a again; the first cell expresses a most, the second b."""
    genes = {"symbol": ["a", "b", "a"], "is_tf": False, "length": 1000, "n_tss": 1}
    cells = ad.AnnData(
        sparse.csr_matrix([[4, 2, 0], [1, 2, 9]]),
        obs=pd.DataFrame(
            {"sample": "S", "barcode": ["1", "2"], "promoter_source": "none"},
            index=["S_1", "S_2"],
        ),
        var=pd.DataFrame(genes, index=["g1", "g2", "g3"]),
    )
    cells.layers["promoter"] = sparse.csr_matrix((2, 3), dtype=np.int32)
    return Corpus.write(tmp_path / "corpus", [cells])


def test_regulons_are_scored_by_the_first_gene_of_a_symbol(tmp_path, corpus_of_three_genes):
    table = pd.DataFrame({"regulon": ["A(+)", "B(+)"], "tf": ["A", "B"], "target": ["a", "b"]})
    activity.score_regulons(
        corpus_of_three_genes, tmp_path / "auc.zarr", ["a", "b"], table, threshold=1.0, seed=1
    )
    # One rank counts, of height 1 over at most 2: the second cell's best gene is b, for the a that
    # it expresses most is another gene.
    for scored in (
        ad.read_zarr(tmp_path / "auc.zarr"),
        activity.read_activity(tmp_path / "auc.zarr", corpus_of_three_genes, np.arange(2)),
    ):
        assert scored.X.tolist() == [[0.5, 0.0], [0.0, 0.5]]
        assert scored.var["n_targets"].tolist() == [1, 1] and list(scored.obs) == ["sample"]
        assert list(scored.obs_names) == ["S_1", "S_2"] and list(scored.var_names) == [
            "A(+)", "B(+)",
        ]  # fmt: skip


def test_activity_is_compared_by_the_first_label_that_the_cells_have(
    tmp_path, corpus_of_three_genes, monkeypatch
):
    table = pd.DataFrame({"regulon": ["A(+)", "B(+)"], "tf": ["A", "B"], "target": ["a", "b"]})
    path = tmp_path / "auc.zarr"
    activity.score_regulons(corpus_of_three_genes, path, ["a", "b"], table, threshold=1.0, seed=1)
    labels = pd.DataFrame({"sample": "S", "type": ["one", "two"]}, index=["S_1", "S_2"])
    corpus = corpus_of_three_genes
    by, cells = activity.draw_activity(path, corpus, labels, ["stage", "type"], seed=1)
    assert by == "type" and cells.obs["type"].tolist() == ["one", "two"]
    assert activity.draw_activity(path, corpus, labels, ["stage"], seed=1)[0] == "sample"
    monkeypatch.setattr(activity, "COMPARED", 1)
    assert activity.draw_activity(path, corpus, labels, ["type"], seed=1)[1].n_obs == 1


def test_activities_of_another_corpus_are_refused(tmp_path, corpus_of_three_genes):
    corpus = corpus_of_three_genes
    table = pd.DataFrame({"regulon": ["A(+)"], "tf": ["A"], "target": ["a"]})
    activity.score_regulons(corpus, tmp_path / "auc.zarr", ["a", "b"], table, threshold=1.0, seed=1)
    corpus.id = "another"
    with pytest.raises(InputError, match=r"auc\.zarr: was computed from another corpus"):
        activity.read_activity(tmp_path / "auc.zarr", corpus, np.arange(2))


def test_specificities_are_listed_highest_first():
    specificity = pd.DataFrame({"A(+)": [0.2, 0.9], "B(+)": [0.4, 0.1]}, index=["one", "two"])
    assert activity.specificity_table(specificity, "type").values.tolist() == [
        ["one", "B(+)", 0.4], ["one", "A(+)", 0.2], ["two", "A(+)", 0.9], ["two", "B(+)", 0.1]
    ]  # fmt: skip
