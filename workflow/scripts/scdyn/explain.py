"""Which genes, in which modality, made a fine-tuned model call a class, and how far to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from captum.attr import IntegratedGradients
from scipy.stats import spearmanr
from torch import Tensor, nn

from scdyn import evaluation
from scdyn.classifier import Classifier, cells_without_counts, load_classifier, of_their_kind
from scdyn.loader import Loader, MemoryStore, batches, expressed_genes, is_measured
from scdyn.log import logger
from scdyn.tokens import TokenStore
from scdyn.training import choose_device

MODALITIES = ("rna", "promoter")


def integrated_gradients(
    classifier: Classifier,
    store: TokenStore | MemoryStore,
    rows: np.ndarray,
    target: int,
    n_steps: int,
    batch_size: int = 64,
) -> tuple[np.ndarray, np.ndarray]:
    """Attribute a class's log-odds to the genes' values (Sundararajan et al. 2017).

    In float32 on any device: in bfloat16 the sum would not add up. Log-odds rather than the
    logit: what speaks for every class alike then counts for none.
    The path leads from the cell in which every value is zero; attributions are summed
    over the embedding's width. The gene embeddings are the same at both ends and get none, and
    so do promoters that were not measured.

    Parameters
    ----------
    classifier
        Merged, in evaluation mode; its precision is left at float32.
    store, rows
        The cells to explain.
    target
        Index of the class.
    n_steps
        Points on the path (Gauss-Legendre).
    batch_size
        Points evaluated at once.

    Returns
    -------
    attributions : ndarray of float32, (cells, 2, genes)
        Of RNA and of the promoter.
    completeness : ndarray, (cells,)
        \\|sum of attributions - difference of the log-odds\\| / \\|that difference\\|: 0 for an
        exact integral.
    """
    model = classifier.encoder
    model.set_precision("float32")
    device = next(classifier.parameters()).device

    def log_odds(rna: Tensor, promoter: Tensor, expressed: Tensor, measured: Tensor) -> Tensor:
        tokens = rna + promoter + model.gene_embedding.weight
        zero_cell = of_their_kind(zero_cells, measured)
        logits = classifier.head(model.encode(tokens), zero_cell, expressed)
        others = [i for i in range(logits.shape[1]) if i != target]
        return logits[:, target] - logits[:, others].logsumexp(1)

    method = IntegratedGradients(log_odds)

    def values(rna: Tensor, promoter: Tensor) -> tuple[Tensor, Tensor]:
        rna, promoter = model.value_ids(rna), model.value_ids(promoter)
        return model.rna_embedding(rna).detach(), model.promoter_embedding(promoter).detach()

    zero_values = values(*cells_without_counts(model.config.n_genes, device))
    frozen = [p for p in classifier.parameters() if p.requires_grad]
    for parameter in frozen:  # only the inputs' gradients are wanted
        parameter.requires_grad_(False)
    with torch.no_grad():
        zero_cells = model.encode(sum(zero_values) + model.gene_embedding.weight)
    attributions, completeness = [], []
    n_cells = max(1, batch_size // 8)
    for rna, promoter in Loader(store, batches(rows, n_cells), device):
        rna, promoter = rna.to(device), promoter.to(device)
        measured = is_measured(promoter)
        inputs = values(rna, promoter)
        baselines = tuple(of_their_kind(part, measured) for part in zero_values)
        # Which genes are pooled is held along the path; at its start they all pool to zero,
        # as they do for the cell without counts.
        held = expressed_genes(rna, promoter), measured
        parts, delta = method.attribute(
            inputs,
            baselines,
            additional_forward_args=held,
            n_steps=n_steps,
            internal_batch_size=batch_size,
            return_convergence_delta=True,
        )
        with torch.no_grad():
            difference = log_odds(*inputs, *held) - log_odds(*baselines, *held)
        attributions.append(torch.stack([part.sum(2) for part in parts], 1).float().cpu().numpy())
        completeness.append((delta.abs() / difference.abs().clamp(min=1e-12)).cpu().numpy())
    for parameter in frozen:
        parameter.requires_grad_(True)
    return np.concatenate(attributions), np.concatenate(completeness)


def correct_cells(calls: pd.DataFrame, per_class: int, seed: int) -> dict[str, np.ndarray]:
    """Draw correctly called test cells of each class.

    Parameters
    ----------
    calls
        One fold's table of :func:`scdyn.evaluation.predictions`, one method.
    per_class, seed
        Most cells a class, and seed of the draw.

    Returns
    -------
    dict
        Class to names of cells; classes without a correct call are left out.
    """
    right = calls[(calls["part"] == "test") & (calls["label"] == calls["called"])]
    return {
        name: group["cell"].sample(min(per_class, len(group)), random_state=seed).to_numpy()
        for name, group in right.groupby("label")
    }


def class_means(attributions: np.ndarray) -> np.ndarray:
    """Mean over cells, L1-normalised over genes and modalities: (cells, 2, genes) to (2, genes)."""
    mean = attributions.mean(0)
    return mean / max(np.abs(mean).sum(), 1e-12)


def specificity(scores: np.ndarray) -> np.ndarray:
    """Discriminative specificity: a class's score minus the largest of any other class.

    Parameters
    ----------
    scores
        (classes, ...) at least two classes.
    """
    result = np.empty_like(scores)
    for i in range(len(scores)):
        result[i] = scores[i] - np.delete(scores, i, axis=0).max(0)
    return result


def attribution_table(folds: Sequence[dict[str, np.ndarray]], genes: pd.DataFrame) -> pd.DataFrame:
    """Bring class means of several folds into one table.

    Parameters
    ----------
    folds
        A mapping a fold from class to (2, genes) mean attributions. Classes that a fold
        lacks are averaged over the others.
    genes
        The vocabulary.

    Returns
    -------
    DataFrame
        ``gene_id``, ``symbol``, ``is_tf``, ``modality`` ("rna", "promoter" or "both", their sum),
        ``class``, ``mean``, ``spread`` (standard deviation over folds), ``specificity``; ordered
        by class, modality and falling specificity.
    """
    classes = sorted(set().union(*folds))
    stacked = {
        name: np.stack([_with_sum(fold[name]) for fold in folds if name in fold])
        for name in classes
    }
    means = np.stack([stacked[name].mean(0) for name in classes])
    spreads = np.stack([stacked[name].std(0) for name in classes])
    specific = specificity(means)
    tables = []
    for i, name in enumerate(classes):
        for j, modality in enumerate((*MODALITIES, "both")):
            table = genes[["gene_id", "symbol", "is_tf"]].assign(
                modality=modality,
                **{"class": name, "mean": means[i, j], "spread": spreads[i, j]},
                specificity=specific[i, j],
            )
            tables.append(table.sort_values("specificity", ascending=False, kind="stable"))
    return pd.concat(tables, ignore_index=True)


def _with_sum(scores: np.ndarray) -> np.ndarray:
    """Append the sum of the modalities: (2, genes) to (3, genes)."""
    return np.concatenate([scores, scores.sum(0, keepdims=True)])


def randomised(classifier: Classifier, seed: int) -> Classifier:
    """Copy a classifier with every parameter drawn anew (Adebayo et al. 2018).

    Attributions that survive this tell of the input and not of the model.
    """
    copy = deepcopy(classifier)
    torch.manual_seed(seed)
    with torch.no_grad():
        copy.encoder.initialise()
        for module in copy.head.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
    return copy


def rank_correlation(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, float]:
    """Spearman correlation, class by class, of the specificities of two sets of attributions.

    Genes that neither set gives anything are left out: silent genes are silent for any
    model, and would make any two agree.

    Parameters
    ----------
    a, b
        Class to (2, genes) class means; classes that one lacks are left out.
    """
    names = sorted(set(a) & set(b))
    if len(names) < 2:
        return {}
    first, second = (specificity(np.stack([means[name] for name in names])) for means in (a, b))
    result = {}
    for name, x, y in zip(names, first, second, strict=True):
        seen = (x != 0) | (y != 0)
        result[name] = float(spearmanr(x[seen], y[seen]).statistic)
    return result


def explain_fold(
    classifier: Classifier,
    store: TokenStore,
    cells: dict[str, np.ndarray],
    n_steps: int,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Explain one fold's calls: class means, (2, genes) each, and the cells' completeness."""
    means, completeness = {}, {}
    for name, names in cells.items():
        rows = store.rows_of(names)
        target = classifier.classes.index(name)
        attributions, completeness[name] = integrated_gradients(
            classifier, store, rows, target, n_steps
        )
        means[name] = class_means(attributions)
        logger.info(
            "%s: %d cells explained, median completeness error %.3g",
            name,
            len(names),
            np.median(completeness[name]),
        )
    return means, completeness


def explain_task(
    store: TokenStore,
    genes: pd.DataFrame,
    folders: Sequence[str | Path],
    model_folder: str | Path,
    settings: dict[str, Any],
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Explain a task by the models of all its folds.

    Parameters
    ----------
    store, genes
        Tokens and vocabulary of the corpus.
    folders
        The folds' fine-tuned models.
    model_folder
        The pretrained model.
    settings
        One entry of the config's ``tasks``.

    Returns
    -------
    table : DataFrame
        As :func:`attribution_table`.
    checks : dict
        ``completeness`` (error of the integral over all explained cells: median, 95th
        percentile, largest), ``n_cells``,
        ``randomised_correlation`` (by class; :func:`rank_correlation`
        with the first fold's model after all its parameters are drawn anew) and
        ``fold_correlation`` (by class; the same between folds, mean).
    """
    device = choose_device()
    means, errors, survived = [], [], {}
    for folder in folders:
        classifier = load_classifier(folder, model_folder).to(device)
        calls = evaluation.read_predictions(Path(folder) / "predictions.tsv")
        cells = correct_cells(calls, settings["explained_cells"], settings["seeds"][0])
        fold_means, completeness = explain_fold(classifier, store, cells, settings["steps"])
        if not means:
            random = randomised(classifier, settings["seeds"][0])
            few = {name: names[:16] for name, names in cells.items()}
            random_means, _ = explain_fold(random, store, few, settings["steps"])
            survived = rank_correlation(fold_means, random_means)
        means.append(fold_means)
        errors.extend(completeness.values())
    errors = np.concatenate(errors)
    pairs = pd.DataFrame([rank_correlation(a, b) for a, b in combinations(means, 2)])
    checks = {
        "n_cells": len(errors),
        "completeness": {
            "median": float(np.median(errors)),
            "percentile_95": float(np.quantile(errors, 0.95)),
            "largest": float(errors.max()),
        },
        "randomised_correlation": survived,
        "fold_correlation": pairs.mean().to_dict(),
    }
    return attribution_table(means, genes), checks
