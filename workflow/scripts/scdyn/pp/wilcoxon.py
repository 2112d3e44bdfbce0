"""Groups of cells compared gene by gene: Wilcoxon's rank-sum test."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

# Most cells per group, and of all groups, that are compared.
MAX_PER_GROUP, MAX_CELLS = 2000, 40_000


def draw_groups(groups: pd.Series, seed: int) -> np.ndarray:
    """Draw the cells for :func:`compare_groups`, as many of each group or all of a smaller one.

    Parameters
    ----------
    groups
        (cells,) names.
    seed
        Seed of the draw.

    Returns
    -------
    ndarray
        Rows of at most :data:`MAX_PER_GROUP` cells per group, fewer if all groups would have more
        than :data:`MAX_CELLS`; ascending.
    """
    rng = np.random.default_rng(seed)
    places = groups.reset_index(drop=True).groupby(groups.to_numpy(), sort=True).indices.values()
    most = min(MAX_PER_GROUP, MAX_CELLS // len(places))
    drawn = [
        rng.choice(of_group, most, replace=False) if len(of_group) > most else of_group
        for of_group in places
    ]
    return np.sort(np.concatenate(drawn))


def compare_groups(
    values: sparse.csr_matrix,
    genes: pd.Index,
    groups: pd.Categorical,
    *,
    tested: Sequence[str] | None = None,
    reference: str = "rest",
    tie_correct: bool = False,
) -> pd.DataFrame:
    """Compare the values of groups of cells, gene by gene, by scanpy's rank-sum test.

    Parameters
    ----------
    values
        (cells, genes), log-normalised.
    genes
        (genes,) names, unique.
    groups
        (cells,) names.
    tested
        The groups that are compared; all if None.
    reference
        With which group they are compared; "rest" is all other cells.
    tie_correct
        Whether ties reduce the variance of the rank sum.

    Returns
    -------
    DataFrame
        ``group``, ``gene_id``, ``score`` (z), ``log2_fold_change``, ``p_value``: group by group,
        highest score first.
    """
    import scanpy as sc  # the torch environment scores ablations and has none

    obs = pd.DataFrame({"group": groups}, index=np.arange(len(groups)).astype(str))
    table = ad.AnnData(values, obs=obs, var=pd.DataFrame(index=genes))
    sc.tl.rank_genes_groups(
        table, "group", groups=tested or "all", reference=reference, method="wilcoxon",
        tie_correct=tie_correct, use_raw=False,
    )  # fmt: skip
    parts = [
        sc.get.rank_genes_groups_df(table, group).assign(group=group)
        for group in table.uns["rank_genes_groups"]["names"].dtype.names
    ]
    names = {
        "names": "gene_id",
        "scores": "score",
        "logfoldchanges": "log2_fold_change",
        "pvals": "p_value",
    }
    return pd.concat(parts, ignore_index=True)[["group", *names]].rename(columns=names)
