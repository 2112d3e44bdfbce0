"""The page of all scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from scdyn.plotting.pages import render
from scdyn.tasks.methods import method_name
from scdyn.tasks.scores import PREFIXES, method_prefix

MEANINGS = {
    "accuracy": "share of correctly predicted cells",
    "balanced_accuracy": "recall, mean over classes",
    "macro_f1": "F1, mean over classes; mean over folds and seeds, with its 95% interval",
    "combined_macro_f1": "macro-F1 of one prediction per cell, by the mean probability over runs",
    "ece": "expected calibration error, after temperature scaling (0: good)",
    "n_cells": "number of progenitors with a known fate",
    "ectopic_share": "share of knockout cells at somite positions predicted neural (truth: all)",
    "n_ectopic": "number of knockout cells at somite positions",
    "n_regulons": "number of regulons",
    "auprc": "area under the precision-recall curve of the inferred edges",
    "auprc_chance": "AUPRC of a random ranking: share of all pairs that are true edges",
    "auprc_ratio": "auprc divided by auprc_chance",
    "regulon_precision": "share of the regulons' edges that are true",
    "regulon_recall": "share of the true edges that are in the regulons",
    "adjacency_precision": "share of true edges among the strongest adjacencies, for the same "
    "number of edges as in the regulons",
    "seed_jaccard": "agreement of the strongest edges between seeds (Jaccard index)",
    "regulon_seed_jaccard": "agreement of the regulons' edges between seeds, before the consensus",
    "left_out_jaccard": "agreement of the strongest edges with a run that leaves out cells",
    "regulon_left_out_jaccard": "agreement of the regulons' edges with a run that leaves out cells",
    "recall20": "share of the true drivers among the first 20 of all genes",
    "tf_recall20": "share of the true drivers among the first 20 TFs",
    "tf_auroc": "AUROC of the true drivers among the TFs",
    "chance20": "recall at 20 of a random ranking of all genes",
    "cell_loss": "negative log-likelihood of counts that were not read, by the cell vector, on "
    "held-out cells, nats per count; mean of RNA and promoters",
    "rna_cell_loss": "cell_loss of the RNA",
    "promoter_cell_loss": "cell_loss of the promoters",
    "rna_hidden_loss": "cross-entropy of hidden RNA values on held-out cells, nats per value",
    "promoter_hidden_loss": "cross-entropy of hidden promoter values on held-out cells, nats per "
    "value",
    "masked_loss": "cross-entropy of hidden genes' bins on held-out cells, nats per gene",
    "rna_masked_loss": "masked_loss of the RNA bins",
    "rna_zero_loss": "masked_loss of the RNA bins that are zero",
    "rna_nonzero_loss": "masked_loss of the RNA bins that are not zero",
    "promoter_masked_loss": "masked_loss of the promoter bins",
    "promoter_zero_loss": "masked_loss of the promoter bins that are zero",
    "promoter_nonzero_loss": "masked_loss of the promoter bins that are not zero",
    "full_loss": "cross-entropy of all genes' bins on held-out cells, without masking",
    "neighbour_accuracy": "mean share of the 15 nearest neighbours in the embedding that have the "
    "cell's label",
    "library_size_r2_within": "library_size_r2 within labels: both centred per label",
    "library_size_r2": "share of the variance of log counts explained by the first 10 components "
    "of the embedding (0: good)",
    "scib_labels_kept": "mean of scib-metrics' bio conservation metrics",
    "scib_batches_mixed": "mean of scib-metrics' batch correction metrics",
    "completeness": "median relative error of the attributions' sum (0: good)",
    "randomised_correlation": "rank correlation with a randomised model's attributions (0: good)",
}


# Titles of the page's columns, by the prefix of the scores' names.
METHOD_TITLES = {
    **{prefix: method_name(method) for method, prefix in PREFIXES.items()},
    "wilcoxon_": "Wilcoxon",
    "pca_": "PCA of RNA",
    "pca_scaled_": "PCA of scaled RNA",
    "pca_both_": "PCA of RNA and promoters",
    "pca_both_scaled_": "PCA of scaled RNA and promoters",
    "scvi_": "scVI",
    "mode_": "gene's mode",
    "mean_": "mean profile",
    "frequency_": "gene's frequencies",
}


class Cell(NamedTuple):
    """One cell of the HTML table.

    Attributes
    ----------
    kind
        "method", "measure" or "value".
    text
        Name or number.
    note
        Small text below: the meaning of a measure, or the interval of a value.
    """

    kind: str
    text: str
    note: str = ""


def render_scores(
    scores: Mapping[str, float], variants: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> str:
    """Render the scores as an HTML page with one table per part.

    Parameters
    ----------
    scores
        As in ``scores.json``.
    variants
        By task, its variants of the model and its ensembles.
    """
    parts: dict[str, dict[str, dict[str, float]]] = {}
    for key, value in scores.items():
        part, name = key.rsplit(".", 1)
        prefix, measure = split_method(name, list_columns(part, variants))
        parts.setdefault(part, {}).setdefault(measure, {})[prefix] = value
    tables = {
        part: lay_out_part(measures, list_columns(part, variants))
        for part, measures in parts.items()
    }
    return render("scores.html", "Scores", tables=tables)


def list_columns(part: str, variants: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Map the prefixes of the columns that a part may have to their titles.

    A variant is a column only of its task: otherwise a variant named ``rna`` would claim
    ``rna_masked_loss`` of the pretraining.
    """
    own = variants.get(part.removesuffix(".held_out").removesuffix(".predicted"), ())
    return METHOD_TITLES | {method_prefix(name): method_name(name) for name in own}


def split_method(name: str, columns: Mapping[str, str]) -> tuple[str, str]:
    """Split a score's name into the prefix of its method and the measure."""
    # Choose the longest prefix: lr_rna_ before lr_, and the empty one last.
    prefix = max((p for p in columns if name.startswith(p)), key=len)
    return prefix, name.removeprefix(prefix)


def lay_out_part(
    measures: Mapping[str, Mapping[str, float]], columns: Mapping[str, str]
) -> list[Sequence[Cell]]:
    """Lay out the table of one part, with a column per method.

    If there are more methods than measures, the methods are the rows, to keep the page narrow.
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
