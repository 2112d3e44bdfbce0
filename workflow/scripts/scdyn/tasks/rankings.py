"""Rankings of all genes for each class: by attribution, by a linear model, by a test."""

from __future__ import annotations

import anndata as ad
import pandas as pd

from scdyn.pp.wilcoxon import compare_groups

RANKING = ["class", "gene_id", "symbol", "is_tf", "score"]


def attribution_ranking(attributions: pd.DataFrame) -> pd.DataFrame:
    """Rank genes by discriminative specificity over both modalities."""
    both = attributions[attributions["modality"] == "both"]
    return both.rename(columns={"specificity": "score"})[["class", "symbol", "is_tf", "score"]]


def weight_ranking(weights: pd.DataFrame, genes: pd.DataFrame) -> pd.DataFrame:
    """Rank genes by logistic regression: the larger of the two modalities' mean weights."""
    mean = weights.groupby(["class", "gene_id"])[["rna", "promoter"]].mean().max(axis=1)
    table = mean.rename("score").reset_index().merge(genes, on="gene_id")
    return table[RANKING]


def wilcoxon_ranking(cells: ad.AnnData, label: pd.Series) -> pd.DataFrame:
    """Rank genes by Wilcoxon's rank-sum test of RNA in each class against all others."""
    values = cells[label.index].layers["rna_log"]
    ranks = compare_groups(values, cells.var_names, pd.Categorical(label.to_numpy()))
    ranks = ranks.merge(cells.var[["symbol", "is_tf"]], left_on="gene_id", right_index=True)
    return ranks.rename(columns={"group": "class"})[RANKING]
