"""Promoter accessibility as evidence of an edge: the promoter is open where the TF is expressed."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse

from scdyn.grn.expression import standardise_ranks
from scdyn.grn.ridge import GENES_AT_ONCE, PENALTY_SHARE, Ridge

# Each shuffle yields n_tfs x n_genes null scores, so a few shuffles suffice.
N_SHUFFLES = 5
# Promoters open in fewer cells are not tested.
MIN_OPEN_CELLS = 10


def shuffle_within(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Permute rows within their group: (rows,) of int."""
    order = np.arange(len(groups))
    for members in pd.Series(order).groupby(groups).indices.values():
        order[members] = rng.permutation(members)
    return order


def promoter_evidence(
    tf_values: np.ndarray, promoters: sparse.csc_matrix, samples: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Test each TF's expression for association with each promoter's accessibility.

    The ranks of a promoter are regressed on those of the TFs' RNA (:class:`scdyn.grn.ridge.Ridge`),
    so that each TF is scored given all others. A correlation would associate a TF with all
    promoters that are open in the cell types that express it (docs/grn.md).

    Parameters
    ----------
    tf_values
        RNA of the TFs, log-normalised, (cells, TFs).
    promoters
        Accessibility, log-normalised, (cells, genes); of cells in which it was measured.
    samples
        (cells,) names; cells are shuffled within a sample.
    seed
        Seed of the shuffles.

    Returns
    -------
    scores : ndarray, (TFs, genes)
        Positive where the promoter is open in cells that express the TF.
    p_values : ndarray, (TFs, genes)
        Two-sided permutation p-values. The null distribution is the scores of all pairs after the
        promoters were shuffled between cells. Both are NaN where a promoter is open in fewer than
        :data:`MIN_OPEN_CELLS` cells.
    """
    n_genes = promoters.shape[1]
    ridge = Ridge.decompose(standardise_ranks(tf_values))
    covariances = np.empty((tf_values.shape[1], n_genes))
    rng = np.random.default_rng(seed)
    orders = [shuffle_within(samples, rng) for _ in range(N_SHUFFLES)]
    null_covariances = np.empty((N_SHUFFLES, *covariances.shape))
    for start in range(0, n_genes, GENES_AT_ONCE):
        part = slice(start, min(start + GENES_AT_ONCE, n_genes))
        ranks = standardise_ranks(promoters[:, part].toarray())
        covariances[:, part] = ridge.covariances(ranks)
        for i, order in enumerate(orders):
            null_covariances[i, :, part] = ridge.covariances(ranks[order])
    tested = promoters.getnnz(0) >= MIN_OPEN_CELLS
    scores, p_values = np.full((2, *covariances.shape), np.nan)
    if not tested.any():
        return scores, p_values
    penalty = ridge.choose_penalty(covariances, tested) * PENALTY_SHARE
    none = np.full(tested.sum(), -1)
    scores[:, tested] = ridge.scores(covariances[:, tested], none, penalty)
    draws = [ridge.scores(table[:, tested], none, penalty).ravel() for table in null_covariances]
    null = np.sort(np.abs(np.concatenate(draws)).astype(np.float32))
    beyond = len(null) - np.searchsorted(null, np.abs(scores[:, tested]).astype(np.float32))
    p_values[:, tested] = (1 + beyond) / (1 + len(null))
    return scores, p_values
