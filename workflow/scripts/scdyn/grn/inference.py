"""GRN inference: regress each gene on all TFs, by arboreto or by :mod:`scdyn.grn.ridge`.

Arboreto's ``core`` functions are called directly, so that jobs can share the genes; together they
give the edges of ``pyscenic grn`` with the same matrix and seed. Arboreto's Dask runner is not
used, because it hangs or fails with current versions of Dask.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from scdyn.errors import InputError
from scdyn.grn.edges import Edges
from scdyn.grn.expression import Expression, read_expression, standardise_ranks
from scdyn.grn.ridge import GENES_AT_ONCE, PENALTY_SHARE, Ridge
from scdyn.log import PROGRESS_SECONDS, format_duration, logger

# Share of the cells, sampled with the run's seed, that a run of the ridge uses: the share that each
# tree of GRNBoost2 uses.
SHARE_OF_CELLS = 0.9
# A smaller absolute score of the ridge (coefficient over standard error) is no edge: these are most
# pairs of TF and gene, and hardly change the regulons.
WEAKEST_SCORE = 1.0
PILOT_GENES = 8


def select_targets(n_genes: int, number: int, n_parts: int) -> np.ndarray:
    """Select every ``n_parts``-th gene from ``number`` (1 to n_parts): equal work per part."""
    return np.arange(number - 1, n_genes, n_parts)


def join_parts(parts: Sequence[Edges]) -> Edges:
    """Join the edges to the genes that :func:`select_targets` selected for each part.

    Parameters
    ----------
    parts
        All parts of a run, in the order of their numbers.

    Returns
    -------
    Edges
        The targets are in the order of the genes.
    """
    n_genes = sum(len(part.targets) for part in parts)
    columns = [select_targets(n_genes, i + 1, len(parts)) for i in range(len(parts))]
    order = np.argsort(np.concatenate(columns))
    targets = np.concatenate([part.targets for part in parts])[order]
    importance = np.concatenate([part.importance for part in parts], axis=1)[:, order]
    return Edges(parts[0].tfs, targets, importance)


def draw_run_cells(n_cells: int, seed: int, left_out: float, share: float) -> np.ndarray:
    """Sample the cells of a run.

    Parameters
    ----------
    n_cells
        Number of cells.
    seed
        Seed of the run. Runs with the same seed and another ``left_out`` differ only by the cells
        that are left out.
    left_out
        Share of the cells that are left out.
    share
        Share of the other cells that the run uses.

    Returns
    -------
    ndarray
        Rows, ascending.
    """
    rng = np.random.default_rng(seed)
    chance = rng.permutation(n_cells) / n_cells
    stay = rng.permutation(n_cells) / n_cells
    return np.flatnonzero((chance < share) & (stay >= left_out))


def infer_with_arboreto(
    expression: Expression, targets: Sequence[int], method: str, seed: int
) -> Iterator[np.ndarray]:
    """Infer edges by arboreto, one gene at a time.

    Parameters
    ----------
    expression
        Cells and genes.
    targets
        Columns of the target genes.
    method
        ``grnboost2`` (Moerman et al. 2019) or ``genie3`` (Huynh-Thu et al. 2010), with the
        parameters of pySCENIC.
    seed
        Seed of each regression.

    Yields
    ------
    ndarray, (TFs, 1)
        Importance of each TF for one target, 0 where there is no edge.

    Raises
    ------
    InputError
        If a gene's regression fails.
    """
    from arboreto import core

    methods = {"grnboost2": ("GBM", core.SGBM_KWARGS), "genie3": ("RF", core.RF_KWARGS)}
    regressor, settings = methods[method]
    tf_matrix = expression.dense(expression.tfs)
    tf_names = expression.tf_names.tolist()
    for column in targets:
        name, values = expression.genes[column], expression.dense([column])[:, 0]
        found = core.infer_partial_network(
            regressor, settings, tf_matrix, tf_names, name, values, seed=seed
        )
        # Arboreto returns this constant for a gene whose regression failed ten times.
        if found is core._GRN_SCHEMA:
            raise InputError("REGULONS", f"the regression of gene {name} failed; see the log.")
        of_tf = found.set_index("TF")["importance"].reindex(tf_names, fill_value=0.0)
        yield of_tf.to_numpy()[:, None]


def infer_with_ridge(expression: Expression, targets: Sequence[int]) -> Iterator[np.ndarray]:
    """Infer edges by :mod:`scdyn.grn.ridge`, several hundred genes at a time.

    Yields
    ------
    ndarray, (TFs, some targets)
        Importance (Wald statistic) of each TF for the next targets; 0, no edge, where the absolute
        score is below :data:`WEAKEST_SCORE`.
    """
    ridge = Ridge.decompose(standardise_ranks(expression.dense(expression.tfs)))
    covariances = np.empty((len(expression.tfs), len(expression.genes)))
    varies = np.empty(len(expression.genes), dtype=bool)
    for start in range(0, len(varies), GENES_AT_ONCE):
        part = np.arange(start, min(start + GENES_AT_ONCE, len(varies)))
        ranks = standardise_ranks(expression.dense(part))
        covariances[:, part], varies[part] = ridge.covariances(ranks), ranks.any(0)
    penalty = ridge.choose_penalty(covariances, varies & ~expression.is_tf) * PENALTY_SHARE
    logger.info("ridge of %d TFs with penalty %.3g", len(expression.tfs), penalty)
    own = np.full(len(varies), -1)
    own[expression.tfs] = np.arange(len(expression.tfs))
    for start in range(0, len(targets), GENES_AT_ONCE):
        part = np.asarray(targets[start : start + GENES_AT_ONCE])
        scores = ridge.scores(covariances[:, part], own[part], penalty)
        yield np.where(np.abs(scores) >= WEAKEST_SCORE, scores**2, 0)


def infer_edges(
    expression: Expression, targets: Sequence[int], method: str, seed: int, left_out: float = 0.0
) -> Edges:
    """Infer the edges from TFs to target genes.

    Parameters
    ----------
    expression
        Cells and genes; a gene is never its own regulator.
    targets
        Columns of the target genes.
    method
        ``fast`` (:mod:`scdyn.grn.ridge`), ``grnboost2`` or ``genie3`` (arboreto).
    seed
        Seed of the run.
    left_out
        Share of the cells that are left out, to measure how robust the edges are.

    Returns
    -------
    Edges
        To these targets.

    Raises
    ------
    InputError
        If there is no TF, or a gene's regression fails.
    """
    if not len(expression.tfs):
        raise InputError("TFS", f"none of the {len(expression.genes)} genes is a TF.")
    share = SHARE_OF_CELLS if method == "fast" else 1.0
    rows = draw_run_cells(expression.values.shape[0], seed, left_out, share)
    seen = Expression(expression.genes, expression.is_tf, expression.values[rows])
    arguments = (seen, targets)
    found = (
        infer_with_ridge(*arguments)
        if method == "fast"
        else infer_with_arboreto(*arguments, method, seed)
    )
    importance, n_done = np.zeros((len(expression.tfs), len(targets)), dtype=np.float32), 0
    begun = logged = time.monotonic()
    for part in found:
        importance[:, n_done : n_done + part.shape[1]] = part
        n_done += part.shape[1]
        if time.monotonic() - logged > PROGRESS_SECONDS:
            logged = time.monotonic()
            left = (logged - begun) / n_done * (len(targets) - n_done)
            logger.info("%d of %d genes, %s left", n_done, len(targets), format_duration(left))
    return Edges(expression.tf_names, np.array(expression.genes)[list(targets)], importance)


def require_edges(edges: Edges, run: str, corpus: str) -> None:
    """Refuse a run without edges.

    Raises
    ------
    InputError
        If there is no edge.
    """
    if not edges.importance.any():
        raise InputError(
            "REGULONS",
            f"GRN run {run} of corpus {corpus} found no edge from a TF to a gene; check the "
            "counts, and use more cells (grn.max_cells).",
        )


def run_pilot(
    path: str | Path, method: str, seed: int, n_runs: int, n_parts: int
) -> dict[str, float]:
    """Time the inference of a few genes, and estimate time and memory of all runs.

    Parameters
    ----------
    path
        The expression matrix.
    method, seed
        As :func:`infer_edges`.
    n_runs, n_parts
        Number of runs, and of jobs that share the genes of a run.

    Returns
    -------
    dict
        ``n_genes``, ``n_tfs``, ``n_cells``, ``seconds_to_begin`` (reading the matrix),
        ``seconds_a_gene``, ``job_minutes``, ``job_memory_mb`` and ``core_hours`` (all runs).
    """
    begun = time.monotonic()
    expression = read_expression(path)
    read = time.monotonic()
    n_genes = len(expression.genes)
    # The time of the ridge depends on the TFs, hardly on the number of genes: run it on all genes.
    n_pilot = n_genes if method == "fast" else min(PILOT_GENES, n_genes)
    # Genes from rarely to often detected, because boosting takes longer on the latter.
    order = np.argsort(expression.values.getnnz(0), kind="stable")
    targets = order[np.linspace(0, n_genes - 1, n_pilot).astype(int)]
    infer_edges(expression, targets, method, seed)
    seconds_per_gene = (time.monotonic() - read) / n_pilot
    n_of_job = -(-n_genes // n_parts)
    seconds = read - begun + seconds_per_gene * n_of_job
    importance_mb = len(expression.tfs) * n_of_job * np.dtype(np.float32).itemsize / 1e6
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {
        "n_genes": n_genes,
        "n_tfs": len(expression.tfs),
        "n_cells": expression.values.shape[0],
        "seconds_to_begin": read - begun,
        "seconds_a_gene": seconds_per_gene,
        "job_minutes": seconds / 60,
        "job_memory_mb": peak_mb + importance_mb,
        "core_hours": seconds * n_parts * n_runs / 3600,
    }
    logger.info(
        "GRN inference (%s) of %d genes from %d TFs in %d cells will take about %s on one core: "
        "%d jobs of %s and %.1f GB each",
        *(method, found["n_genes"], found["n_tfs"], found["n_cells"]),
        format_duration(3600 * found["core_hours"]),
        *(n_runs * n_parts, format_duration(60 * found["job_minutes"])),
        found["job_memory_mb"] / 1000,
    )
    return found
