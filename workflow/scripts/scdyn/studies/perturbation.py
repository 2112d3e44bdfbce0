"""Composition of perturbed and control cells, by what a model of other cells calls them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import stats

from scdyn.errors import InputError
from scdyn.pp.selection import select
from scdyn.studies.common import INTERVAL, calls_of, section_positions

GROUPS = ("control", "perturbed")
HALF = 0.5  # added to every count: a class that is called nowhere has a ratio, too
VANISHED = 10  # fewer than one in so many are left


def groups_of(
    obs: pd.DataFrame, calls: pd.DataFrame, selections: Mapping[str, Mapping[str, Sequence[str]]]
) -> pd.DataFrame:
    """Called cells of both groups.

    Parameters
    ----------
    obs
        The cells' table.
    calls
        One method's calls, indexed by cell.
    selections
        ``control`` and ``perturbed``, and the column ``replicate`` (``sample`` by default).

    Returns
    -------
    DataFrame
        Indexed by cell: ``group``, ``sample`` (the replicate), ``called``.

    Raises
    ------
    InputError
        If no cell of a group was called, a cell is in both, or a column is missing.
    """
    replicate = selections.get("replicate", "sample")
    if replicate not in obs:
        raise InputError(
            "STUDY",
            f"studies: replicate is '{replicate}', but the cells have no such column; they have "
            f"{', '.join(obs)}.",
        )
    parts = []
    for group in GROUPS:
        names = calls.index.intersection(obs.index[select(obs, selections[group], group)])
        if names.empty:
            raise InputError(
                "STUDY",
                f"studies: the task called none of the {group} cells; see its train and predict.",
            )
        part = {"group": group, "sample": obs.loc[names, replicate].astype(str)}
        parts.append(pd.DataFrame({**part, "called": calls.loc[names, "called"]}, index=names))
    table = pd.concat(parts)
    if table.index.has_duplicates:
        raise InputError(
            "STUDY",
            f"studies: {table.index.duplicated().sum()} cells are both control and perturbed; make "
            "the two exclude each other.",
        )
    return table


def placed(cells: ad.AnnData, group: pd.Series) -> bool:
    """Tell whether cells of both groups have positions on a section."""
    if "spatial" not in cells.obsm:
        return False
    known = np.isfinite(section_positions(cells)).all(axis=1)
    return set(group[known]) == set(GROUPS)


def counts_by_sample(cells: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Cells called each class in each sample: (group and sample, classes)."""
    counts = cells.groupby(["group", "sample", "called"]).size().unstack(fill_value=0)
    return counts.reindex(columns=list(classes), fill_value=0).rename_axis(columns="class")


def change_over_samples(counts: pd.DataFrame) -> pd.DataFrame:
    """Shares and their log2 ratio with 95% t intervals over samples.

    On the log2 scale, with one variance for both groups, as few samples need; never below that
    of the counts themselves (Poisson), so that samples that agree by chance claim nothing.

    Parameters
    ----------
    counts
        Of :func:`counts_by_sample`, at least two samples a group.

    Returns
    -------
    DataFrame
        As :func:`composition`.
    """
    totals = counts.sum(axis=1)
    logs = np.log2((counts + HALF).div(totals + 1, axis=0))
    sampling = 1 / ((counts + HALF) * np.log(2) ** 2)
    by_group = logs.groupby("group")
    n = by_group.size().loc[list(GROUPS)]
    freedom = n.sum() - 2
    pooled = (by_group.var() * (by_group.count() - 1)).sum() / freedom
    # The mean of the samples' sampling variances, where that is more than they differ by.
    variance = sampling.groupby("group").mean().clip(lower=pooled, axis=1).loc[list(GROUPS)]
    variance = variance.div(n, axis=0)
    reach = stats.t.ppf(0.975, freedom)
    means = by_group.mean()
    result = pd.DataFrame(index=counts.columns)
    for group in GROUPS:
        error = reach * np.sqrt(variance.loc[group])
        result[f"share_{group}"] = counts.div(totals, axis=0).groupby("group").mean().loc[group]
        result[f"low_{group}"] = 2 ** (means.loc[group] - error)
        result[f"high_{group}"] = (2 ** (means.loc[group] + error)).clip(upper=1)
    result["log2_ratio"] = means.loc["perturbed"] - means.loc["control"]
    error = reach * np.sqrt(variance.sum())
    return result.assign(low=result["log2_ratio"] - error, high=result["log2_ratio"] + error)


def change_over_cells(counts: pd.DataFrame, seed: int, n_draws: int = 10_000) -> pd.DataFrame:
    """Shares and their log2 ratio with 95% Jeffreys intervals over cells.

    They say how exactly these samples were counted, and nothing of how other samples would
    differ. A bootstrap would take a class that no cell is called for impossible; a share drawn
    from Beta(count + 1/2, rest + 1/2) does not (Brown et al. 2001, Statistical Science).

    Parameters
    ----------
    counts
        Of :func:`counts_by_sample`; a group's samples are taken together.
    seed, n_draws
        Of the shares drawn for the ratio's interval.

    Returns
    -------
    DataFrame
        As :func:`composition`.
    """
    rng = np.random.default_rng(seed)
    result = pd.DataFrame(index=counts.columns)
    means, drawn = {}, {}
    for group in GROUPS:
        of_group = counts.loc[group].sum()
        total = of_group.sum()
        a, b = of_group + HALF, total - of_group + HALF
        result[f"share_{group}"] = of_group / total
        result[f"low_{group}"] = np.where(of_group == 0, 0.0, stats.beta.ppf(0.025, a, b))
        result[f"high_{group}"] = np.where(of_group == total, 1.0, stats.beta.ppf(0.975, a, b))
        means[group] = a / (a + b)
        drawn[group] = rng.beta(a, b, size=(n_draws, len(a)))
    result["log2_ratio"] = np.log2(means["perturbed"] / means["control"])
    # Below the smallest float a share of nothing would have no logarithm.
    ratios = np.log2(np.maximum(drawn["perturbed"], 1e-12) / np.maximum(drawn["control"], 1e-12))
    result["low"], result["high"] = np.percentile(ratios, INTERVAL, axis=0)
    return result


def composition(counts: pd.DataFrame, seed: int) -> pd.DataFrame:
    """How the perturbation changes the composition, with intervals over samples if there are two.

    Parameters
    ----------
    counts
        Of :func:`counts_by_sample`.
    seed
        Of the intervals over cells.

    Returns
    -------
    DataFrame
        A row a class, from the most lost to the most gained: ``class``, ``cells_control``,
        ``cells_perturbed``, ``share_<group>``, ``low_<group>``, ``high_<group>``, ``log2_ratio``
        (perturbed to control), ``low``, ``high``, ``interval`` ("samples" or "cells") and
        ``change``: "fewer" or "more" where the ratio's interval excludes no change, "vanished" or
        "appeared" where, besides, the smaller share is below a tenth of the larger.
    """
    n_samples = counts.groupby("group").size()
    replicated = n_samples.min() >= 2
    result = change_over_samples(counts) if replicated else change_over_cells(counts, seed)
    result["interval"] = "samples" if replicated else "cells"
    result["change"] = [changed(row) for row in result.itertuples()]
    for i, group in enumerate(GROUPS):
        result.insert(i, f"cells_{group}", counts.loc[group].sum())
    return result.sort_values("log2_ratio", kind="stable").rename_axis("class").reset_index()


def changed(row: Any) -> str:
    """Name the change of a class: see :func:`composition`."""
    if row.high < 0:
        gone = row.share_perturbed * VANISHED < row.share_control
        return "vanished" if gone else "fewer"
    if row.low > 0:
        new = row.share_control * VANISHED < row.share_perturbed
        return "appeared" if new else "more"
    return ""


def perturbation_tables(
    obs: pd.DataFrame,
    calls: pd.DataFrame,
    selections: Mapping[str, Mapping[str, Sequence[str]]],
    methods: Sequence[str],
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Composition by class and by sample, for each method.

    Returns
    -------
    change : DataFrame
        ``method`` and the columns of :func:`composition`.
    by_sample : DataFrame
        ``method``, ``group``, ``sample``, ``class``, ``n_cells``, ``share``.
    """
    changes, samples = [], []
    classes = [name[2:] for name in calls if name.startswith("p_")]
    for method in methods:
        counts = counts_by_sample(groups_of(obs, calls_of(calls, method), selections), classes)
        changes.append(composition(counts, seed).assign(method=method))
        long = counts.stack().rename("n_cells").reset_index()
        long["share"] = counts.div(counts.sum(axis=1), axis=0).stack().to_numpy()
        samples.append(long.assign(method=method))
    return tuple(
        pd.concat(parts, ignore_index=True)[["method", *parts[0].columns.drop("method")]]
        for parts in (changes, samples)
    )
