"""Figures of a perturbation: composition and its change, layouts of cells, and genes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scdyn.plotting.studies import add_legend_below, scatter_background, show_text
from scdyn.plotting.style import GREY, PALETTE, make_figure, scatter_labels
from scdyn.tasks.methods import method_name

GROUP_COLOURS = {"control": PALETTE[0], "perturbed": PALETTE[5]}
CHANGE_COLOURS = {
    "vanished": PALETTE[5],
    "fewer": PALETTE[5],
    "more": PALETTE[2],
    "appeared": PALETTE[2],
}
MOST_NAMED = 6  # genes named per panel


def plot_composition(change: pd.DataFrame, by_sample: pd.DataFrame) -> Figure:
    """Plot the shares of classes in control and perturbed cells, and their log2 ratio.

    Parameters
    ----------
    change, by_sample
        As :func:`scdyn.studies.perturbation.perturbation_tables`.
    """
    model = change[change["method"] == "scdynomics"].iloc[::-1].reset_index(drop=True)
    other = change[change["method"] == "logistic_regression"].set_index("class")
    other = other.loc[model["class"]]
    figure, axes = make_figure(1, 2, 8.5, 1.8 + 0.3 * len(model), sharey=True)
    axis, place = axes[0, 0], np.arange(len(model))
    samples = by_sample[by_sample["method"] == "scdynomics"]
    for shift, (group, colour) in zip((0.13, -0.13), GROUP_COLOURS.items(), strict=True):
        part = samples[samples["group"] == group]
        n_cells, n_samples = part["n_cells"].sum(), part["sample"].nunique()
        plural = "s" if n_samples > 1 else ""
        label = f"{group} ({n_cells:,} cells, {n_samples} sample{plural})"
        share, low, high = (model[f"{x}_{group}"] for x in ("share", "low", "high"))
        axis.hlines(place + shift, low, high, color=colour, lw=1.5)
        axis.plot(share, place + shift, "o", ms=5, color=colour, label=label, clip_on=False)
        if n_samples > 1:
            heights = part["class"].map(dict(zip(model["class"], place, strict=True))) + shift
            axis.plot(part["share"], heights, "|", ms=6, color="black", lw=0.8)
    axis.set_yticks(place, model["class"])
    axis.set(xlabel="share of predicted cells", ylim=(-0.6, len(model) - 0.4), title="composition")
    axis.set_xlim(left=0)
    axis = axes[0, 1]
    shades = [CHANGE_COLOURS.get(name, "black") for name in model["change"]]
    axis.hlines(place, model["low"], model["high"], color=shades, lw=1.5)
    axis.scatter(model["log2_ratio"], place, c=shades, s=25, zorder=3)
    hollow = {"facecolors": "none", "edgecolors": "#666666", "s": 16}
    name = method_name("logistic_regression")
    axis.scatter(other["log2_ratio"], place - 0.22, label=name, zorder=4, marker="D", **hollow)
    axis.axvline(0, color="black", lw=0.6)
    for height, row in zip(place, model.itertuples(), strict=True):
        axis.annotate(
            row.change, (1.01, height), xycoords=("axes fraction", "data"), va="center",
            color=CHANGE_COLOURS.get(row.change, "black"),
        )  # fmt: skip
    known = [*model["log2_ratio"], *other["log2_ratio"], 0.0]
    # A count of zero has an infinite interval: an arrow marks where the axis cuts it.
    left, right = min(known) - 1.5, max(known) + 1.5
    axis.set_xlim(left, right)
    for beyond, edge, marker in (
        (model["low"] < left, left, "<"),
        (model["high"] > right, right, ">"),
    ):
        at = [shade for shade, cut in zip(shades, beyond, strict=True) if cut]
        axis.scatter([edge] * len(at), place[beyond], c=at, marker=marker, s=20, clip_on=False)
    over = "samples" if model["interval"].iloc[0] == "samples" else "cells, no replicates"
    axis.set(xlabel=f"log2(perturbed / control)\n(95% interval over {over})", title="change")
    handles = [*axes[0, 0].get_legend_handles_labels()[0], *axis.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def plot_groups(
    layouts: Mapping[str, np.ndarray], predictions: pd.DataFrame, palette: Mapping, on_section: bool
) -> Figure:
    """Plot control and perturbed cells, coloured by predicted label: one panel per group.

    Parameters
    ----------
    layouts
        Group to positions, (cells of the group, 2).
    predictions
        One row per cell: ``group``, ``predicted``.
    palette
        Colour of each class.
    on_section
        Whether the positions are on tissue sections; otherwise they are a UMAP of the RNA.
    """
    figure, axes = make_figure(1, 2, 9, 3.2, sharex=not on_section, sharey=not on_section)
    for axis, group in zip(axes[0], GROUP_COLOURS, strict=True):
        here = (predictions["group"] == group).to_numpy()
        title = f"{group} cells, predicted label ({here.sum():,})"
        if not on_section:
            everything = np.concatenate(list(layouts.values()))
            scatter_background(axis, everything)
        scatter_labels(
            axis, layouts[group], predictions.loc[here, "predicted"], title, palette, legend=False
        )
        if on_section:
            axis.set_aspect("equal")
    names = sorted(predictions["predicted"].unique())
    add_legend_below(figure, names, palette)
    return figure


def plot_changed_genes(table: pd.DataFrame, most_panels: int = 4) -> Figure:
    """Plot the fold change of genes over their specificity as drivers, or over their p-value.

    Parameters
    ----------
    table
        As :func:`scdyn.studies.genes.gene_table`.
    most_panels
        Largest number of comparisons shown; the table has all.
    """
    pairs = list(dict.fromkeys(zip(table["class"], table["against"], strict=True)))[:most_panels]
    if not pairs:
        return show_text("no class has enough cells in both groups")
    columns = min(len(pairs), 2)
    rows = -(-len(pairs) // columns)
    figure, axes = make_figure(rows, columns, 4.2 * columns, 3.1 * rows)
    for axis in axes.flat[len(pairs) :]:
        axis.axis("off")
    for axis, (name, against) in zip(axes.flat, pairs, strict=False):
        part = table[(table["class"] == name) & (table["against"] == against)]
        plot_comparison(axis, part, name, against)
    facts = "; ".join(dict.fromkeys(table["test"]))
    figure.suptitle(f"perturbed compared with control cells: {facts}", fontsize=8)
    return figure


def plot_comparison(axis: Axes, part: pd.DataFrame, name: str, against: str) -> None:
    """Plot one comparison: drivers by specificity, or all genes of the table by p-value."""
    with_drivers = part["specificity"].notna().any()
    part = part.dropna(subset=["log2_fold_change", "p_value"])
    if with_drivers:
        part = part.dropna(subset=["specificity"])
        x, x_label = part["specificity"], "specificity (driver)"
        weight = part["log2_fold_change"].abs() * x.clip(lower=0)
    else:
        smallest = part.loc[part["p_value"] > 0, "p_value"].min()
        x = -np.log10(part["p_value"].clip(lower=smallest))
        x_label, weight = "-log10 p", x
    sure = (part["adjusted"] < 0.05).to_numpy()
    y = part["log2_fold_change"]
    axis.scatter(x[~sure], y[~sure], s=10, color=GREY, linewidths=0, label="other")
    axis.scatter(x[sure], y[sure], s=14, color=PALETTE[5], linewidths=0, label="adjusted p < 0.05")
    axis.axhline(0, color="black", lw=0.6)
    chosen = weight.sort_values(ascending=False).index[:MOST_NAMED]
    name_points(axis, x[chosen].to_numpy(), y[chosen].to_numpy(), part.loc[chosen, "symbol"])
    facts = part.iloc[0] if len(part) else None
    title = name if name == against else f"{name} compared with control {against}"
    if facts is not None:
        title += f"\n({facts['n_perturbed']:,} perturbed, {facts['n_control']:,} control cells)"
    axis.set(xlabel=x_label, ylabel="log2 fold change", title=title)
    axis.margins(x=0.18, y=0.12)
    axis.legend(loc="best", fontsize=6, handletextpad=0.1)


def name_points(axis: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str]) -> None:
    """Write names next to points, moved up until they do not overlap."""
    axis.margins(x=0.18, y=0.12)
    axis.autoscale_view()
    low, high = axis.get_ylim()
    step = 0.055 * (high - low)
    width = 0.2 * np.ptp(axis.get_xlim())  # approximate width of a name
    heights = np.array(y, dtype=float)
    order = np.argsort(heights, kind="stable")
    for i, after in enumerate(order):
        for before in order[:i]:
            if abs(x[after] - x[before]) < width:
                heights[after] = max(heights[after], heights[before] + step)
    for a, b, height, name in zip(x, y, heights, names, strict=True):
        axis.annotate(
            name, (a, b), (a + 0.02 * np.ptp(axis.get_xlim()), height), fontsize=6, va="center",
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "#888888", "shrinkA": 0},
        )  # fmt: skip
