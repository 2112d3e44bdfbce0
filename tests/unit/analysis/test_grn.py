"""Inference by ridge, edges over several runs, their signs, and what the chromatin says."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import kstest

from scdyn.errors import InputError
from scdyn.grn import consensus
from scdyn.grn import inference as grn_inference
from scdyn.grn.expression import Expression, standardise_ranks
from scdyn.grn.promoters import promoter_evidence
from scdyn.grn.ridge import Ridge


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
    best = edges.sort_values("importance").groupby("target").tail(1)
    genes = best[best["target"].str.startswith("G")]
    right = genes["TF"].str[1:].astype(int) == genes["target"].str[1:].astype(int) % 6
    assert np.mean(right) > 0.9
    assert (edges["TF"] != edges["target"]).all()


def test_runs_differ_by_their_seed_and_are_the_same_twice():
    expression = simulated()
    one, again, other = (
        grn_inference.infer_edges(expression, range(36), "fast", seed) for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(one, again)
    assert not one.equals(other)


def test_a_run_that_leaves_cells_out_draws_the_others_as_the_run_with_them():
    whole = grn_inference.draw_run_cells(1000, 3, 0.0, 0.9)
    lacking = grn_inference.draw_run_cells(1000, 3, 0.01, 0.9)
    assert len(whole) == 900 and set(lacking) < set(whole)
    assert 880 <= len(lacking) < 900
    assert len(grn_inference.draw_run_cells(1000, 3, 0.0, 1.0)) == 1000


def test_parts_hold_every_gene_once():
    parts = [grn_inference.select_targets(10, number, 3) for number in (1, 2, 3)]
    assert sorted(np.concatenate(parts)) == list(range(10))


def test_a_matrix_without_tfs_or_targets_is_refused():
    expression = simulated()
    none = Expression(expression.genes, np.zeros(36, dtype=bool), expression.values)
    with pytest.raises(InputError, match="is a TF"):
        grn_inference.infer_edges(none, range(36), "fast", 1)
    every = Expression(expression.genes, np.ones(36, dtype=bool), expression.values)
    with pytest.raises(InputError, match="no gene other than TFs varies"):
        grn_inference.infer_edges(every, range(36), "fast", 1)


RUNS = {
    "1": pd.DataFrame({"TF": ["A", "A"], "target": ["B", "C"], "importance": [4.0, 2.0]}),
    "2": pd.DataFrame({"TF": ["A", "B"], "target": ["B", "C"], "importance": [6.0, 1.0]}),
}
SMALL = Expression(
    ["A", "B", "C"],
    np.array([True, True, False]),
    sparse.csc_matrix([[0.0, 0, 3], [1, 2, 2], [2, 4, 1], [3, 6, 0]]),
)


def test_edges_are_averaged_over_all_runs():
    merged = consensus.merge_runs(RUNS, SMALL).set_index(["tf", "target"])
    assert merged["importance"].to_dict() == {("A", "B"): 5.0, ("A", "C"): 1.0, ("B", "C"): 0.5}
    assert merged["n_runs"].to_dict() == {("A", "B"): 2, ("A", "C"): 1, ("B", "C"): 1}


def test_an_empty_run_is_refused():
    with pytest.raises(InputError, match="run 2 found no edge"):
        consensus.merge_runs({**RUNS, "2": RUNS["2"].iloc[:0]}, SMALL)


@pytest.mark.parametrize("masked", [False, True])
def test_correlations_are_pearsons(masked):
    expression = simulated(n_cells=60)
    values = expression.values.toarray()
    found = consensus.correlate_tfs(expression, masked)
    for tf, gene in ((0, 7), (3, 20), (5, 1)):
        both = (values[:, tf] > 0) & (values[:, gene] > 0) if masked else slice(None)
        expected = np.corrcoef(values[both, tf], values[both, gene])[0, 1]
        assert found[tf, gene] == pytest.approx(expected, rel=1e-5)


def test_strongest_edges_of_runs_are_compared():
    runs = {name: run.rename(columns={"TF": "tf"}) for name, run in RUNS.items()}
    sets = {name: consensus.select_strongest(run, 2) for name, run in runs.items()}
    table = consensus.compare_runs(sets, "edges")
    assert table["jaccard"].tolist() == [pytest.approx(1 / 3)]
    assert consensus.compare_runs({"1": sets["1"]}, "edges").empty


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
    edges = consensus.describe_edges(
        consensus.merge_runs(RUNS, SMALL), SMALL, False, SMALL.values, np.repeat("a", 4), none, 0
    )
    assert edges["promoter_p"].isna().all() and edges["correlation"].notna().all()


def test_merged_edges_have_their_promoters_evidence_where_it_is_asked_for():
    expression = simulated()
    closed = sparse.csc_matrix((400, 6))
    cells = ad.AnnData(
        expression.values.tocsr(),
        obs=pd.DataFrame({"sample": "a", "promoters_measured": True}, index=map(str, range(400))),
        layers={"promoter_log": sparse.hstack([closed, promoters_of(expression, True)]).tocsr()},
    )
    runs = {"1": pd.DataFrame({"TF": ["T0", "T0"], "target": ["G0", "T1"], "importance": [4, 2]})}
    asked = {"mask_dropouts": False, "seed": 0}
    edges = consensus.merge_adjacencies(runs, expression, cells, promoters=True, **asked)
    merged = consensus.merge_runs(runs, expression)
    pd.testing.assert_frame_equal(edges[list(merged)], merged)
    # G0 depends on T0; the promoter of T1 is closed in all cells.
    assert edges["promoter_p"].iloc[0] < 0.01 and np.isnan(edges["promoter_p"].iloc[1])
    assert edges["correlation"].iloc[0] > 0.5
    edges = consensus.merge_adjacencies(runs, expression, cells, promoters=False, **asked)
    assert edges["promoter_p"].isna().all() and edges["correlation"].notna().all()
