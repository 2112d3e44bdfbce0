"""Edges of a gene regulatory network: mean of several runs, sign, and promoter evidence."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from scdyn.errors import InputError
from scdyn.grn.expression import Expression
from scdyn.grn.promoters import promoter_evidence
from scdyn.log import logger

if TYPE_CHECKING:  # the inference's environment has no anndata
    from anndata import AnnData

# The strongest edges, this many per gene on average, are compared between runs.
TOP_EDGES_PER_GENE = 5


def correlate_tfs(expression: Expression, mask_dropouts: bool) -> np.ndarray:
    """Correlate the TFs with all genes (Pearson); the sign of an edge follows from it.

    Parameters
    ----------
    expression
        Cells and genes.
    mask_dropouts
        Leave out, per pair, the cells in which the TF or the gene is not detected (as pySCENIC's
        ``--mask_dropouts``).

    Returns
    -------
    ndarray, (TFs, genes)
        Zero where a variance is zero.
    """
    values = expression.values.astype(np.float64)
    squares = values.multiply(values).tocsc()
    tfs = expression.tfs
    products = (values[:, tfs].T @ values).toarray()
    if mask_dropouts:
        ones = values.copy()
        ones.data = np.ones_like(ones.data)
        n = (ones[:, tfs].T @ ones).toarray()
        x, y = (values[:, tfs].T @ ones).toarray(), (ones[:, tfs].T @ values).toarray()
        xx, yy = (squares[:, tfs].T @ ones).toarray(), (ones[:, tfs].T @ squares).toarray()
    else:
        n = values.shape[0]
        y, yy = (np.asarray(matrix.sum(0)) for matrix in (values, squares))
        x, xx = (sums.ravel()[tfs][:, None] for sums in (y, yy))
    spread = (n * xx - x**2) * (n * yy - y**2)
    return (n * products - x * y) / np.sqrt(np.where(spread > 1e-9, spread, np.inf))


def merge_runs(runs: Mapping[str, pd.DataFrame], expression: Expression) -> pd.DataFrame:
    """Average the edges of several runs.

    Parameters
    ----------
    runs
        Edges by run: ``TF``, ``target``, ``importance``.
    expression
        Genes and TFs of the runs.

    Returns
    -------
    DataFrame
        ``tf``, ``target``, ``importance`` (mean over runs, 0 in a run without the edge),
        ``n_runs`` (runs with the edge); strongest first.

    Raises
    ------
    InputError
        If a run has no edge.
    """
    genes = np.array(expression.genes)
    column = pd.Series(np.arange(len(genes)), index=genes)
    row = pd.Series(np.arange(len(expression.tfs)), index=genes[expression.tfs])
    importance = np.zeros((len(row), len(column)))
    n_runs = np.zeros(importance.shape, dtype=np.int16)
    for name, run in runs.items():
        if run.empty:
            raise InputError("REGULONS", f"GRN run {name} found no edge; see its log.")
        at = row[run["TF"]].to_numpy(), column[run["target"]].to_numpy()
        importance[at] += run["importance"].to_numpy()
        n_runs[at] += 1
    tf, target = np.nonzero(n_runs)
    merged = pd.DataFrame(
        {
            "tf": genes[expression.tfs[tf]],
            "target": genes[target],
            "importance": importance[tf, target] / len(runs),
            "n_runs": n_runs[tf, target],
        }
    )
    order = ["importance", "tf", "target"]
    return merged.sort_values(order, ascending=[False, True, True]).reset_index(drop=True)


def describe_edges(
    edges: pd.DataFrame,
    expression: Expression,
    mask_dropouts: bool,
    promoters: sparse.spmatrix | None,
    samples: np.ndarray,
    measured: np.ndarray,
    seed: int,
) -> pd.DataFrame:
    """Add correlation and promoter evidence to each edge.

    Parameters
    ----------
    edges
        ``tf``, ``target``.
    expression
        The cells and genes.
    mask_dropouts
        As :func:`correlate_tfs`.
    promoters
        Promoter accessibility of the same cells and genes, sparse; None for no evidence.
    samples
        (cells,) names.
    measured
        (cells,) whether promoters were measured.
    seed
        Seed of the shuffles of :func:`scdyn.grn.promoters.promoter_evidence`.

    Returns
    -------
    DataFrame
        ``edges`` with ``correlation``, ``promoter_score`` and ``promoter_p`` (NaN where not
        tested).
    """
    column = pd.Series(np.arange(len(expression.genes)), index=expression.genes)
    row = pd.Series(np.arange(len(expression.tfs)), index=column.index[expression.tfs])
    at = row[edges["tf"]].to_numpy(), column[edges["target"]].to_numpy()
    scores = p_values = np.full((len(row), len(column)), np.nan)
    if promoters is not None and measured.any():
        tf_values = expression.dense(expression.tfs)[measured]
        scores, p_values = promoter_evidence(
            tf_values, promoters.tocsr()[measured].tocsc(), samples[measured], seed
        )
    return edges.assign(
        correlation=correlate_tfs(expression, mask_dropouts)[at],
        promoter_score=scores[at],
        promoter_p=p_values[at],
    )


def merge_adjacencies(
    runs: Mapping[str, pd.DataFrame],
    expression: Expression,
    cells: AnnData,
    *,
    mask_dropouts: bool,
    promoters: bool,
    seed: int,
) -> pd.DataFrame:
    """Average the edges of several runs, and add correlation and promoter evidence.

    Parameters
    ----------
    runs
        Edges by run: ``TF``, ``target``, ``importance``.
    expression
        Genes and TFs of the runs.
    cells
        The same cells and genes, as :func:`scdyn.grn.cells.write_expression` wrote them:
        ``layers["promoter_log"]``, ``obs`` with ``sample`` and ``promoters_measured``.
    mask_dropouts
        As :func:`correlate_tfs`.
    promoters
        Whether promoter accessibility is used as evidence.
    seed
        Seed of the shuffles of :func:`scdyn.grn.promoters.promoter_evidence`.

    Returns
    -------
    DataFrame
        The columns of :func:`merge_runs` and of :func:`describe_edges`.
    """
    edges = describe_edges(
        merge_runs(runs, expression),
        expression,
        mask_dropouts,
        cells.layers["promoter_log"] if promoters else None,
        cells.obs["sample"].astype(str).to_numpy(),
        cells.obs["promoters_measured"].to_numpy(),
        seed,
    )
    n_tested = int(edges["promoter_p"].notna().sum())
    logger.info(
        "%d edges of %d runs; promoter accessibility tested for %d", len(edges), len(runs), n_tested
    )
    return edges


def select_strongest(run: pd.DataFrame, n_edges: int) -> set[tuple[str, str]]:
    """Select the ``n_edges`` strongest edges (tf, target) of a run."""
    top = run.nlargest(n_edges, "importance")
    return set(top[["tf", "target"]].itertuples(index=False, name=None))


def compare_runs(sets: Mapping[str, set], what: str) -> pd.DataFrame:
    """Compare the results of each pair of runs.

    Parameters
    ----------
    sets
        Set of edges or targets by run.
    what
        Name of these sets.

    Returns
    -------
    DataFrame
        ``what``, ``run_a``, ``run_b``, ``n_a``, ``n_b``, ``jaccard``; empty for a single run.
    """
    rows = [
        (what, a, b, len(sets[a]), len(sets[b]), jaccard(sets[a], sets[b]))
        for a, b in combinations(sets, 2)
    ]
    return pd.DataFrame(rows, columns=["what", "run_a", "run_b", "n_a", "n_b", "jaccard"])


def jaccard(a: set, b: set) -> float:
    """Compute the Jaccard index of two sets; NaN if both are empty."""
    return len(a & b) / len(a | b) if a or b else float("nan")
