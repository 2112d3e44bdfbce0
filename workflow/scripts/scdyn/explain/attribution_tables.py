"""From the attributions of cells to scores of genes: contrasts of classes and their intervals.

Shapes below: R runs (seeds x folds), C classes, B draws of the bootstrap, G genes; the third
modality is both together.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

MODALITIES = ("rna", "promoter", "both")
ALL_OTHERS = ""  # the other class of attributions that are not against one other class

# Attributions (cells, 2, genes) of a run's cells, by their class and the other class.
Run = dict[tuple[str, str], np.ndarray]


def average_class(attributions: np.ndarray) -> np.ndarray:
    """Mean over cells, L1-normalised over genes and modalities: (cells, 2, G) to (2, G)."""
    mean = attributions.mean(0)
    return mean / max(np.abs(mean).sum(), 1e-12)


def append_both(scores: np.ndarray, standardised: bool) -> np.ndarray:
    """Append both modalities together: (..., 2, G) to (..., 3, G).

    Attributions add up. Standardised ones are joined by Stouffer's sum over the root of two:
    else the modality whose attributions are larger, and noisier, would decide alone.
    """
    both = scores.sum(-2, keepdims=True) / (np.sqrt(2.0) if standardised else 1.0)
    return np.concatenate([scores, both], axis=-2)


def compute_contrasts(
    runs: Sequence[Run],
    classes: Sequence[str],
    cell_weights: Sequence[dict[tuple[str, str], np.ndarray]] | None = None,
    run_weights: np.ndarray | None = None,
) -> np.ndarray:
    """Score how much more each gene speaks for one class than for another.

    Where the paths started in the other classes' cells (attributions against one other class),
    the score is the mean over cells divided by the standard deviation. Else it is the difference
    of the two classes' L1-normalised means (Yu et al., bioRxiv 10.64898/2026.02.28.708160).

    Parameters
    ----------
    runs
        As :func:`normalise_runs`.
    classes
        (C,) names.
    cell_weights
        A run and pair of classes, (B, cells), rows adding up to one. All alike if None, and B
        is one.
    run_weights
        (B, R). All alike if None.

    Returns
    -------
    ndarray, (B, C, C, 3, G)
        Mean over the runs that have both classes; NaN where none has and on the diagonal.
    """
    run_weights = np.ones((1, len(runs))) if run_weights is None else run_weights
    n_draws = len(run_weights)
    n_genes = next(iter(runs[0].values())).shape[-1]
    pairwise = all(other != ALL_OTHERS for run in runs for _, other in run)
    others = list(classes) if pairwise else [ALL_OTHERS]
    total = np.zeros((n_draws, len(classes), len(others), 3, n_genes), dtype=np.float32)
    weight = np.zeros((n_draws, len(classes), len(others), 1, 1), dtype=np.float32)
    for i, run in enumerate(runs):
        weights = cell_weights[i] if cell_weights else equal_weights(run)
        for name in sorted({explained for explained, _ in run}):
            part = {pair: values for pair, values in run.items() if pair[0] == name}
            for other, scores in _score_class(part, weights, pairwise).items():
                place = slice(None), classes.index(name), others.index(other)
                total[place] += scores * run_weights[:, i, None, None]
                weight[place] += run_weights[:, i, None, None]
    with np.errstate(invalid="ignore"):
        mean = total / weight
    if not pairwise:
        mean = mean - mean.transpose(0, 2, 1, 3, 4)
        mean[:, np.arange(len(classes)), np.arange(len(classes))] = np.nan
    return mean


def equal_weights(run: Run) -> dict[tuple[str, str], np.ndarray]:
    """Weights (1, cells) of each pair's cells, all alike."""
    return {pair: np.full((1, len(values)), 1 / len(values)) for pair, values in run.items()}


def _score_class(
    part: Run, weights: dict[tuple[str, str], np.ndarray], standardised: bool
) -> dict[str, np.ndarray]:
    """Score one class in one run against each other class: (B, 3, G) each.

    The standard deviation is that within a pair of classes, pooled over the other classes.
    """
    means, variances = {}, []
    for pair, values in part.items():
        n_cells, flat = len(values), values.reshape(len(values), -1)
        weight = weights[pair].astype(np.float32)
        # Centred first: where cells agree, the squares of float32 would cancel.
        centre = flat.mean(0, dtype=np.float64).astype(flat.dtype)
        flat = flat - centre
        shift = weight @ flat
        means[pair[1]] = centre + shift
        variance = weight @ flat**2 - shift**2
        variances.append(np.maximum(variance, 0.0) * n_cells / max(n_cells - 1, 1))
    if standardised:
        spread = np.sqrt(np.mean(variances, axis=0))
        # Where nothing varies nothing is attributed.
        means = {
            other: np.divide(mean, spread, out=np.zeros_like(mean), where=spread > 1e-9)
            for other, mean in means.items()
        }
    return {
        other: append_both(mean.reshape(len(mean), 2, -1), standardised)
        for other, mean in means.items()
    }


def compute_specificity(contrasts: np.ndarray, form: str = "max") -> np.ndarray:
    """Discriminative specificity: against the class that it parts least from, or the median one.

    Of differences of scores this is a class's score minus the largest ("max"), or the
    median ("median"), of any other class, as Yu et al. define it.

    Parameters
    ----------
    contrasts
        (..., C, C, 3, G) as :func:`compute_contrasts`.

    Returns
    -------
    ndarray, (..., C, 3, G)
    """
    with warnings.catch_warnings():  # a class that no run could explain is NaN, as it should be
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmin(contrasts, -3) if form == "max" else np.nanmedian(contrasts, -3)


def normalise_runs(runs: Sequence[Run]) -> list[Run]:
    """Divide attributions that are not against one class by the L1 norm of their class's mean."""
    return [
        {
            pair: values / max(np.abs(values.mean(0)).sum(), 1e-12)
            if pair[1] == ALL_OTHERS
            else values
            for pair, values in run.items()
        }
        for run in runs
    ]


def bootstrap_interval(
    runs: Sequence[Run], classes: Sequence[str], n_draws: int, seed: int, genes_at_once: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """95% interval of the specificity, runs drawn anew and within each its cells.

    Percentiles of a bootstrap in two levels (Davison and Hinkley 1997, section 3.8). With few
    runs it is narrow for what it says of other runs; see the stability beside it.

    Returns
    -------
    low, high : ndarray, (C, 3, G)
    """
    rng = np.random.default_rng(seed)
    run_weights = rng.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), n_draws)
    cell_weights = []
    for run in runs:
        n_cells = {pair: len(values) for pair, values in run.items()}
        cell_weights.append(
            {
                pair: rng.multinomial(n, np.full(n, 1 / n), n_draws) / n
                for pair, n in n_cells.items()
            }
        )
    n_genes = next(iter(runs[0].values())).shape[-1]
    bounds = []
    for start in range(0, n_genes, genes_at_once):
        chosen = slice(start, start + genes_at_once)
        part = [{pair: values[..., chosen] for pair, values in run.items()} for run in runs]
        contrasts = compute_contrasts(part, classes, cell_weights, run_weights.astype(np.float32))
        bounds.append(np.nanquantile(compute_specificity(contrasts), [0.025, 0.975], axis=0))
    low, high = np.concatenate(bounds, axis=-1)
    return low, high


def attribution_table(
    runs: Sequence[Run], genes: pd.DataFrame, n_draws: int = 200, seed: int = 0
) -> pd.DataFrame:
    """Bring several runs' attributions into one table.

    Parameters
    ----------
    runs
        The runs' attributions. Classes that a run lacks are averaged over the others.
    genes
        The vocabulary.
    n_draws, seed
        Of the bootstrap.

    Returns
    -------
    DataFrame
        ``gene_id``, ``symbol``, ``is_tf``, ``modality`` ("rna", "promoter" or "both"),
        ``class``, ``mean`` (attribution, as :func:`average_class`), ``spread`` (its standard
        deviation over runs), ``specificity`` with ``specificity_low`` and ``specificity_high``
        (95% interval), ``specificity_median`` (its other form); ordered by class, modality
        and falling specificity.
    """
    runs = normalise_runs(runs)
    classes = sorted({name for run in runs for name, _ in run})
    contrasts = compute_contrasts(runs, classes)[0]
    specific, median = compute_specificity(contrasts), compute_specificity(contrasts, "median")
    low, high = bootstrap_interval(runs, classes, n_draws, seed)
    tables = []
    for i, name in enumerate(classes):
        explained = [run for run in runs if any(pair[0] == name for pair in run)]
        means = np.stack([average_run(run, name) for run in explained])
        for j, modality in enumerate(MODALITIES):
            table = genes[["gene_id", "symbol", "is_tf"]].assign(
                modality=modality,
                **{"class": name, "mean": means[:, j].mean(0), "spread": means[:, j].std(0)},
                specificity=specific[i, j],
                specificity_low=low[i, j],
                specificity_high=high[i, j],
                specificity_median=median[i, j],
            )
            tables.append(table.sort_values("specificity", ascending=False, kind="stable"))
    return pd.concat(tables, ignore_index=True)


def average_run(run: Run, name: str) -> np.ndarray:
    """A class's mean attributions in one run, over its other classes: (3, G)."""
    means = [average_class(values) for (explained, _), values in run.items() if explained == name]
    return append_both(np.mean(means, axis=0), standardised=False)


def run_specificity(run: Run) -> tuple[list[str], np.ndarray]:
    """One run's classes and their specificity, (C, 3, G)."""
    classes = sorted({name for name, _ in run})
    return classes, compute_specificity(compute_contrasts(normalise_runs([run]), classes)[0])


def rank_correlation(a: Run, b: Run) -> dict[str, float]:
    """Spearman correlation, class by class, of the specificities of two sets of attributions.

    Genes that neither set gives anything are left out: silent genes are silent for any
    model, and would make any two agree.
    """
    (names_a, first), (names_b, second) = run_specificity(a), run_specificity(b)
    result = {}
    for name in sorted(set(names_a) & set(names_b)):
        x, y = first[names_a.index(name), :2], second[names_b.index(name), :2]
        seen = ((x != 0) | (y != 0)) & np.isfinite(x) & np.isfinite(y)
        if seen.any():
            result[name] = float(spearmanr(x[seen], y[seen]).statistic)
    return result


def top_overlap(a: Run, b: Run, n_genes: int = 50) -> dict[str, float]:
    """Jaccard index, class by class, of the genes of highest specificity over both modalities."""
    (names_a, first), (names_b, second) = run_specificity(a), run_specificity(b)
    result = {}
    for name in sorted(set(names_a) & set(names_b)):
        tops = [
            set(np.argsort(-scores[names.index(name), 2], kind="stable")[:n_genes])
            for names, scores in ((names_a, first), (names_b, second))
        ]
        result[name] = len(tops[0] & tops[1]) / len(tops[0] | tops[1])
    return result


def measure_stability(
    runs: Sequence[Run], descriptions: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Agreement of every two runs: over seeds (same fold), over folds (same seed), over both.

    Parameters
    ----------
    runs, descriptions
        The runs' attributions, and of each its ``fold`` and ``seed``.

    Returns
    -------
    dict
        ``spearman`` and ``top50_jaccard``, each: kind of pair ("seeds", "folds", "seeds and
        folds") to class to the mean over pairs; kinds without a pair are left out.
    """
    rows = []
    for i, j in combinations(range(len(runs)), 2):
        one, two = descriptions[i], descriptions[j]
        differs = [name for name in ("seed", "fold") if one.get(name) != two.get(name)]
        kind = " and ".join(f"{name}s" for name in differs)
        for measure, method in (("spearman", rank_correlation), ("top50_jaccard", top_overlap)):
            for name, value in method(runs[i], runs[j]).items():
                rows.append((measure, kind, name, value))
    result: dict[str, Any] = {"spearman": {}, "top50_jaccard": {}}
    table = pd.DataFrame(rows, columns=["measure", "kind", "class", "value"])
    for (measure, kind), part in table.groupby(["measure", "kind"]):
        result[measure][kind] = part.groupby("class")["value"].mean().to_dict()
    return result
