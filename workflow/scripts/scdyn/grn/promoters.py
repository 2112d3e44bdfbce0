"""Chromatin as evidence of an edge: is the target's promoter open where the TF is expressed?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse

from scdyn.grn.expression import standardise_ranks
from scdyn.grn.ridge import GENES_AT_ONCE, PENALTY_SHARE, Ridge

# Times that promoters are shuffled. A pair of TF and gene is a draw from the null, so that a few
# are many.
N_SHUFFLES = 5
# Fewest cells in which a promoter must be open for it to be asked anything.
MIN_OPEN_CELLS = 10


def shuffle_within(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Permute rows among those of their own group: (rows,) of int."""
    order = np.arange(len(groups))
    for members in pd.Series(order).groupby(groups).indices.values():
        order[members] = rng.permutation(members)
    return order


def promoter_evidence(
    tf_values: np.ndarray, promoters: sparse.csc_matrix, samples: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Relate each promoter's accessibility to the expression of all TFs.

    A promoter's ranks are regressed on those of the TFs' RNA (:class:`scdyn.grn.ridge.Ridge`): a
    TF must answer for what the others do not explain. Plain correlation would call open every
    promoter of a cell type in which a TF is expressed (docs/grn.md).

    Parameters
    ----------
    tf_values
        RNA of the TFs, log-normalised, (cells, TFs).
    promoters
        Accessibility, log-normalised, (cells, genes); of cells in which it was measured.
    samples
        (cells,) names; cells are shuffled within a sample only.
    seed
        Of the shuffles.

    Returns
    -------
    tuple
        Scores, (TFs, genes): positive where the promoter is open in cells that express the TF;
        and two-sided permutation p-values, against the scores of all pairs over shuffles in
        which whole cells' promoters change places. Both NaN where a promoter is open in fewer
        than ``MIN_OPEN_CELLS`` cells.
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
