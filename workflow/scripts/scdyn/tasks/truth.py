"""Comparison of results on the simulated study with its ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from scdyn.data.corpus import Corpus
from scdyn.tasks.metrics import confidence_interval, score
from scdyn.tasks.rankings import (
    attribution_ranking,
    read_compared_cells,
    weight_ranking,
    wilcoxon_ranking,
)
from scdyn.tasks.scores import method_prefix


def score_edges(
    adjacencies: pd.DataFrame, regulons: pd.DataFrame, edges: pd.DataFrame, genes: pd.DataFrame
) -> dict[str, float]:
    """Compare inferred edges with the true network.

    Parameters
    ----------
    adjacencies, regulons
        ``tf``, ``target`` and ``importance``; ``tf``, ``target``.
    edges
        True ``tf``, ``target``.
    genes
        The vocabulary; candidates are all pairs of a TF and another gene of it.

    Returns
    -------
    dict
        ``grn.auprc``, ``grn.auprc_chance`` (share of true pairs), ``grn.auprc_ratio``,
        ``grn.n_regulons``, ``grn.regulon_precision`` and ``grn.regulon_recall`` (of all true
        edges), and ``grn.adjacency_precision`` (of the same number of strongest edges).
    """
    symbols, tfs = genes["symbol"], genes.loc[genes["is_tf"], "symbol"]
    pairs = pd.MultiIndex.from_product([tfs, symbols], names=["tf", "target"])
    pairs = pairs[pairs.get_level_values(0) != pairs.get_level_values(1)]
    true = pairs.isin(pd.MultiIndex.from_frame(edges[["tf", "target"]]))
    importance = adjacencies.set_index(["tf", "target"])["importance"].reindex(pairs, fill_value=0)
    found = pd.MultiIndex.from_frame(regulons[["tf", "target"]].drop_duplicates())
    true_pairs = pairs[true]
    strongest = importance.nlargest(len(found)).index
    auprc = float(average_precision_score(true, importance))
    return {
        "grn.auprc": auprc,
        "grn.auprc_chance": float(true.mean()),
        "grn.auprc_ratio": auprc / float(true.mean()),
        "grn.n_regulons": int(regulons["tf"].nunique()),
        "grn.regulon_precision": float(found.isin(true_pairs).mean()),
        "grn.regulon_recall": float(true_pairs.isin(found).mean()),
        "grn.adjacency_precision": float(strongest.isin(true_pairs).mean()),
    }


def score_fates(
    task: str, runs: pd.DataFrame, predictions: pd.DataFrame, fates: pd.Series
) -> dict[str, float]:
    """Score the predictions of progenitors against their true fates.

    Parameters
    ----------
    runs
        Every run's predictions: ``cell``, ``method``, ``seed``, ``fold``, ``part``, ``predicted``.
    predictions
        The task's combined predictions, from the mean probability of the runs.
    fates
        True fate by cell.

    Returns
    -------
    dict
        For each method the mean over its runs of ``accuracy`` and ``macro_f1``, 95% bounds of
        the latter over the folds, and ``combined_macro_f1`` of the combined predictions.
    """
    progenitors = runs[(runs["part"] == "predict") & runs["cell"].isin(fates.index)]
    result: dict[str, float] = {}
    for method, of_method in progenitors.groupby("method", sort=False):
        prefix = f"{task}.{method_prefix(method)}"
        by_run = {
            key: score(fates[run["cell"]].to_numpy(), run["predicted"].to_numpy())
            for key, run in of_method.groupby(["seed", "fold"])
        }
        found = pd.DataFrame.from_dict(by_run, orient="index")
        result |= {f"{prefix}{name}": found[name].mean() for name in ("accuracy", "macro_f1")}
        by_fold = found["macro_f1"].groupby(level=1).mean()
        bounds = np.clip(confidence_interval(by_fold.to_numpy()), 0, 1)
        if np.isfinite(bounds[0]):
            result |= {f"{prefix}macro_f1_low": bounds[0], f"{prefix}macro_f1_high": bounds[1]}
        mean = predictions[
            (predictions["method"] == method) & predictions["cell"].isin(fates.index)
        ]
        mean = mean[mean["part"] == "predict"]
        combined = score(fates[mean["cell"]].to_numpy(), mean["predicted"].to_numpy())
        result[f"{prefix}combined_macro_f1"] = combined["macro_f1"]
    return result | {f"{task}.n_cells": int(progenitors["cell"].nunique())}


def score_ectopic(task: str, runs: pd.DataFrame, ectopic: pd.Index, fate: str) -> dict[str, float]:
    """Share of ectopic cells of the knockout that are predicted to have their true fate.

    Parameters
    ----------
    runs
        Every run's predictions, as for :func:`score_fates`.
    ectopic
        Names of the mature cells whose fate differs from the intended one.
    fate
        Their true fate.
    """
    of_ectopic = runs[runs["cell"].isin(ectopic)]
    shares = (of_ectopic["predicted"] == fate).groupby(of_ectopic["method"], sort=False).mean()
    result = {
        f"{task}.{method_prefix(method)}ectopic_share": float(share)
        for method, share in shares.items()
    }
    return result | {f"{task}.n_ectopic": int(of_ectopic["cell"].nunique())}


def score_drivers(rankings: Mapping[str, pd.DataFrame], drivers: pd.DataFrame) -> dict[str, float]:
    """Score rankings of all genes by the true drivers of each fate.

    Parameters
    ----------
    rankings
        Prefix ("" for the model's) to ``class``, ``symbol``, ``is_tf``, ``score``.
    drivers
        ``symbol``, ``fate``.

    Returns
    -------
    dict
        ``drivers.recall20`` (share of a fate's drivers among the 20 highest genes, mean over the
        fates), ``drivers.tf_recall20`` (among the 20 best TFs), ``drivers.tf_auroc`` (of drivers
        among TFs) and ``drivers.chance20`` (recall of a random ranking).
    """
    result = {}
    for prefix, ranking in rankings.items():
        recalls, tf_recalls, areas = [], [], []
        for fate, true in drivers.groupby("fate"):
            table = ranking[ranking["class"] == fate].sort_values("score", ascending=False)
            tfs = table[table["is_tf"]]
            is_driver = tfs["symbol"].isin(true["symbol"])
            if table.empty or not is_driver.any():
                continue
            recalls.append(true["symbol"].isin(table["symbol"].head(20)).mean())
            tf_recalls.append(true["symbol"].isin(tfs["symbol"].head(20)).mean())
            areas.append(roc_auc_score(is_driver, tfs["score"]))
        result[f"drivers.{prefix}recall20"] = float(np.mean(recalls))
        result[f"drivers.{prefix}tf_recall20"] = float(np.mean(tf_recalls))
        result[f"drivers.{prefix}tf_auroc"] = float(np.mean(areas))
    return result | {"drivers.chance20": 20 / ranking["symbol"].nunique()}


def score_truth(
    truth: Mapping[str, pd.DataFrame],
    adjacencies: pd.DataFrame,
    regulons: pd.DataFrame,
    corpus: Corpus,
    predictions: Mapping[str, pd.DataFrame],
    runs: Mapping[str, pd.DataFrame],
    attributions: Mapping[str, pd.DataFrame],
    weights: Mapping[str, Sequence[pd.DataFrame]],
    *,
    seed: int,
) -> dict[str, float]:
    """Compare the results on the simulated study with its ground truth.

    Parameters
    ----------
    truth
        ``edges``, ``drivers`` and ``cells`` as written by :mod:`scdyn_simulate.study`.
    adjacencies, regulons, corpus
        Results of the study.
    predictions, runs
        By task, what :func:`scdyn.tasks.evaluation.evaluate` writes to these files; a task that
        predicts wild-type cells is scored on their fates, one that predicts the knockout's on its
        ectopic cells.
    attributions, weights
        By explained task: as :func:`scdyn.explain.attribution_tables.attribution_table`, and each
        fold's weights of logistic regression.
    seed
        Seed of :func:`scdyn.tasks.rankings.read_compared_cells`.

    Returns
    -------
    dict
        Scores of :func:`score_edges`, :func:`score_ectopic` or :func:`score_fates`, and
        :func:`score_drivers`.
    """
    genes = corpus.genes
    names = truth["cells"]["sample"] + "_" + truth["cells"]["barcode"]
    true_cells = truth["cells"].set_index(pd.Index(names))
    result = score_edges(adjacencies, regulons, truth["edges"], genes)
    singlets = true_cells[true_cells["is_doublet"] == 0]
    knocked_out = singlets["fate"] != singlets["intended_fate"]
    in_knockout = set(singlets.loc[knocked_out, "sample"])
    mature = singlets["state"] == singlets["fate"]
    ectopic = singlets.index[knocked_out & mature]
    for task, table in predictions.items():
        queries = table.loc[table["part"] == "predict", "cell"].unique()
        if not len(queries):
            continue
        if set(corpus.obs["sample"].iloc[corpus.find_rows(queries)]) & in_knockout:
            fate = singlets.loc[ectopic, "fate"].mode()[0]
            result |= score_ectopic(task, runs[task], ectopic, fate)
        else:
            # Labels contain errors: a mature cell among the queries has no future fate.
            fates = singlets.loc[singlets["state"] == "progenitor", "fate"]
            result |= score_fates(task, runs[task], table, fates)
    for task, table in attributions.items():
        labels = predictions[task][(predictions[task]["part"] == "test")].drop_duplicates("cell")
        cells = read_compared_cells(corpus, labels.set_index("cell")["label"], seed)
        rankings = {
            "": attribution_ranking(table, cells),
            "lr_": weight_ranking(pd.concat(weights[task]), genes),
            "wilcoxon_": wilcoxon_ranking(cells),
        }
        classes = set(table["class"])
        drivers = truth["drivers"][truth["drivers"]["fate"].isin(classes)]
        # Only fates of progenitors have drivers; the third cell type is not a fate of theirs.
        chosen = set(singlets.loc[singlets["state"] == "progenitor", "fate"])
        result |= score_drivers(rankings, drivers[drivers["fate"].isin(chosen)])
    return result
