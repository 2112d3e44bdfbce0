"""Rankings of all genes for each class: by attribution, by a linear model, by a test."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

from scdyn.data.corpus import Corpus
from scdyn.pp.wilcoxon import compare_groups, draw_groups

RANKING = ["class", "gene_id", "symbol", "is_tf", "score"]


def attribution_ranking(attributions: pd.DataFrame, cells: ad.AnnData) -> pd.DataFrame:
    """Rank genes by discriminative specificity over both modalities, as evidence by presence.

    That a gene is silent can be evidence for a class, too. Genes whose mean RNA is not higher in
    the class than in the cells of all other classes are put last: the range of the specificities of
    both modalities together is subtracted from theirs.

    Parameters
    ----------
    attributions
        As :func:`scdyn.explain.attribution_tables.attribution_table`.
    cells
        Of :func:`read_compared_cells`.
    """
    both = attributions[attributions["modality"] == "both"]
    higher = find_higher(cells).stack().rename("higher").rename_axis(["class", "gene_id"])
    is_higher = both.join(higher, on=["class", "gene_id"])["higher"].fillna(False).astype(bool)
    specificity = both["specificity"]
    below = specificity.max() - specificity.min() + 1
    score = specificity.where(is_higher, specificity - below)
    return both.assign(score=score)[RANKING]


def find_higher(cells: ad.AnnData) -> pd.DataFrame:
    """Tell which genes have a higher mean RNA in a class than in all others: (classes, genes)."""
    values, label = cells.layers["rna_log"], cells.obs["class"].astype(str).to_numpy()
    found = {}
    for name in np.unique(label):
        own = label == name
        means = [np.asarray(values[rows].mean(0)).ravel() for rows in (own, ~own)]
        found[name] = means[0] > means[1]
    return pd.DataFrame.from_dict(found, orient="index", columns=cells.var_names)


def weight_ranking(weights: pd.DataFrame, genes: pd.DataFrame) -> pd.DataFrame:
    """Rank genes by logistic regression: the larger of the two modalities' mean weights."""
    mean = weights.groupby(["class", "gene_id"])[["rna", "promoter"]].mean().max(axis=1)
    table = mean.rename("score").reset_index().merge(genes, on="gene_id")
    return table[RANKING]


def read_compared_cells(corpus: Corpus, label: pd.Series, seed: int) -> ad.AnnData:
    """Read the RNA of the cells that Wilcoxon's test compares.

    Parameters
    ----------
    corpus
        The cells.
    label
        Class of each labelled cell.
    seed
        Seed of :func:`scdyn.pp.wilcoxon.draw_groups`, which draws cells of each class.

    Returns
    -------
    AnnData
        ``layers["rna_log"]``, and the label as ``class`` in ``obs``.
    """
    label = label.iloc[draw_groups(label, seed)]
    cells = corpus.to_memory(corpus.find_rows(label.index), ["rna_log"])
    cells.obs["class"] = pd.Categorical(label.to_numpy())
    return cells


def wilcoxon_ranking(cells: ad.AnnData) -> pd.DataFrame:
    """Rank genes by Wilcoxon's rank-sum test of RNA in each class against all others.

    Parameters
    ----------
    cells
        Of :func:`read_compared_cells`.
    """
    ranks = compare_groups(cells.layers["rna_log"], cells.var_names, cells.obs["class"].array)
    ranks = ranks.merge(cells.var[["symbol", "is_tf"]], left_on="gene_id", right_index=True)
    return ranks.rename(columns={"group": "class"})[RANKING]
