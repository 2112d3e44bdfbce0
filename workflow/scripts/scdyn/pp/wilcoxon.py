"""Groups of cells compared gene by gene: Wilcoxon's rank-sum test."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse


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
