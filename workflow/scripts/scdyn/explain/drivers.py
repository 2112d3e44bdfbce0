"""Rankings of genes by several methods, and the table of each class's drivers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anndata as ad
import numpy as np
import pandas as pd

from scdyn.data.corpus import Corpus
from scdyn.explain.gene_sets import gene_set_enrichment, regulon_attribution, regulon_members
from scdyn.tasks.rankings import (
    attribution_ranking,
    read_compared_cells,
    weight_ranking,
    wilcoxon_ranking,
)
from scdyn.tasks.splits import PREDICTED, require_cells


def rank_drivers(
    attributions: pd.DataFrame,
    weights: Sequence[pd.DataFrame],
    regulons: pd.DataFrame,
    sets: Mapping[str, set[str]],
    corpus: Corpus,
    splits: pd.DataFrame,
    *,
    seed: int,
) -> dict[str, pd.DataFrame]:
    """Rank genes, regulons and gene sets per class, and genes by baseline methods.

    Parameters
    ----------
    attributions
        As :func:`scdyn.explain.attribution_tables.attribution_table`.
    weights
        Each fold's weights of logistic regression.
    regulons
        ``regulon``, ``tf``, ``target``.
    sets
        Gene sets as :func:`scdyn.explain.gene_sets.read_gmt`; may be empty.
    corpus
        The cells.
    splits
        Of the task (:func:`scdyn.tasks.splits.read_splits`). Wilcoxon's test compares cells of
        explained classes that are in a fold, not predicted cells; of a large class a draw
        (:func:`scdyn.pp.wilcoxon.draw_groups`).
    seed
        Seed of the draw, and of the permutations of
        :func:`scdyn.explain.gene_sets.regulon_attribution`.

    Returns
    -------
    dict
        ``rankings`` (:func:`rankings_table`), ``regulons``
        (:func:`scdyn.explain.gene_sets.regulon_attribution`), ``gene_sets``
        (:func:`scdyn.explain.gene_sets.gene_set_enrichment`) and ``drivers``
        (:func:`drivers_table`).

    Raises
    ------
    InputError
        If the split is of another corpus, or no gene set has genes of the vocabulary.
    """
    require_cells(splits, corpus.obs.index)
    label = splits[splits["fold"] != PREDICTED].set_index("cell")["label"]
    cells = read_compared_cells(corpus, label[label.isin(attributions["class"])], seed)
    rankings = rankings_table(attributions, pd.concat(weights), cells)
    of_regulons = regulon_attribution(
        attributions, regulon_members(regulons), average_expression(cells), seed=seed
    )
    return {
        "rankings": rankings,
        "regulons": of_regulons,
        "gene_sets": gene_set_enrichment(attributions, sets),
        "drivers": drivers_table(attributions, rankings, regulons, of_regulons),
    }


def rankings_table(
    attributions: pd.DataFrame, weights: pd.DataFrame, cells: ad.AnnData
) -> pd.DataFrame:
    """Score all genes by attribution, logistic regression and Wilcoxon's test.

    Parameters
    ----------
    attributions
        As :func:`scdyn.explain.attribution_tables.attribution_table`.
    weights
        The folds' weights of logistic regression.
    cells
        Of :func:`scdyn.tasks.rankings.read_compared_cells`.

    Returns
    -------
    DataFrame
        ``class``, ``gene_id``, ``symbol``, ``is_tf``, ``attribution``
        (:func:`scdyn.tasks.rankings.attribution_ranking`), ``logistic_regression`` (weight),
        ``wilcoxon`` (z).
    """
    genes = cells.var.rename_axis("gene_id").reset_index()
    table = attribution_ranking(attributions, cells).rename(columns={"score": "attribution"})
    others = {
        "logistic_regression": weight_ranking(weights, genes),
        "wilcoxon": wilcoxon_ranking(cells),
    }
    for name, ranking in others.items():
        ranking = ranking.rename(columns={"score": name})[["class", "gene_id", name]]
        table = table.merge(ranking, on=["class", "gene_id"], how="left")
    return table.reset_index(drop=True)


def drivers_table(
    attributions: pd.DataFrame,
    rankings: pd.DataFrame,
    regulons: pd.DataFrame,
    regulon_scores: pd.DataFrame,
    n_genes: int = 50,
) -> pd.DataFrame:
    """Tabulate each class's best genes by attribution, with ranks by baselines and regulons.

    Parameters
    ----------
    attributions, rankings
        As :func:`scdyn.explain.attribution_tables.attribution_table` and :func:`rankings_table`.
    regulons
        ``regulon``, ``tf``, ``target``.
    regulon_scores
        As :func:`scdyn.explain.gene_sets.regulon_attribution`.
    n_genes
        Number of genes per class.

    Returns
    -------
    DataFrame
        The columns of ``attributions`` for both modalities combined; ``specificity_rna`` and
        ``specificity_promoter``; ``rank``, ``logistic_regression_rank`` and ``wilcoxon_rank`` among
        all genes; ``own_regulons`` (of a TF) and ``own_regulon_q`` (their smallest q);
        ``in_regulons`` (of which the gene is a target).
    """
    keys = ["class", "gene_id"]
    ranks = rankings.groupby("class")[["attribution", "logistic_regression", "wilcoxon"]].rank(
        ascending=False, method="min"
    )
    ranks = ranks.rename(columns=lambda name: f"{name}_rank").rename(
        columns={"attribution_rank": "rank"}
    )
    both = attributions[attributions["modality"] == "both"]
    table = both.merge(rankings[keys].join(ranks.astype("Int64")), on=keys, how="left")
    table = table.sort_values("rank", kind="stable").groupby("class").head(n_genes)
    table = table.sort_values(["class", "rank"], kind="stable")
    for modality in ("rna", "promoter"):
        part = attributions.loc[attributions["modality"] == modality, [*keys, "specificity"]]
        part = part.rename(columns={"specificity": f"specificity_{modality}"})
        table = table.merge(part, on=keys, how="left")
    owned = regulons.groupby("tf")["regulon"].agg(lambda names: ",".join(sorted(set(names))))
    within = regulons.groupby("target")["regulon"].agg(lambda names: ",".join(sorted(set(names))))
    table["own_regulons"] = table["symbol"].map(owned).fillna("")
    tf_of = regulons.drop_duplicates("regulon").set_index("regulon")["tf"]
    best = regulon_scores.assign(symbol=regulon_scores["regulon"].map(tf_of))
    best = best.groupby(["class", "symbol"])["q"].min().rename("own_regulon_q").reset_index()
    table = table.merge(best, on=["class", "symbol"], how="left")
    table["in_regulons"] = table["symbol"].map(within).fillna("")
    return table


def average_expression(cells: ad.AnnData) -> pd.Series:
    """Average the normalised expression over cells, by gene id.

    Only bins of genes follow from it, for which the cells that Wilcoxon's test compares are enough.

    Parameters
    ----------
    cells
        Of :func:`scdyn.tasks.rankings.read_compared_cells`.
    """
    return pd.Series(np.asarray(cells.layers["rna_log"].mean(0)).ravel(), index=cells.var_names)
