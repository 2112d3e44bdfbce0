"""Methods of GRN inference that ``make bench-grn`` compares.

Each takes the expression of all genes and returns a score per (TF, gene). ``fast`` is the
workflow's default; ``grnboost2`` runs as in pySCENIC, by arboreto's multiprocessing runner.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from scdyn.grn import inference as grn_inference
from scdyn.grn import ridge as grn_ridge
from scdyn.grn.consensus import merge_runs
from scdyn.grn.expression import Expression, standardise_ranks

SPLINE_KNOTS = 2
LIGHTGBM_ROUNDS = 100


def as_matrix(edges: pd.DataFrame, expression: Expression) -> np.ndarray:
    """Convert edges to a matrix, (TFs, genes), zero for missing edges."""
    column = pd.Series(np.arange(len(expression.genes)), index=expression.genes)
    row = pd.Series(np.arange(len(expression.tfs)), index=column.index[expression.tfs])
    scores = np.zeros((len(row), len(column)))
    at = row[edges["TF"]].to_numpy(), column[edges["target"]].to_numpy()
    np.add.at(scores, at, edges["importance"].to_numpy())
    return scores


def grnboost2(expression: Expression, path: Path) -> np.ndarray:
    """Score by GRNBoost2 with arboreto's runner and two processes."""
    with tempfile.TemporaryDirectory() as folder:
        tfs, found = Path(folder) / "tfs.txt", Path(folder) / "edges.tsv"
        tfs.write_text("\n".join(expression.genes[i] for i in expression.tfs))
        subprocess.run(
            [
                "arboreto_with_multiprocessing.py", path.with_suffix(".loom"), tfs, "--method",
                "grnboost2", "--seed", "1", "--num_workers", "2", "--output", found,
            ],
            check=True, capture_output=True,
        )  # fmt: skip
        return as_matrix(pd.read_csv(found, sep="\t"), expression)


def fast(expression: Expression, _: Path) -> np.ndarray:
    """Score by one run of the workflow's ridge, on nine of ten cells."""
    return grn_inference.infer_edges(expression, range(len(expression.genes)), "fast", 1).importance


def fast_of_five(expression: Expression, _: Path) -> np.ndarray:
    """Score by the mean of five runs, as in the workflow."""
    genes = range(len(expression.genes))
    runs = {str(i): grn_inference.infer_edges(expression, genes, "fast", i) for i in range(1, 6)}
    return merge_runs(runs, expression)[0]


def run_with_penalty_share(expression: Expression, share: float) -> np.ndarray:
    """Score by one run with another share of the penalty with the best prediction."""
    before = grn_inference.PENALTY_SHARE
    grn_inference.PENALTY_SHARE = share
    try:
        return fast(expression, Path())
    finally:
        grn_inference.PENALTY_SHARE = before


def correlation(expression: Expression, _: Path) -> np.ndarray:
    """Score by absolute Pearson correlation."""
    values = expression.values.toarray().astype(np.float64)
    values = (values - values.mean(0)) / np.maximum(values.std(0), 1e-12)
    return np.abs(values[:, expression.tfs].T @ values) / len(values)


def rank_correlation(expression: Expression, _: Path) -> np.ndarray:
    """Score by absolute Spearman correlation."""
    ranks = standardise_ranks(expression.values.toarray())
    return np.abs(ranks[:, expression.tfs].T @ ranks) / len(ranks)


def make_spline_basis(values: np.ndarray) -> np.ndarray:
    """Make an orthonormal basis of one TF: rank, detection, hinges; (cells, 2 + knots)."""
    ranks = standardise_ranks(values[:, None])[:, 0].astype(np.float64)
    knots = np.quantile(ranks[values > 0], np.linspace(0, 1, SPLINE_KNOTS + 2)[1:-1])
    hinges = [np.maximum(ranks - knot, 0) for knot in knots]
    basis = np.stack([ranks, (values > 0).astype(float), *hinges], 1)
    left, sizes, _ = np.linalg.svd(basis - basis.mean(0), full_matrices=False)
    return left * (sizes > 1e-6 * sizes[0]) * np.sqrt(len(values))


def spline(expression: Expression, _: Path) -> np.ndarray:
    """Score by the block Wald statistic per TF in an additive spline with pooled GCV."""
    tfs = expression.dense(expression.tfs)
    blocks = np.concatenate([make_spline_basis(column) for column in tfs.T], 1)
    size = SPLINE_KNOTS + 2
    ridge = grn_ridge.Ridge.decompose(blocks)
    targets = standardise_ranks(expression.values.toarray())
    covariances = ridge.covariances(targets)
    penalty = ridge.choose_penalty(covariances, targets.any(0) & ~expression.is_tf)
    penalty *= grn_ridge.PENALTY_SHARE
    inverse = (ridge.eigenvectors / (ridge.eigenvalues + penalty)) @ ridge.eigenvectors.T
    matrix = (ridge.eigenvectors * ridge.eigenvalues) @ ridge.eigenvectors.T
    freedom = (ridge.eigenvalues / (ridge.eigenvalues + penalty)).sum()
    scores = np.zeros((len(expression.tfs), len(expression.genes)))
    of_tf = np.arange(len(scores) * size).reshape(-1, size)
    for gene in range(scores.shape[1]):
        here, used = inverse, of_tf
        own = np.flatnonzero(expression.tfs == gene)
        if len(own):  # a TF is not a predictor of itself
            out = of_tf[own[0]]
            solved = np.linalg.solve(inverse[np.ix_(out, out)], inverse[out])
            here, used = inverse - inverse[:, out] @ solved, np.delete(of_tf, own, 0)
        keep = used.ravel()
        beta = here[np.ix_(keep, keep)] @ covariances[keep, gene]
        fitted = beta @ (2 * covariances[keep, gene] - matrix[np.ix_(keep, keep)] @ beta)
        noise = max(1 - fitted, 1e-9) / max(1 - freedom / len(blocks), 1e-3)
        parts = beta.reshape(-1, size)
        inner = here[used[:, :, None], used[:, None, :]] + 1e-9 * np.eye(size)
        wald = np.einsum("jk,jk->j", parts, np.linalg.solve(inner, parts[..., None])[..., 0])
        scores[np.isin(np.arange(len(scores)), own, invert=True), gene] = wald / noise
    return scores * len(blocks)


def lightgbm(expression: Expression, _: Path) -> np.ndarray:
    """Score by histogram boosting with GRNBoost2's depth and shares of features and cells."""
    import lightgbm as lgb

    settings = {
        "learning_rate": 0.1, "max_depth": 3, "num_leaves": 8, "min_data_in_leaf": 5,
        "feature_fraction": 0.1, "bagging_fraction": 0.9, "bagging_freq": 1, "max_bin": 63,
        "num_threads": 2, "seed": 1, "verbose": -1,
    }  # fmt: skip
    tfs = expression.dense(expression.tfs)
    scores = np.zeros((len(expression.tfs), len(expression.genes)))
    for gene in range(scores.shape[1]):
        used = np.flatnonzero(expression.tfs != gene)
        target = expression.dense([gene])[:, 0]
        table = lgb.Dataset(tfs[:, used], target, params=settings)
        booster = lgb.train(settings, table, LIGHTGBM_ROUNDS)
        scores[used, gene] = booster.feature_importance("gain") / max(target.var(), 1e-9)
    return scores


CANDIDATES = {
    "grnboost2": grnboost2,
    "fast": fast,
    "fast_of_five": fast_of_five,
    "fast_penalty_of_gcv": lambda e, _: run_with_penalty_share(e, 1.0),
    "fast_penalty_tenth": lambda e, _: run_with_penalty_share(e, 0.1),
    "correlation": correlation,
    "rank_correlation": rank_correlation,
    "spline": spline,
    "lightgbm": lightgbm,
}
