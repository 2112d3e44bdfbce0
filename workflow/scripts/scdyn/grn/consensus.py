"""Edges of a gene regulatory network: mean of several runs, sign, and promoter evidence."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from scdyn.errors import InputError
from scdyn.grn.edges import Edges, MergedEdges
from scdyn.grn.expression import Expression
from scdyn.grn.promoters import promoter_evidence
from scdyn.grn.ridge import GENES_AT_ONCE
from scdyn.log import logger

if TYPE_CHECKING:  # the inference's environment has no anndata
    from anndata import AnnData

# Edges with a weaker correlation have no sign, as in pySCENIC (``add_correlation``).
MIN_CORRELATION = 0.03
SIGNS = {1: "(+)", -1: "(-)"}
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
    ndarray of float32, (TFs, genes)
        Zero where a variance is zero. Computed for :data:`GENES_AT_ONCE` genes at a time, because
        each of its sums takes as much memory as two results.
    """
    n_genes = len(expression.genes)
    tfs = expression.dense(expression.tfs)
    found = np.empty((tfs.shape[1], n_genes), dtype=np.float32)
    for start in range(0, n_genes, GENES_AT_ONCE):
        part = np.arange(start, min(start + GENES_AT_ONCE, n_genes))
        found[:, part] = correlate_columns(tfs, expression.dense(part), mask_dropouts)
    return found


def correlate_columns(one: np.ndarray, other: np.ndarray, mask_zeros: bool) -> np.ndarray:
    """Correlate the columns of two matrices of the same rows (Pearson).

    Parameters
    ----------
    one, other
        (rows, m) and (rows, n).
    mask_zeros
        Leave out, per pair of columns, the rows in which either is zero.

    Returns
    -------
    ndarray of float64, (m, n)
        Zero where a variance is zero.
    """
    one, other = one.astype(np.float64), other.astype(np.float64)
    # Rows that count: per pair of columns, or all.
    seen = [np.sign(np.abs(m)) if mask_zeros else np.ones((len(m), 1)) for m in (one, other)]
    n = seen[0].T @ seen[1]
    x, xx = (values.T @ seen[1] for values in (one, one**2))
    y, yy = (seen[0].T @ values for values in (other, other**2))
    spread = (n * xx - x**2) * (n * yy - y**2)
    return (n * (one.T @ other) - x * y) / np.sqrt(np.where(spread > 1e-9, spread, np.inf))


def sign_edges(correlations: np.ndarray) -> np.ndarray:
    """Classify edges as activation (1), repression (-1) or neither (0) by correlation."""
    strong = np.abs(correlations) > MIN_CORRELATION
    return np.where(strong, np.sign(correlations), 0).astype(np.int8)


def merge_runs(runs: Mapping[str, Edges], expression: Expression) -> tuple[np.ndarray, np.ndarray]:
    """Average the edges of several runs.

    Parameters
    ----------
    runs
        Edges by run.
    expression
        Genes and TFs of the runs.

    Returns
    -------
    importance : ndarray of float32, (TFs, genes)
        Mean over runs, 0 in a run without the edge.
    n_runs : ndarray of int16, (TFs, genes)
        Number of runs with the edge.

    Raises
    ------
    InputError
        If a run has no edge, or other genes.
    """
    shape = len(expression.tfs), len(expression.genes)
    importance, n_runs = np.zeros(shape), np.zeros(shape, dtype=np.int16)
    for name, run in runs.items():
        run.require_genes(expression.tf_names, expression.genes, f"GRN run {name}")
        if not run.importance.any():
            raise InputError("REGULONS", f"GRN run {name} found no edge; see its log.")
        importance += run.importance
        n_runs += run.importance > 0
    return (importance / len(runs)).astype(np.float32), n_runs


def compute_evidence(
    expression: Expression,
    mask_dropouts: bool,
    promoters: sparse.spmatrix | None,
    samples: np.ndarray,
    measured: np.ndarray,
    seed: int,
) -> dict[str, np.ndarray]:
    """Compute correlation and promoter evidence of each pair of a TF and a gene.

    Parameters
    ----------
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
    dict of str to ndarray of float32, (TFs, genes)
        ``correlation``, ``promoter_score`` and ``promoter_p`` (NaN where not tested).
    """
    correlation = correlate_tfs(expression, mask_dropouts)
    scores = p_values = np.full_like(correlation, np.nan)
    if promoters is not None and measured.any():
        tf_values = expression.dense(expression.tfs)[measured]
        scores, p_values = promoter_evidence(
            tf_values, promoters.tocsr()[measured].tocsc(), samples[measured], seed
        )
    return {"correlation": correlation, "promoter_score": scores, "promoter_p": p_values}


def merge_adjacencies(
    runs: Mapping[str, Edges],
    expression: Expression,
    cells: AnnData,
    *,
    mask_dropouts: bool,
    promoters: bool,
    seed: int,
) -> MergedEdges:
    """Average the edges of several runs, and add correlation and promoter evidence.

    Parameters
    ----------
    runs
        Edges by run.
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
    MergedEdges
        Of :func:`merge_runs` and :func:`compute_evidence`.
    """
    importance, n_runs = merge_runs(runs, expression)
    evidence = compute_evidence(
        expression,
        mask_dropouts,
        cells.layers["promoter_log"] if promoters else None,
        cells.obs["sample"].astype(str).to_numpy(),
        cells.obs["promoters_measured"].to_numpy(),
        seed,
    )
    evidence = {name: np.where(n_runs > 0, values, np.nan) for name, values in evidence.items()}
    merged = MergedEdges(
        expression.tf_names, np.array(expression.genes), importance, n_runs, **evidence
    )
    logger.info(
        "%d edges of %d runs; promoter accessibility tested for %d",
        *(np.count_nonzero(n_runs), len(runs), np.isfinite(merged.promoter_p).sum()),
    )
    return merged


def select_strongest(edges: Edges, n_edges: int) -> set[int]:
    """Select the ``n_edges`` strongest edges of a run: their places in the flat array."""
    values = edges.importance.ravel()
    found = np.flatnonzero(values)
    return set(found[np.argsort(-values[found], kind="stable")[:n_edges]].tolist())


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
