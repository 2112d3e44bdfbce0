"""Gene scores from the attributions of cells: contrasts of classes, with intervals.

Shapes below: R runs (seeds x folds), C classes, B draws of the bootstrap, G genes; the third
modality is both combined.
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
ALL_OTHERS = ""  # key of log-odds against all other classes

# Attributions (cells, 2, genes) of one run, by explained class and other class.
Run = dict[tuple[str, str], np.ndarray]


def average_class(attributions: np.ndarray) -> np.ndarray:
    """Mean over cells, L1-normalised over genes and modalities: (cells, 2, G) to (2, G)."""
    mean = attributions.mean(0)
    return mean / max(np.abs(mean).sum(), 1e-12)


def append_both(scores: np.ndarray, standardised: bool) -> np.ndarray:
    """Append the combination of both modalities: (..., 2, G) to (..., 3, G).

    Attributions are summed. Standardised ones are combined by Stouffer's method (sum over the
    square root of two), so that the modality with larger, noisier attributions does not dominate.
    """
    both = scores.sum(-2, keepdims=True) / (np.sqrt(2.0) if standardised else 1.0)
    return np.concatenate([scores, both], axis=-2)


def compute_contrasts(
    runs: Sequence[Run],
    classes: Sequence[str],
    cell_weights: Sequence[dict[tuple[str, str], np.ndarray]] | None = None,
    run_weights: np.ndarray | None = None,
) -> np.ndarray:
    """Score each gene for one class versus another.

    If the paths start in cells of the other class, the score is the mean over cells divided by the
    standard deviation. Otherwise it is the difference of the two classes' L1-normalised means (Yu
    et al., bioRxiv 10.64898/2026.02.28.708160).

    Parameters
    ----------
    runs
        As :func:`normalise_runs`.
    classes
        (C,) names.
    cell_weights
        Per run and pair of classes, (B, cells), rows sum to one. None: equal weights, B is one.
    run_weights
        (B, R). None: equal weights.

    Returns
    -------
    ndarray, (B, C, C, 3, G)
        Mean over the runs that have both classes; NaN if none has them, and on the diagonal.
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
    """Return equal weights (1, cells) for the cells of each pair of classes."""
    return {pair: np.full((1, len(values)), 1 / len(values)) for pair, values in run.items()}


def _score_class(
    part: Run, weights: dict[tuple[str, str], np.ndarray], standardised: bool
) -> dict[str, np.ndarray]:
    """Score one class in one run versus each other class: (B, 3, G) each.

    The standard deviation within a pair of classes is pooled over the other classes.
    """
    means, variances = {}, []
    for pair, values in part.items():
        n_cells, flat = len(values), values.reshape(len(values), -1)
        weight = weights[pair].astype(np.float32)
        # Centre first: with similar cells the squares would cancel in float32.
        centre = flat.mean(0, dtype=np.float64).astype(flat.dtype)
        flat = flat - centre
        shift = weight @ flat
        means[pair[1]] = centre + shift
        variance = weight @ flat**2 - shift**2
        variances.append(np.maximum(variance, 0.0) * n_cells / max(n_cells - 1, 1))
    if standardised:
        spread = np.sqrt(np.mean(variances, axis=0))
        # Genes without variance have attribution zero.
        means = {
            other: np.divide(mean, spread, out=np.zeros_like(mean), where=spread > 1e-9)
            for other, mean in means.items()
        }
    return {
        other: append_both(mean.reshape(len(mean), 2, -1), standardised)
        for other, mean in means.items()
    }


def compute_specificity(contrasts: np.ndarray, form: str = "max") -> np.ndarray:
    """Discriminative specificity: the minimum or median contrast over the other classes.

    For differences of scores this is a class's score minus the largest ("max") or the median
    ("median") score of the other classes, as defined by Yu et al.

    Parameters
    ----------
    contrasts
        (..., C, C, 3, G) as :func:`compute_contrasts`.

    Returns
    -------
    ndarray, (..., C, 3, G)
    """
    with warnings.catch_warnings():  # all-NaN slices: classes that no run explains
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmin(contrasts, -3) if form == "max" else np.nanmedian(contrasts, -3)


def normalise_runs(runs: Sequence[Run]) -> list[Run]:
    """Divide attributions versus all other classes by the L1 norm of the class's mean."""
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
    """Bootstrap a 95% interval of the specificity, over runs and over the cells of each run.

    Percentiles of a two-level bootstrap (Davison and Hinkley 1997, section 3.8). With few runs it
    is too narrow; see also :func:`measure_stability`.

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
    """Tabulate the attributions of several runs.

    Parameters
    ----------
    runs
        The runs' attributions. A class that is missing from a run is averaged over the other runs.
    genes
        The vocabulary.
    n_draws, seed
        Number of draws of the bootstrap, and its seed.

    Returns
    -------
    DataFrame
        ``gene_id``, ``symbol``, ``is_tf``, ``modality`` ("rna", "promoter" or "both"), ``class``,
        ``mean`` (attribution, as :func:`average_class`), ``spread`` (its standard deviation over
        runs), ``specificity`` with ``specificity_low`` and ``specificity_high`` (95% interval),
        ``specificity_median`` (its other form); sorted by class, modality and decreasing
        specificity.
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
    """Average a class's attributions in one run over the other classes: (3, G)."""
    means = [average_class(values) for (explained, _), values in run.items() if explained == name]
    return append_both(np.mean(means, axis=0), standardised=False)


def run_specificity(run: Run) -> tuple[list[str], np.ndarray]:
    """Return one run's classes and their specificity, (C, 3, G)."""
    classes = sorted({name for name, _ in run})
    return classes, compute_specificity(compute_contrasts(normalise_runs([run]), classes)[0])


def rank_correlation(a: Run, b: Run) -> dict[str, float]:
    """Spearman correlation per class of the specificities in two runs.

    Genes with attribution zero in both runs are left out: unexpressed genes are zero for every
    model and would inflate the correlation.
    """
    (names_a, first), (names_b, second) = run_specificity(a), run_specificity(b)
    result = {}
    for name in sorted(set(names_a) & set(names_b)):
        x, y = first[names_a.index(name), :2], second[names_b.index(name), :2]
        attributed = ((x != 0) | (y != 0)) & np.isfinite(x) & np.isfinite(y)
        if attributed.any():
            result[name] = float(spearmanr(x[attributed], y[attributed]).statistic)
    return result


def top_overlap(a: Run, b: Run, n_genes: int = 50) -> dict[str, float]:
    """Jaccard index per class of the genes of highest specificity over both modalities."""
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
    """Measure the agreement of pairs of runs: over seeds (same fold), folds (same seed), or both.

    Parameters
    ----------
    runs, descriptions
        The runs' attributions, and ``fold`` and ``seed`` of each run.

    Returns
    -------
    dict
        ``spearman`` and ``top50_jaccard``, each: kind of pair ("seeds", "folds", "seeds and folds")
        to class to the mean over pairs; kinds without pairs are left out.
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
