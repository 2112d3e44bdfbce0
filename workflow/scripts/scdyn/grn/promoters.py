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
    scores : ndarray of float32, (TFs, genes)
        Positive where the promoter is open in cells that express the TF.
    p_values : ndarray of float32, (TFs, genes)
        Two-sided permutation p-values. The null distribution is the scores of all pairs after the
        promoters were shuffled between cells. Both are NaN where a promoter is open in fewer than
        :data:`MIN_OPEN_CELLS` cells.
    """
    n_cells, n_tfs = tf_values.shape
    scores, p_values = np.full((2, n_tfs, promoters.shape[1]), np.nan, dtype=np.float32)
    tested = np.flatnonzero(promoters.getnnz(0) >= MIN_OPEN_CELLS)
    if not len(tested):
        return scores, p_values
    ridge = Ridge.decompose(standardise_ranks(tf_values))
    parts = np.split(tested, range(GENES_AT_ONCE, len(tested), GENES_AT_ONCE))
    covariances = np.concatenate(
        [ridge.covariances(standardise_ranks(promoters[:, part].toarray())) for part in parts], 1
    )
    penalty = ridge.choose_penalty(covariances, np.ones(len(tested), bool)) * PENALTY_SHARE
    del covariances
    rng = np.random.default_rng(seed)
    orders = [np.arange(n_cells), *(shuffle_within(samples, rng) for _ in range(N_SHUFFLES))]
    null = np.empty((len(tested), N_SHUFFLES, n_tfs), dtype=np.float32)
    done = 0
    for part in parts:
        ranks = standardise_ranks(promoters[:, part].toarray())
        # The true order of the cells and the shuffled ones, in one matrix.
        drawn = ridge.covariances(np.concatenate([ranks[order] for order in orders], 1))
        found = ridge.scores(drawn, np.full(drawn.shape[1], -1), penalty)
        found = found.reshape(n_tfs, len(orders), len(part))
        scores[:, part] = found[:, 0]
        null[done : done + len(part)] = np.abs(found[:, 1:]).transpose(2, 1, 0)
        done += len(part)
    ordered = null.ravel()
    ordered.sort()
    beyond = len(ordered) - np.searchsorted(ordered, np.abs(scores[:, tested]))
    p_values[:, tested] = (1 + beyond) / (1 + len(ordered))
    return scores, p_values
