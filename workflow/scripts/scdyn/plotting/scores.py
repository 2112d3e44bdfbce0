"""The page of all scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from scdyn.plotting.pages import render
from scdyn.tasks.methods import method_name
from scdyn.tasks.scores import PREFIXES, method_prefix

MEANINGS = {
    "accuracy": "share of cells predicted right",
    "balanced_accuracy": "recall, mean over classes",
    "macro_f1": "F1, mean over classes; mean over folds and seeds, with its 95% interval",
    "combined_macro_f1": "macro-F1 of one prediction per cell, by the runs' mean probability",
    "ece": "expected calibration error, after temperature scaling (0: good)",
    "n_cells": "progenitors whose fate is known",
    "ectopic_share": "knockout cells at somite positions that are predicted neural (truth: all)",
    "n_ectopic": "knockout cells at somite positions",
    "n_regulons": "number of regulons",
    "auprc": "area under precision-recall of the inferred edges",
    "auprc_chance": "the same of a random ranking: the share of all pairs that are edges",
    "auprc_ratio": "auprc over auprc_chance",
    "regulon_precision": "share of the regulons' edges that are true",
    "regulon_recall": "share of the true edges that are in regulons",
    "adjacency_precision": "share of true edges among the strongest adjacencies, as many as the "
    "regulons have edges",
    "seed_jaccard": "agreement of the strongest edges between seeds (Jaccard index)",
    "regulon_seed_jaccard": "agreement of the regulons' edges between seeds, before the consensus",
    "left_out_jaccard": "agreement of the strongest edges with a run without some cells",
    "regulon_left_out_jaccard": "agreement of the regulons' edges with a run without some cells",
    "recall20": "share of the true drivers among the first 20 of all genes",
    "tf_recall20": "share of the true drivers among the first 20 TFs",
    "tf_auroc": "AUROC of the true drivers among the TFs",
    "chance20": "recall at 20 of a random ranking of all genes",
    "masked_loss": "cross-entropy of hidden genes' bins on held-out cells, nats per gene",
    "rna_masked_loss": "the same, of the RNA bin",
    "rna_zero_loss": "the same, of hidden genes whose RNA bin is zero",
    "rna_nonzero_loss": "the same, of hidden genes whose RNA bin is not zero",
    "promoter_masked_loss": "the same, of the promoter bin",
    "promoter_zero_loss": "the same, of hidden genes whose promoter bin is zero",
    "promoter_nonzero_loss": "the same, of hidden genes whose promoter bin is not zero",
    "full_loss": "cross-entropy of all genes' bins on held-out cells, none hidden",
    "neighbour_accuracy": "share of cells whose 15 nearest cells in the embedding vote their label",
    "library_size_r2": "share of the cells' log counts that 10 components explain (0: good)",
    "scib_labels_kept": "mean of scib-metrics' bio conservation",
    "scib_batches_mixed": "mean of scib-metrics' batch correction",
    "completeness": "median error of the attributions' sum (0: good)",
    "randomised_correlation": "rank correlation with a randomised model's attributions (0: good)",
}


# What the columns of the page are called.
METHOD_TITLES = {
    **{prefix: method_name(method) for method, prefix in PREFIXES.items()},
    "wilcoxon_": "Wilcoxon",
    "pca_": "PCA of RNA",
    "pca_both_": "PCA of RNA and promoters",
    "scvi_": "scVI",
    "mode_": "gene's mode",
    "mean_": "gene's mean",
    "frequency_": "gene's frequencies",
}


class Cell(NamedTuple):
    """A cell of a table of scores.

    Attributes
    ----------
    kind
        "method", "measure" or "value".
    text
        Name or number.
    note
        Beneath it, small: the measure's meaning, the value's bounds.
    """

    kind: str
    text: str
    note: str = ""


def score_page(
    scores: Mapping[str, float], variants: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> str:
    """Lay the scores out as HTML: a table per part.

    Parameters
    ----------
    scores
        Flat, as written.
    variants
        Task to its variants of the model.
    """
    parts: dict[str, dict[str, dict[str, float]]] = {}
    for key, value in scores.items():
        part, name = key.rsplit(".", 1)
        prefix, measure = split_method(name, columns_of(part, variants))
        parts.setdefault(part, {}).setdefault(measure, {})[prefix] = value
    tables = {
        part: table_of_part(measures, columns_of(part, variants))
        for part, measures in parts.items()
    }
    return render("scores.html", "Scores", tables=tables)


def columns_of(part: str, variants: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Prefix to title of the columns that a part may have.

    A variant is a column of its own task only: a variant called ``rna`` would take
    ``rna_masked_loss`` of pretraining, too.
    """
    own = variants.get(part.removesuffix(".held_out").removesuffix(".predicted"), ())
    return METHOD_TITLES | {method_prefix(name): method_name(name) for name in own}


def split_method(name: str, columns: Mapping[str, str]) -> tuple[str, str]:
    """Split a score's name into the prefix of its method and the measure."""
    # The longest that fits: lr_rna_ before lr_, and the empty one last.
    prefix = max((p for p in columns if name.startswith(p)), key=len)
    return prefix, name.removeprefix(prefix)


def table_of_part(
    measures: Mapping[str, Mapping[str, float]], columns: Mapping[str, str]
) -> list[Sequence[Cell]]:
    """Lay out one part's table, with the methods that it has scores of, by rows.

    Many methods are laid out as rows, so that the page is no wider than a screen.
    """
    methods = [p for p in columns if any(p in values for values in measures.values())]
    names = [name for name in measures if name.removesuffix("_low").removesuffix("_high") == name]
    grid: list[Sequence[Cell]]
    grid = [[Cell("measure", ""), *(Cell("method", columns[p]) for p in methods)]]
    for name in names:
        low, high = (measures.get(f"{name}_{bound}", {}) for bound in ("low", "high"))
        row = [Cell("measure", name, MEANINGS.get(name, ""))]
        for p in methods:
            value = f"{measures[name][p]:.4g}" if p in measures[name] else ""
            row.append(Cell("value", value, f"{low[p]:.3f}-{high[p]:.3f}" if p in low else ""))
        grid.append(row)
    return list(zip(*grid, strict=True)) if len(methods) > len(names) else grid
