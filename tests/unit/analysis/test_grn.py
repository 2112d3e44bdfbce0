"""Inference by ridge, edges over several runs, their signs, and what the chromatin says."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import kstest
from small_edges import make_edges

from scdyn.errors import InputError
from scdyn.grn import consensus
from scdyn.grn import edges as grn_edges
from scdyn.grn import inference as grn_inference
from scdyn.grn import promoters as grn_promoters
from scdyn.grn.edges import Edges, MergedEdges
from scdyn.grn.expression import Expression, standardise_ranks
from scdyn.grn.promoters import promoter_evidence
from scdyn.grn.ridge import Ridge
from scdyn.io.files import write_table, write_table_by_parts


def simulated(n_cells=400, n_tfs=6, n_genes=30, seed=0):
    """TFs that go together in pairs; gene i depends on TF i mod n_tfs only."""
    rng = np.random.default_rng(seed)
    shared = np.repeat(rng.normal(size=(n_cells, n_tfs // 2)), 2, axis=1)
    tfs = shared + rng.normal(size=(n_cells, n_tfs))
    genes = tfs[:, np.arange(n_genes) % n_tfs] + rng.normal(size=(n_cells, n_genes))
    genes[:, 1::2] *= -1  # every other TF represses
    values = np.maximum(np.hstack([tfs, genes]) + 1.5, 0).astype(np.float32)
    names = [f"T{i}" for i in range(n_tfs)] + [f"G{i}" for i in range(n_genes)]
    return Expression(names, np.arange(len(names)) < n_tfs, sparse.csc_matrix(values))


def by_hand(regulators, target, penalty):
    """Ridge regression of one target, scored as :meth:`Ridge.scores` says."""
    n, p = regulators.shape
    matrix = regulators.T.astype(float) @ regulators / n
    inverse = np.linalg.inv(matrix + penalty * np.eye(p))
    coefficients = inverse @ (regulators.T @ target / n)
    residual = target - regulators @ coefficients
    noise = np.mean(residual**2) / (1 - np.trace(matrix @ inverse) / n)
    return coefficients / np.sqrt(noise * np.diag(inverse) / n)


def test_ridge_scores_are_those_of_a_regression_a_gene():
    expression = simulated()
    tfs = standardise_ranks(expression.dense(expression.tfs))
    targets = standardise_ranks(expression.dense(range(36)))
    ridge = Ridge.decompose(tfs)
    own = np.where(np.arange(36) < 6, np.arange(36), -1)
    scores = ridge.scores(ridge.covariances(targets), own, 0.3)
    for gene in (7, 20, 35):
        expected = by_hand(tfs, targets[:, gene].astype(float), 0.3)
        np.testing.assert_allclose(scores[:, gene], expected, rtol=1e-4)
    # A TF's regressors are the other TFs.
    others = np.delete(np.arange(6), 2)
    expected = by_hand(tfs[:, others], targets[:, 2].astype(float), 0.3)
    np.testing.assert_allclose(scores[others, 2], expected, rtol=1e-4)
    assert scores[2, 2] == 0


def test_the_penalty_is_that_of_least_generalised_cross_validation():
    expression = simulated(n_cells=80)
    tfs = standardise_ranks(expression.dense(expression.tfs)).astype(float)
    targets = standardise_ranks(expression.dense(range(6, 36))).astype(float)
    ridge = Ridge.decompose(tfs.astype(np.float32))
    chosen = ridge.choose_penalty(ridge.covariances(targets), np.ones(30, dtype=bool))

    def score(penalty):
        hat = tfs @ np.linalg.solve(tfs.T @ tfs / 80 + penalty * np.eye(6), tfs.T / 80)
        return np.mean((targets - hat @ targets) ** 2) / (1 - np.trace(hat) / 80) ** 2

    assert score(chosen) <= min(score(chosen * 1.8), score(chosen / 1.8))


def test_the_ridge_finds_regulators_that_correlation_confuses():
    edges = grn_inference.infer_edges(simulated(), range(36), "fast", 1)
    assert edges.tfs.tolist() == [f"T{i}" for i in range(6)] and edges.targets[6] == "G0"
    assert np.mean(edges.importance[:, 6:].argmax(0) == np.arange(30) % 6) > 0.9
    assert (np.diag(edges.importance) == 0).all()
    # Either a score of at least 1, or no edge.
    assert edges.importance[edges.importance > 0].min() >= 1


def test_runs_differ_by_their_seed_and_are_the_same_twice():
    expression = simulated()
    one, again, other = (
        grn_inference.infer_edges(expression, range(36), "fast", seed) for seed in (1, 1, 2)
    )
    assert np.array_equal(one.importance, again.importance)
    assert not np.array_equal(one.importance, other.importance)


def test_a_run_that_leaves_cells_out_draws_the_others_as_the_run_with_them():
    whole = grn_inference.draw_run_cells(1000, 3, 0.0, 0.9)
    lacking = grn_inference.draw_run_cells(1000, 3, 0.01, 0.9)
    assert len(whole) == 900 and set(lacking) < set(whole)
    assert 880 <= len(lacking) < 900
    assert len(grn_inference.draw_run_cells(1000, 3, 0.0, 1.0)) == 1000


def test_parts_hold_every_gene_once():
    parts = [grn_inference.select_targets(10, number, 3) for number in (1, 2, 3)]
    assert sorted(np.concatenate(parts)) == list(range(10))


def test_parts_together_are_the_whole_in_the_order_of_the_genes():
    expression = simulated()
    whole = grn_inference.infer_edges(expression, range(36), "fast", 1)
    parts = [
        grn_inference.infer_edges(expression, grn_inference.select_targets(36, n, 5), "fast", 1)
        for n in range(1, 6)
    ]
    joined = grn_inference.join_parts(parts)
    assert joined.tfs.tolist() == whole.tfs.tolist()
    assert joined.targets.tolist() == whole.targets.tolist()
    np.testing.assert_allclose(joined.importance, whole.importance, rtol=1e-6)


def test_a_gene_that_does_not_vary_has_no_edge():
    values = simulated().values.toarray()
    values[:, [2, 9]] = 3.0  # a TF and another gene
    expression = Expression(simulated().genes, simulated().is_tf, sparse.csc_matrix(values))
    edges = grn_inference.infer_edges(expression, range(36), "fast", 1)
    assert not edges.importance[:, [2, 9]].any() and not edges.importance[2].any()
    assert edges.importance[0].any() and np.isfinite(edges.importance).all()


def test_a_run_without_any_edge_is_refused():
    none = make_edges("AB", "ABC", np.zeros((2, 3)))
    with pytest.raises(InputError, match="run 1 of corpus c found no edge"):
        grn_inference.require_edges(none, "1", "c")


def test_edges_are_read_as_they_were_written(tmp_path):
    edges = make_edges("AB", ["A", "Bcd", "é"], [[0, 4, 2], [0.1, 0, 1]])
    edges.write(tmp_path / "edges.npz")
    found = Edges.read(tmp_path / "edges.npz")
    assert found.tfs.tolist() == ["A", "B"] and found.targets.tolist() == ["A", "Bcd", "é"]
    assert found.importance.dtype == np.float32
    assert np.array_equal(found.importance, edges.importance)
    # The memory of a job follows from the size of the file.
    large = Edges(edges.tfs, np.array([f"{i}" for i in range(9999)]), np.zeros((2, 9999), "f4"))
    large.write(tmp_path / "large.npz")
    assert (tmp_path / "large.npz").stat().st_size > large.importance.nbytes


def test_merged_edges_are_not_taken_for_those_of_a_run(tmp_path):
    make_edges("A", "AB", [[0, 1]]).write(tmp_path / "edges.npz")
    with pytest.raises(InputError, match="edges.npz: was changed or truncated .*n_runs"):
        MergedEdges.read(tmp_path / "edges.npz")


def test_ranks_are_of_the_largest_first_and_of_equal_ones_the_first_first():
    values = np.array([[3.0, 5, 3, 0], [4.0, 0, 3, 9]])
    assert grn_edges.rank_edges(values, 1).tolist() == [[1, 0, 2, 3], [1, 3, 2, 0]]
    assert grn_edges.rank_edges(values, 0).tolist() == [[1, 0, 0, 1], [0, 1, 1, 0]]


def test_a_matrix_without_tfs_or_targets_is_refused():
    expression = simulated()
    none = Expression(expression.genes, np.zeros(36, dtype=bool), expression.values)
    with pytest.raises(InputError, match="is a TF"):
        grn_inference.infer_edges(none, range(36), "fast", 1)
    every = Expression(expression.genes, np.ones(36, dtype=bool), expression.values)
    with pytest.raises(InputError, match="no gene other than TFs varies"):
        grn_inference.infer_edges(every, range(36), "fast", 1)


RUNS = {
    "1": make_edges("AB", "ABC", [[0, 4, 2], [0, 0, 0]]),
    "2": make_edges("AB", "ABC", [[0, 6, 0], [0, 0, 1]]),
}
SMALL = Expression(
    ["A", "B", "C"],
    np.array([True, True, False]),
    sparse.csc_matrix([[0.0, 0, 3], [1, 2, 2], [2, 4, 1], [3, 6, 0]]),
)


def test_edges_are_averaged_over_all_runs():
    importance, n_runs = consensus.merge_runs(RUNS, SMALL)
    assert importance.tolist() == [[0, 5, 1], [0, 0, 0.5]] and importance.dtype == np.float32
    assert n_runs.tolist() == [[0, 2, 1], [0, 0, 1]]


def test_an_empty_run_is_refused():
    none = make_edges("AB", "ABC", np.zeros((2, 3)))
    with pytest.raises(InputError, match="run 2 found no edge"):
        consensus.merge_runs({**RUNS, "2": none}, SMALL)


@pytest.mark.parametrize("tfs, targets", [("AB", "ACB"), ("BA", "ABC"), ("AB", "ABCD")])
def test_a_run_of_other_genes_is_refused(tfs, targets):
    other = make_edges(tfs, targets, np.ones((len(tfs), len(targets))))
    with pytest.raises(InputError, match="GRN run 2: its TFs or targets are not those"):
        consensus.merge_runs({**RUNS, "2": other}, SMALL)


@pytest.mark.parametrize("masked", [False, True])
def test_correlations_are_pearsons(masked):
    expression = simulated(n_cells=60)
    values = expression.values.toarray()
    found = consensus.correlate_tfs(expression, masked)
    for tf, gene in ((0, 7), (3, 20), (5, 1)):
        both = (values[:, tf] > 0) & (values[:, gene] > 0) if masked else slice(None)
        expected = np.corrcoef(values[both, tf], values[both, gene])[0, 1]
        assert found[tf, gene] == pytest.approx(expected, rel=1e-5)


def test_correlations_are_the_same_whatever_is_in_memory_at_once(monkeypatch):
    expression = simulated(n_cells=60)
    whole = consensus.correlate_tfs(expression, True)
    monkeypatch.setattr(consensus, "GENES_AT_ONCE", 7)
    np.testing.assert_allclose(consensus.correlate_tfs(expression, True), whole, rtol=1e-6)


def test_strongest_edges_of_runs_are_compared():
    sets = {name: consensus.select_strongest(run, 2) for name, run in RUNS.items()}
    assert sets == {"1": {1, 2}, "2": {1, 5}}
    table = consensus.compare_runs(sets, "edges")
    assert table["jaccard"].tolist() == [pytest.approx(1 / 3)]
    assert consensus.compare_runs({"1": sets["1"]}, "edges").empty
    # What is no edge is not among them.
    assert consensus.select_strongest(RUNS["1"], 5) == {1, 2}


def promoters_of(expression, follow, seed=0):
    """Promoters that open with the TF of their gene, or by chance."""
    rng = np.random.default_rng(seed)
    tfs = expression.dense(expression.tfs)
    drive = tfs[:, np.arange(30) % 6] if follow else np.ones((len(tfs), 30))
    return sparse.csc_matrix(rng.poisson(0.4 * drive).astype(np.float32))


def test_promoters_that_follow_a_tf_are_evidence_of_it():
    expression = simulated()
    samples = np.repeat(["a", "b"], 200)
    scores, p = promoter_evidence(
        expression.dense(expression.tfs), promoters_of(expression, True), samples, 0
    )
    true = (np.arange(30) % 6, np.arange(30))
    partner = (np.arange(30) % 6 ^ 1, np.arange(30))  # goes with the TF, does nothing
    assert (scores[true] > 0).all() and (p[true] < 0.01).mean() > 0.9
    assert (p[partner] < 0.01).mean() < 0.2


def test_without_any_relation_the_p_values_are_uniform():
    expression = simulated()
    samples = np.repeat(["a", "b"], 200)
    _, p = promoter_evidence(
        expression.dense(expression.tfs), promoters_of(expression, False), samples, 0
    )
    assert kstest(p.ravel(), "uniform").pvalue > 0.01


def test_closed_promoters_and_rna_only_cells_tell_nothing():
    expression = simulated()
    closed = promoters_of(expression, True).tolil()
    closed[:, 3] = 0
    scores, p = promoter_evidence(
        expression.dense(expression.tfs), closed.tocsc(), np.repeat("a", 400), 0
    )
    assert np.isnan(p[:, 3]).all() and np.isnan(scores[:, 3]).all()
    assert np.isfinite(np.delete(p, 3, axis=1)).all()
    none = np.zeros(4, dtype=bool)
    found = consensus.compute_evidence(SMALL, False, SMALL.values, np.repeat("a", 4), none, 0)
    assert np.isnan(found["promoter_p"]).all() and np.isfinite(found["correlation"]).all()
    nothing = sparse.csc_matrix((400, 30))
    _, p = promoter_evidence(expression.dense(expression.tfs), nothing, np.repeat("a", 400), 0)
    assert np.isnan(p).all()


def test_evidence_is_the_same_whatever_is_in_memory_at_once(monkeypatch):
    expression = simulated()
    arguments = (
        expression.dense(expression.tfs), promoters_of(expression, True), np.repeat("a", 400), 0
    )  # fmt: skip
    whole = promoter_evidence(*arguments)
    monkeypatch.setattr(grn_promoters, "GENES_AT_ONCE", 7)
    for one, other in zip(whole, promoter_evidence(*arguments), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_merged_edges_have_their_promoters_evidence_where_it_is_asked_for():
    expression = simulated()
    closed = sparse.csc_matrix((400, 6))
    cells = ad.AnnData(
        expression.values.tocsr(),
        obs=pd.DataFrame({"sample": "a", "promoters_measured": True}, index=map(str, range(400))),
        layers={"promoter_log": sparse.hstack([closed, promoters_of(expression, True)]).tocsr()},
    )
    importance = np.zeros((6, 36))
    importance[0, 6], importance[0, 1] = 4, 2  # of T0 to G0 and T1
    runs = {"1": Edges(expression.tf_names, np.array(expression.genes), importance)}
    asked = {"mask_dropouts": False, "seed": 0}
    merged = consensus.merge_adjacencies(runs, expression, cells, promoters=True, **asked)
    edges = pd.concat(merged.iter_tables())
    assert edges[["tf", "target", "importance", "n_runs"]].values.tolist() == [
        ["T0", "G0", 4, 1], ["T0", "T1", 2, 1]
    ]  # fmt: skip
    # G0 depends on T0; the promoter of T1 is closed in all cells.
    assert edges["promoter_p"].iloc[0] < 0.01 and np.isnan(edges["promoter_p"].iloc[1])
    assert edges["correlation"].iloc[0] > 0.5
    # No evidence where there is no edge.
    assert np.isfinite(merged.correlation).sum() == 2 and np.isfinite(merged.promoter_p).sum() == 1
    merged = consensus.merge_adjacencies(runs, expression, cells, promoters=False, **asked)
    edges = pd.concat(merged.iter_tables())
    assert edges["promoter_p"].isna().all() and edges["correlation"].notna().all()


def test_a_table_of_edges_is_sorted_and_the_same_in_parts(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    importance = rng.integers(0, 4, (3, 20)).astype(np.float32)  # many are equal
    evidence = rng.random((3, 3, 20)).astype(np.float32)
    n_runs = (importance > 0).astype(np.int16)
    names = np.array(["C", "A", "B"]), np.array([f"g{i}" for i in rng.permutation(20)])
    merged = MergedEdges(*names, importance, n_runs, *evidence)
    (whole,) = merged.iter_tables()
    assert len(whole) == n_runs.sum()
    assert list(whole) == [
        "tf", "target", "importance", "n_runs", "correlation", "promoter_score", "promoter_p"
    ]  # fmt: skip
    order = ["importance", "tf", "target"]
    ordered = whole.sort_values(order, ascending=[False, True, True], ignore_index=True)
    pd.testing.assert_frame_equal(whole, ordered)
    row = whole.iloc[7]
    at = names[0].tolist().index(row["tf"]), names[1].tolist().index(row["target"])
    assert row["promoter_p"] == merged.promoter_p[at]
    write_table(tmp_path / "whole.tsv", whole)
    monkeypatch.setattr(grn_edges, "ROWS_AT_ONCE", 10)
    write_table_by_parts(tmp_path / "parts.tsv", merged.iter_tables())
    assert (tmp_path / "parts.tsv").read_bytes() == (tmp_path / "whole.tsv").read_bytes()
