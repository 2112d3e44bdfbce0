"""Composition of perturbed and control cells, by predicted labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from scdyn.data.corpus import Corpus
from scdyn.data.pca import Pca
from scdyn.errors import InputError
from scdyn.pp.neighbours import compute_umap
from scdyn.pp.selection import draw_cells, select
from scdyn.studies.common import (
    BASELINE,
    GROUPS,
    INTERVAL,
    MAX_SHOWN,
    MODEL,
    extract_probabilities,
    get_positions,
    get_sections,
    have_positions,
    select_method,
    tabulate_cells,
    tile_sections,
)
from scdyn.studies.genes import choose_comparisons, gene_table

HALF = 0.5  # pseudocount, so that a class without cells has a finite ratio
VANISHED = 10  # fold change of the share beyond which a class vanished or appeared


def select_groups(
    obs: pd.DataFrame,
    predictions: pd.DataFrame,
    *,
    control: Mapping[str, Sequence[str]],
    perturbed: Mapping[str, Sequence[str]],
    replicate: str = "sample",
) -> pd.DataFrame:
    """Select the predicted cells of both groups.

    Parameters
    ----------
    obs
        The cells' table.
    predictions
        One method's predictions, indexed by cell.
    control, perturbed
        Selections of the groups' cells (:func:`scdyn.pp.selection.select`).
    replicate
        Column of ``obs`` with the replicates.

    Returns
    -------
    DataFrame
        Indexed by cell: ``group``, ``sample`` (the replicate), ``predicted``.

    Raises
    ------
    InputError
        If no cell of a group was predicted, a cell is in both groups, or a column is missing.
    """
    if replicate not in obs:
        raise InputError(
            "STUDY",
            f"studies: replicate: the cells have no column '{replicate}' (columns: "
            f"{', '.join(obs)}).",
        )
    parts = []
    for group, selection in zip(GROUPS, (control, perturbed), strict=True):
        names = predictions.index.intersection(obs.index[select(obs, selection, group)])
        if names.empty:
            raise InputError(
                "STUDY",
                f"studies: the task has no predictions for {group} cells; check its train and "
                "predict.",
            )
        part = {"group": group, "sample": obs.loc[names, replicate].astype(str)}
        parts.append(
            pd.DataFrame({**part, "predicted": predictions.loc[names, "predicted"]}, index=names)
        )
    table = pd.concat(parts)
    if table.index.has_duplicates:
        raise InputError(
            "STUDY",
            f"studies: {table.index.duplicated().sum()} cells are both control and perturbed; make "
            "the two selections exclude each other.",
        )
    return table


def are_on_sections(obs: pd.DataFrame, group: pd.Series) -> bool:
    """Tell whether cells of both groups have positions on a section."""
    if not have_positions(obs):
        return False
    has_position = np.isfinite(get_positions(obs)).all(axis=1)
    return set(group[has_position]) == set(GROUPS)


def count_by_sample(cells: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Count cells per predicted class and sample: (group and sample, classes)."""
    counts = cells.groupby(["group", "sample", "predicted"]).size().unstack(fill_value=0)
    return counts.reindex(columns=list(classes), fill_value=0).rename_axis(columns="class")


def change_over_samples(counts: pd.DataFrame) -> pd.DataFrame:
    """Estimate shares and their log2 ratio with 95% t intervals over samples.

    On the log2 scale, with a variance pooled over both groups because samples are few. It is at
    least the Poisson variance of the counts, so that samples that agree by chance do not give a
    narrow interval.

    Parameters
    ----------
    counts
        Of :func:`count_by_sample`, at least two samples per group.

    Returns
    -------
    DataFrame
        As :func:`compare_composition`.
    """
    totals = counts.sum(axis=1)
    logs = np.log2((counts + HALF).div(totals + 1, axis=0))
    sampling = 1 / ((counts + HALF) * np.log(2) ** 2)
    by_group = logs.groupby("group")
    n = by_group.size().loc[list(GROUPS)]
    freedom = n.sum() - 2
    pooled = (by_group.var() * (by_group.count() - 1)).sum() / freedom
    # At least the mean sampling variance of the samples.
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
    """Estimate shares and their log2 ratio with 95% Jeffreys intervals over cells.

    They measure the counting error in these samples, not the variation between samples. A
    bootstrap would give a class without cells an interval of width zero; shares drawn from
    Beta(count + 1/2, rest + 1/2) do not (Brown et al. 2001, Statistical Science).

    Parameters
    ----------
    counts
        Of :func:`count_by_sample`; a group's samples are pooled.
    seed, n_draws
        Seed and number of the draws for the interval of the ratio.

    Returns
    -------
    DataFrame
        As :func:`compare_composition`.
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
    # Clip shares that underflow to zero.
    ratios = np.log2(np.maximum(drawn["perturbed"], 1e-12) / np.maximum(drawn["control"], 1e-12))
    result["low"], result["high"] = np.percentile(ratios, INTERVAL, axis=0)
    return result


def compare_composition(counts: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Compare the composition of both groups, with intervals over samples if there are two each.

    Parameters
    ----------
    counts
        Of :func:`count_by_sample`.
    seed
        Seed of the intervals over cells.

    Returns
    -------
    DataFrame
        One row per class, sorted by ``log2_ratio``: ``class``, ``cells_control``,
        ``cells_perturbed``, ``share_<group>``, ``low_<group>``, ``high_<group>``, ``log2_ratio``
        (perturbed to control), ``low``, ``high``, ``interval`` ("samples" or "cells") and
        ``change``: "fewer" or "more" if the interval of the ratio excludes no change, "vanished" or
        "appeared" if in addition the smaller share is below a tenth of the larger.
    """
    n_samples = counts.groupby("group").size()
    replicated = n_samples.min() >= 2
    result = change_over_samples(counts) if replicated else change_over_cells(counts, seed)
    result["interval"] = "samples" if replicated else "cells"
    result["change"] = [classify_change(row) for row in result.itertuples()]
    for i, group in enumerate(GROUPS):
        result.insert(i, f"cells_{group}", counts.loc[group].sum())
    return result.sort_values("log2_ratio", kind="stable").rename_axis("class").reset_index()


def classify_change(row: Any) -> str:
    """Classify the change of a class: see :func:`compare_composition`."""
    if row.high < 0:
        gone = row.share_perturbed * VANISHED < row.share_control
        return "vanished" if gone else "fewer"
    if row.low > 0:
        new = row.share_control * VANISHED < row.share_perturbed
        return "appeared" if new else "more"
    return ""


def perturbation_tables(
    groups: Mapping[str, pd.DataFrame], classes: Sequence[str], seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tabulate the composition by class and by sample, for each method.

    Parameters
    ----------
    groups
        Method to the predicted cells of both groups (:func:`select_groups`).
    classes
        All classes of the task.
    seed
        Seed of the intervals over cells.

    Returns
    -------
    change : DataFrame
        ``method`` and the columns of :func:`compare_composition`.
    by_sample : DataFrame
        ``method``, ``group``, ``sample``, ``class``, ``n_cells``, ``share``.
    """
    changes, samples = [], []
    for method, predicted in groups.items():
        counts = count_by_sample(predicted, classes)
        changes.append(compare_composition(counts, seed).assign(method=method))
        long = counts.stack().rename("n_cells").reset_index()
        long["share"] = counts.div(counts.sum(axis=1), axis=0).stack().to_numpy()
        samples.append(long.assign(method=method))
    return tuple(
        pd.concat(parts, ignore_index=True)[["method", *parts[0].columns.drop("method")]]
        for parts in (changes, samples)
    )


@dataclass(frozen=True)
class Perturbation:
    """Results of a perturbation study."""

    change: pd.DataFrame
    """As :func:`perturbation_tables`, of the model and the baseline."""
    by_sample: pd.DataFrame
    """As :func:`perturbation_tables`."""
    genes: pd.DataFrame
    """As :func:`scdyn.studies.genes.gene_table`, of the model's predictions."""
    cells: pd.DataFrame
    """The shown cells, indexed by cell: :func:`scdyn.studies.common.tabulate_cells`, and
    ``group``."""
    layouts: dict[str, np.ndarray]
    """``UMAP`` of the RNA and, where both groups have positions, ``section``: (cells, 2)."""
    of_group: dict[str, np.ndarray]
    """Group to (cells of the group, 2): layout on sections of its own cells, or the UMAP."""

    @property
    def on_section(self) -> bool:
        """Whether both groups have positions on sections."""
        return "section" in self.layouts


def study_perturbation(
    corpus: Corpus,
    pca: Pca,
    obs: pd.DataFrame,
    predictions: pd.DataFrame,
    drivers: pd.DataFrame | None,
    *,
    label: str,
    control: Mapping[str, Sequence[str]],
    perturbed: Mapping[str, Sequence[str]],
    replicate: str,
    section: str,
    seed: int,
) -> Perturbation:
    """Compare perturbed with control cells: composition, differential expression, layouts.

    Parameters
    ----------
    corpus, pca
        The cells and their principal components (:func:`scdyn.data.pca.open_pca`).
    obs
        The table of cells; positions, if there are any, are ``x`` and ``y``.
    predictions
        The task's predictions.
    drivers
        As :func:`scdyn.explain.drivers.drivers_table`; None if the task is not explained.
    label
        Column of the task's label.
    control, perturbed, replicate
        As :func:`select_groups`.
    section
        Column of the sections; read only if cells of both groups have positions.
    seed
        Seed of the intervals, the draws of cells, and the layout. At most ``MAX_SHOWN`` cells are
        shown, drawn in proportion to group and prediction.
    """
    of_method = {
        method: select_groups(
            obs,
            select_method(predictions, method),
            control=control,
            perturbed=perturbed,
            replicate=replicate,
        )
        for method in (MODEL, BASELINE)
    }
    change, by_sample = perturbation_tables(
        of_method, list(extract_probabilities(predictions)), seed
    )
    predicted = of_method[MODEL]
    pairs = choose_comparisons(change[change["method"] == MODEL])
    genes = gene_table(corpus, predicted, pairs, drivers, seed)
    table = (
        tabulate_cells(obs, predictions, label)
        .set_index("cell")
        .join(predicted["group"], how="inner")
    )
    table = table.iloc[draw_cells(table[["group", "predicted"]], MAX_SHOWN, seed)]
    components = pca.select(corpus.find_rows(table.index), "rna")
    layouts, of_group = lay_out_groups(
        obs.loc[table.index], components, table["group"], section, seed
    )
    return Perturbation(change, by_sample, genes, table, layouts, of_group)


def lay_out_groups(
    obs: pd.DataFrame, components: np.ndarray, group: pd.Series, section: str, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Compute layouts of all cells and of each group.

    Parameters
    ----------
    obs
        Rows of the table of cells: the shown cells of both groups.
    components
        (cells, components) of the RNA of these cells.
    group
        Group of each cell.
    section, seed
        As :func:`study_perturbation`.

    Returns
    -------
    layouts, of_group : dict
        As the fields of :class:`Perturbation`.
    """
    members = {name: (group == name).to_numpy() for name in GROUPS}
    layout = compute_umap(components, seed)
    if not are_on_sections(obs, group):
        return {"UMAP": layout}, {name: layout[here] for name, here in members.items()}
    section_of, positions = get_sections(obs, section), get_positions(obs)
    layouts = {"UMAP": layout, "section": tile_sections(positions, section_of)}
    return layouts, {
        n: tile_sections(positions[here], section_of[here]) for n, here in members.items()
    }
