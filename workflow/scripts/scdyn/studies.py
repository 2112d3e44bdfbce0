"""The studies: from a task's calls to the figure and the table a biologist would show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from matplotlib.figure import Figure
from sklearn.neighbors import kneighbors_graph

from scdyn import figures
from scdyn.corpus import neighbour_map, principal_components
from scdyn.errors import InputError
from scdyn.selection import select

MODEL, BASELINE = "scdynomics", "logistic_regression"


def called_cells(calls: pd.DataFrame, method: str) -> pd.DataFrame:
    """Cells that a task predicts, or the tested ones where it predicts none, indexed by cell."""
    table = calls[calls["method"] == method]
    part = "predict" if (table["part"] == "predict").any() else "test"
    return table[table["part"] == part].set_index("cell")


def probabilities(table: pd.DataFrame) -> pd.DataFrame:
    """The columns ``p_<class>`` of a table of calls, named by class."""
    return table.filter(regex="^p_").rename(columns=lambda name: name[2:])


def label_colours(cells: ad.AnnData, label: str, calls: pd.DataFrame) -> dict[str, str]:
    """One colour for each label and class that a study shows."""
    return figures.colours({*cells.obs[label].dropna().astype(str), *calls["called"]})


def development(
    cells: ad.AnnData, calls: pd.DataFrame, label: str, study: Mapping[str, Any], seed: int
) -> tuple[pd.DataFrame, Figure]:
    """Fates of the progenitors, called by a model of mature cells.

    Parameters
    ----------
    cells
        The corpus.
    calls
        The task's combined predictions.
    label
        Column of the task's label.
    study, seed
        The study's block of the config; seed of the layout.

    Returns
    -------
    table : DataFrame
        A row a predicted cell: ``cell``, ``sample``, ``called``, ``confidence``, probabilities
        and what logistic regression calls.
    figure : Figure
        A map of the cells by label and by called fate, and how sure the calls are.
    """
    model, baseline = called_cells(calls, MODEL), called_cells(calls, BASELINE)
    p = probabilities(model)
    table = pd.DataFrame(
        {
            "cell": model.index,
            "sample": cells.obs.loc[model.index, "sample"].to_numpy(),
            "called": model["called"].to_numpy(),
            "confidence": p.max(axis=1).to_numpy(),
            "logistic_regression": baseline.loc[model.index, "called"].to_numpy(),
        }
    ).join(p.add_prefix("p_").reset_index(drop=True))
    shown = cells[cells.obs_names.isin(calls["cell"])]
    layout = neighbour_map(principal_components(shown, seed), seed)
    figure, axes = figures.new(1, 3, 11, 3, width_ratios=[1, 1, 0.9])
    palette = label_colours(cells, label, calls)
    figures.points(axes[0, 0], layout, shown.obs[label], f"{label}, as labelled", palette)
    fate = model["called"].reindex(shown.obs_names)
    figures.points(axes[0, 1], layout, fate, "called fate", palette)
    for name, part in table.groupby("called"):
        values = np.sort(part["confidence"])
        axes[0, 2].hist(
            values,
            np.linspace(0, 1, 41),
            histtype="step",
            color=palette[name],
            label=f"{name} ({len(part):,})",
        )
    axes[0, 2].set(xlabel="probability of the called fate", ylabel="progenitors", title="how sure")
    axes[0, 2].legend(loc="upper left")
    return table, figure


def coherence(positions: np.ndarray, p: pd.DataFrame, n_neighbours: int = 10) -> pd.Series:
    """Moran's I of each class's probability over neighbours on the section.

    Parameters
    ----------
    positions
        (cells, 2).
    p
        (cells, classes) probabilities.
    n_neighbours
        Nearest cells that count as neighbours.

    Returns
    -------
    Series
        By class; 0 for no spatial order, 1 for perfect order.
    """
    graph = kneighbors_graph(positions, min(n_neighbours, len(positions) - 1))
    return pd.Series(sc.metrics.morans_i(graph, p.to_numpy().T), index=p.columns)


def section_positions(cells: ad.AnnData) -> np.ndarray:
    """Positions on the section; refused by name where there are none."""
    if "spatial" not in cells.obsm:
        raise InputError(
            "the cells have no positions: give columns x and y in the sample sheet's metadata, or "
            "leave the spatial study out."
        )
    return np.asarray(cells.obsm["spatial"], dtype=float)


def spatial(
    cells: ad.AnnData, calls: pd.DataFrame, label: str, study: Mapping[str, Any], seed: int
) -> tuple[pd.DataFrame, Figure]:
    """The same calls on the section, sample by sample, and how ordered they are there.

    Returns
    -------
    table : DataFrame
        A row a sample, method and class: ``sample``, ``method``, ``class``, ``n_called``,
        ``morans_i`` (of its probability) and ``shuffled_morans_i`` (cells exchanged at random).
    figure : Figure
        Maps of labels, called fates and probabilities of the most called class, a row a sample.
    """
    positions = pd.DataFrame(section_positions(cells), index=cells.obs_names)
    rng = np.random.default_rng(seed)
    methods = {name: called_cells(calls, name) for name in (MODEL, BASELINE)}
    model = methods[MODEL]
    samples = sorted(cells.obs.loc[model.index, "sample"].unique())
    rows = []
    palette = label_colours(cells, label, calls)
    figure, axes = figures.new(len(samples), 3, 11, 1.8 * len(samples))
    commonest = model["called"].mode()[0]
    for i, sample in enumerate(samples):
        in_sample = (cells.obs["sample"] == sample) & positions.notna().all(axis=1)
        here = cells.obs_names[in_sample]
        called = model.index.intersection(here)
        for method, table in methods.items():
            p = probabilities(table.loc[called])
            shuffled = p.iloc[rng.permutation(len(p))]
            found, chance = (coherence(positions.loc[called].to_numpy(), x) for x in (p, shuffled))
            counts = table.loc[called, "called"].value_counts()
            rows += [(sample, method, c, counts.get(c, 0), found[c], chance[c]) for c in p]
        layout = figures.landscape(positions.loc[here].to_numpy())
        labels = cells.obs.loc[here, label]
        figures.points(axes[i, 0], layout, labels, f"{sample}: {label}", palette)
        fates = model["called"].reindex(here)
        figures.points(axes[i, 1], layout, fates, "called fate", palette)
        axes[i, 2].scatter(*layout.T, c=figures.GREY, s=1, linewidths=0, rasterized=True)
        image = axes[i, 2].scatter(
            *layout[here.isin(called)].T,
            c=model.reindex(here[here.isin(called)])[f"p_{commonest}"],
            s=6,
            linewidths=0,
            cmap="viridis",
            vmin=0,
            vmax=1,
            rasterized=True,
        )
        axes[i, 2].set(xticks=[], yticks=[], title=f"probability of {commonest}")
        axes[i, 2].spines[:].set_visible(False)
        figure.colorbar(image, shrink=0.8)
        for axis in axes[i]:
            axis.set_aspect("equal")
    columns = ["sample", "method", "class", "n_called", "morans_i", "shuffled_morans_i"]
    return pd.DataFrame(rows, columns=columns), figure


def perturbation(
    cells: ad.AnnData, calls: pd.DataFrame, label: str, study: Mapping[str, Any], seed: int
) -> tuple[pd.DataFrame, Figure]:
    """The perturbed cells as a model of the unperturbed calls them.

    Unperturbed cells are counted by their calls as held-out cells, so that both sides
    carry the same errors.

    Returns
    -------
    table : DataFrame
        A row a sample and class: ``group``, ``sample``, ``class``, ``n_cells``, ``share``, and
        ``logistic_regression_share``.
    figure : Figure
        Composition of each sample, and the called cells on the section (without positions,
        on a map of their RNA).
    """
    groups = {
        name: cells.obs_names[select(cells.obs, study[name], name)]
        for name in ("control", "perturbed")
    }
    model = calls[calls["method"] == MODEL].set_index("cell")
    baseline = calls[calls["method"] == BASELINE].set_index("cell")
    rows = []
    for group, names in groups.items():
        called = model.index.intersection(names)
        if called.empty:
            raise InputError(
                f"study: the task called none of the {group} cells; see its train and predict."
            )
        for sample, part in cells.obs.loc[called].groupby("sample", observed=True):
            counts = model.loc[part.index, "called"].value_counts()
            other = baseline.loc[part.index, "called"].value_counts(normalize=True)
            rows += [
                (
                    group,
                    sample,
                    c,
                    counts.get(c, 0),
                    counts.get(c, 0) / len(part),
                    other.get(c, 0.0),
                )
                for c in probabilities(model)
            ]
    columns = ["group", "sample", "class", "n_cells", "share", "logistic_regression_share"]
    table = pd.DataFrame(rows, columns=columns)
    return table, _composition_figure(cells, model, groups, table, seed)


def _composition_figure(
    cells: ad.AnnData,
    model: pd.DataFrame,
    groups: Mapping[str, pd.Index],
    table: pd.DataFrame,
    seed: int,
) -> Figure:
    """Draw shares by sample, and one map of called cells a group."""
    figure, axes = figures.new(1, 3, 11, 2.8)
    shares = table.pivot_table(
        index=["group", "sample"], columns="class", values="share", sort=False
    )
    palette, left = figures.colours(shares.columns), np.zeros(len(shares))
    for name in shares:
        place = range(len(shares))
        bars = axes[0, 0].barh(place, shares[name], left=left, color=palette[name])
        texts = [f"{value:.0%}" if value > 0.06 else "" for value in shares[name]]
        axes[0, 0].bar_label(bars, texts, label_type="center", fontsize=7)
        left += shares[name].to_numpy()
    axes[0, 0].set_yticks(range(len(shares)), [f"{s}\n({g})" for g, s in shares.index])
    axes[0, 0].invert_yaxis()
    axes[0, 0].set(xlabel="share of cells called", title="composition")
    shown = cells[cells.obs_names.isin(model.index)]
    on_section = "spatial" in shown.obsm
    if on_section:
        layout = figures.landscape(section_positions(shown))
    else:
        layout = neighbour_map(principal_components(shown, seed), seed)
    for axis, (group, names) in zip(axes[0, 1:], groups.items(), strict=True):
        here = shown.obs_names.isin(names)
        called = model["called"].reindex(shown.obs_names[here])
        title = f"{group} cells, as called"
        # The control has all classes; its legend serves both maps.
        figures.points(axis, layout[here], called, title, palette, legend=group == "control")
        if on_section:
            axis.set_aspect("equal")
    return figure


KINDS: dict[str, Callable[..., tuple[pd.DataFrame, Figure]]] = {
    "development": development,
    "spatial": spatial,
    "perturbation": perturbation,
}
