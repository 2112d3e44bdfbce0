"""Figures of the studies: maps, trends along pseudotime, order on sections, changes, genes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from scdyn.figures import GREY, NAMES, PALETTE, landscape, new, points

# Which colour says which modality, method or group, in all figures.
MODALITY_COLOURS = {"rna": PALETTE[0], "promoter": PALETTE[1]}
GROUP_COLOURS = {"control": PALETTE[0], "perturbed": PALETTE[5]}
METHOD_COLOURS = {"scdynomics": PALETTE[0], "logistic_regression": PALETTE[1]}
CHANGE_COLOURS = {
    "vanished": PALETTE[5],
    "fewer": PALETTE[5],
    "more": PALETTE[2],
    "appeared": PALETTE[2],
}
MOST_SECTIONS = 6  # drawn; the table has all
MOST_NAMED = 6  # genes named in a panel


def shaded(
    figure: Figure,
    axis: Axes,
    layout: np.ndarray,
    values: pd.Series,
    title: str,
    limits: tuple[float, float],
) -> None:
    """Scatter cells coloured by a number; cells without one are grey and below the others."""
    known = values.notna().to_numpy()
    background(axis, layout[~known])
    order = np.random.default_rng(0).permutation(np.flatnonzero(known))
    low, high = limits
    image = axis.scatter(
        *layout[order].T, c=values.to_numpy()[order], s=mark_size(len(order)), cmap="viridis",
        vmin=low, vmax=high, linewidths=0, rasterized=True,
    )  # fmt: skip
    axis.set(xticks=[], yticks=[], title=title)
    axis.spines[:].set_visible(False)
    figure.colorbar(image, cax=axis.inset_axes([1.02, 0.15, 0.025, 0.7]))


def named(
    axis: Axes, layout: np.ndarray, labels: pd.Series, title: str, palette: Mapping[str, str]
) -> None:
    """Scatter cells coloured by a label, without a legend; those without one lie below."""
    known = labels.notna().to_numpy()
    background(axis, layout[~known])
    points(axis, layout[known], labels[known], title, palette, legend=False)


def background(axis: Axes, layout: np.ndarray) -> None:
    """Scatter cells of which nothing is said, small and grey."""
    size = mark_size(len(layout)) / 2
    axis.scatter(*layout.T, c="#D8D8D8", s=size, linewidths=0, rasterized=True)


def mark_size(n_cells: int) -> float:
    """Area of a cell's mark, by how many there are, as :func:`scdyn.figures.points` has it."""
    return float(np.clip(8000 / max(n_cells, 1), 0.5, 8))


def legend_marks(names: Sequence[str], palette: Mapping[str, str]) -> list[Line2D]:
    """One mark a name, for a legend that serves several maps."""
    options = {"marker": "o", "linestyle": "", "ms": 4}
    return [Line2D([], [], color=palette[name], label=name, **options) for name in names]


def legend_below(figure: Figure, names: Sequence[str], palette: Mapping[str, str]) -> None:
    """One legend for all maps of a figure, which grows by the height that the legend needs."""
    width, height = figure.get_size_inches()
    n_columns = int(np.clip(11 * width / (max(map(len, names)) + 6), 1, len(names)))
    figure.set_size_inches(width, height + 0.3 + 0.17 * -(-len(names) // n_columns))
    marks = legend_marks(names, palette)
    figure.legend(handles=marks, loc="outside lower center", ncols=n_columns)


def development_maps(
    layout: np.ndarray, table: pd.DataFrame, asked: np.ndarray, label: str, palette: Mapping
) -> Figure:
    """Maps of the cells as labelled, by called fate and by pseudotime.

    Parameters
    ----------
    layout
        (cells, 2).
    table
        Of :func:`scdyn.studies_development.development_table`.
    asked
        (cells,) boolean: whose fate is asked.
    label
        The label's name.
    palette
        Colours of labels and fates.
    """
    figure, axes = new(1, 3, 11, 3.2)
    labels = table["label"].where(table["label"] != "")
    named(axes[0, 0], layout, labels, f"{label}, as labelled ({labels.count():,})", palette)
    fates = table["called"].where(asked)
    named(axes[0, 1], layout, fates, f"called fate ({fates.count():,})", palette)
    time = table["pseudotime"]
    limits = (time.min(), time.max())
    shaded(figure, axes[0, 2], layout, time, f"pseudotime ({time.count():,})", limits)
    legend_below(figure, sorted({*labels.dropna(), *fates.dropna()}), palette)
    return figure


def along_pseudotime(
    trends: pd.DataFrame,
    agreement: pd.DataFrame | None,
    names: Mapping[str, str],
    palette: Mapping[str, str],
) -> Figure:
    """Probabilities of the called fates along pseudotime, and what one modality alone knows.

    Parameters
    ----------
    trends
        Of :func:`scdyn.studies_development.fate_trends`.
    agreement
        Of :func:`scdyn.studies_development.agreement`; None where no modality was read alone.
    names
        What to call the modalities.
    palette
        Colours of fates.
    """
    figure, axes = new(1, 1 if agreement is None else 2, 4.8 if agreement is None else 9, 4)
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.15), "ncols": 2}
    axis = axes[0, 0]
    for fate, part in trends.groupby("of", sort=False):
        title = f"{fate} ({part['n_cells'].iloc[0]:,})"
        axis.plot(part["pseudotime"], part["value"], color=palette[fate], label=title)
        axis.fill_between(
            part["pseudotime"], part["low"], part["high"], color=palette[fate], alpha=0.2, lw=0
        )
    axis.set(ylim=(0, 1.02), xlabel="pseudotime", ylabel="probability of the called fate")
    axis.legend(title="called fate (cells)", **below)
    if agreement is None:
        return figure
    axis = axes[0, 1]
    alone = agreement[agreement["of"].isin(names)]
    for modality, part in alone.groupby("of", sort=False):
        colour = MODALITY_COLOURS[modality]
        error = [part["value"] - part["low"], part["high"] - part["value"]]
        axis.errorbar(
            part["pseudotime"], part["value"], error, color=colour, marker="o", ms=3, capsize=2,
            lw=1, label=f"{names[modality]} alone",
        )  # fmt: skip
        axis.plot(
            part["pseudotime"], part["chance"], color=colour, ls=":", lw=1,
            label=f"{names[modality]}, by chance",
        )  # fmt: skip
    n_cells = alone.drop_duplicates("pseudotime")["n_cells"]
    axis.set(
        ylim=(0, 1.02),
        xlabel=f"pseudotime (bins of {n_cells.min():,} to {n_cells.max():,} progenitors)",
        ylabel=f"share in {alone['measure'].iloc[0].replace(' with ', chr(10) + 'with ')}",
    )
    axis.legend(**below)
    return figure


def driver_heat(
    times: np.ndarray,
    genes: pd.DataFrame,
    fates: Sequence[str],
    trends: Mapping[str, np.ndarray],
) -> Figure:
    """Heat map of each fate's drivers along pseudotime, a panel a fate.

    Parameters
    ----------
    times, genes, fates, trends
        Of :func:`scdyn.studies_development.driver_trends`.
    """
    figure, axes = new(
        1, len(fates), 1.6 + 2.2 * len(fates), 1 + 0.15 * len(genes), sharey=True
    )
    edges = np.flatnonzero(genes["class"].to_numpy()[1:] != genes["class"].to_numpy()[:-1]) + 0.5
    for axis, fate in zip(axes[0], fates, strict=True):
        image = axis.imshow(
            trends[fate], cmap="RdBu_r", vmin=-2.5, vmax=2.5, aspect="auto",
            interpolation="nearest",
            extent=(times[0], times[-1], len(genes) - 0.5, -0.5),
        )  # fmt: skip
        axis.hlines(edges, times[0], times[-1], color="black", lw=0.8)
        axis.set(title=f"cells called {fate}", xlabel="pseudotime")
    axes[0, 0].set_yticks(range(len(genes)), genes["symbol"], fontsize=7)
    places = genes.reset_index().groupby("class", sort=False)["index"].mean()
    for name, place in places.items():
        axes[0, -1].text(
            1.03, place, f"drivers of\n{name}", transform=axes[0, -1].get_yaxis_transform(),
            va="center", fontsize=8,
        )  # fmt: skip
    figure.colorbar(image, ax=axes[0], location="bottom", shrink=0.4, label="RNA, z-score")
    return figure


def section_maps(
    positions: np.ndarray, section: pd.Series, table: pd.DataFrame, label: str, palette: Mapping
) -> Figure:
    """Maps of labels, called fates and confidence, a row a section.

    Parameters
    ----------
    positions
        (cells, 2).
    section
        (cells,) names.
    table
        (cells,) rows: ``label``, ``called`` and ``confidence``, missing where no fate is asked.
    label
        The label's name.
    palette
        Colours of labels and fates.
    """
    names = sorted(section.unique())[:MOST_SECTIONS]
    parts, heights = [], []
    for name in names:
        here = (section == name).to_numpy()
        layout = landscape(positions[here])
        extent = np.ptp(layout, axis=0)
        parts.append((name, table[here], layout))
        heights.append(0.3 + float(np.clip(3.6 * extent[1] / max(extent[0], 1e-9), 0.7, 3.6)))
    figure, axes = new(len(names), 3, 12, sum(heights), height_ratios=heights)
    limits = (table["confidence"].min(), 1.0)
    for row, (name, part, layout) in zip(axes, parts, strict=True):
        labels = part["label"].where(part["label"] != "")
        named(row[0], layout, labels, f"{name}: {label} ({labels.count():,})", palette)
        named(row[1], layout, part["called"], f"called ({part['called'].count():,})", palette)
        shaded(figure, row[2], layout, part["confidence"], "probability of the call", limits)
        for axis in row:
            axis.set_aspect("equal")
    shown = {*table["label"], *table["called"].dropna()} - {""}
    legend_below(figure, sorted(shown), palette)
    return figure


def coherence(table: pd.DataFrame) -> Figure:
    """Moran's I of each class's probability, a point a section, over the permutations' interval.

    Parameters
    ----------
    table
        Of :func:`scdyn.studies_spatial.coherence_table`.
    """
    by_class = table.groupby("class")["morans_i"].mean().sort_values(na_position="first")
    place = dict(zip(by_class.index, range(len(by_class)), strict=True))
    figure, axes = new(1, 1, 5, 1.5 + 0.26 * len(place))
    axis = axes[0, 0]
    methods = list(dict.fromkeys(table["method"]))
    for shift, method in zip(np.linspace(0.15, -0.15, len(methods)), methods, strict=True):
        part = table[table["method"] == method]
        height = part["class"].map(place) + shift
        axis.hlines(height, part["null_low"], part["null_high"], color=GREY, lw=4)
        axis.plot(
            part["morans_i"], height, "o", ms=4, alpha=0.8, color=METHOD_COLOURS[method],
            label=NAMES[method],
        )  # fmt: skip
    axis.plot([], [], color=GREY, lw=4, label="cells exchanged, 95%")
    axis.axvline(0, color="black", lw=0.6)
    axis.set_yticks(range(len(place)), place)
    n_sections = table["section"].nunique()
    plural = "s" if n_sections > 1 else ""
    axis.set(xlabel=f"Moran's I of the probability ({n_sections} section{plural})")
    axis.set_ylim(-0.6, len(place) - 0.4)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def composition(change: pd.DataFrame, by_sample: pd.DataFrame) -> Figure:
    """Shares of control and perturbed cells by class, and their log2 ratio.

    Parameters
    ----------
    change, by_sample
        Of :func:`scdyn.studies_perturbation.perturbation_tables`.
    """
    model = change[change["method"] == "scdynomics"].iloc[::-1].reset_index(drop=True)
    other = change[change["method"] == "logistic_regression"].set_index("class")
    other = other.loc[model["class"]]
    figure, axes = new(1, 2, 8.5, 1.7 + 0.36 * len(model), sharey=True)
    axis, place = axes[0, 0], np.arange(len(model))
    samples = by_sample[by_sample["method"] == "scdynomics"]
    for shift, (group, colour) in zip((0.13, -0.13), GROUP_COLOURS.items(), strict=True):
        part = samples[samples["group"] == group]
        n_cells, n_samples = part["n_cells"].sum(), part["sample"].nunique()
        plural = "s" if n_samples > 1 else ""
        label = f"{group} ({n_cells:,} cells, {n_samples} sample{plural})"
        share, low, high = (model[f"{x}_{group}"] for x in ("share", "low", "high"))
        axis.hlines(place + shift, low, high, color=colour, lw=1.5)
        axis.plot(share, place + shift, "o", ms=5, color=colour, label=label)
        if n_samples > 1:
            heights = part["class"].map(dict(zip(model["class"], place, strict=True))) + shift
            axis.plot(part["share"], heights, "|", ms=6, color="black", lw=0.8)
    axis.set_yticks(place, model["class"])
    axis.set(xlabel="share of cells called", ylim=(-0.6, len(model) - 0.4), title="composition")
    axis.set_xlim(left=0)
    axis = axes[0, 1]
    shades = [CHANGE_COLOURS.get(name, "black") for name in model["change"]]
    axis.hlines(place, model["low"], model["high"], color=shades, lw=1.5)
    axis.scatter(model["log2_ratio"], place, c=shades, s=25, zorder=3)
    hollow = {"facecolors": "none", "edgecolors": "#666666", "s": 16}
    name = NAMES["logistic_regression"]
    axis.scatter(other["log2_ratio"], place - 0.22, label=name, zorder=4, marker="D", **hollow)
    axis.axvline(0, color="black", lw=0.6)
    for height, row in zip(place, model.itertuples(), strict=True):
        axis.annotate(
            row.change, (1.01, height), xycoords=("axes fraction", "data"), va="center",
            color=CHANGE_COLOURS.get(row.change, "black"),
        )  # fmt: skip
    known = [*model["log2_ratio"], *other["log2_ratio"], 0.0]
    axis.set_xlim(min(known) - 1.5, max(known) + 1.5)  # of a count of none the interval is endless
    over = "samples" if model["interval"].iloc[0] == "samples" else "cells, no replicates"
    axis.set(xlabel=f"log2 ratio, perturbed to control\n(95% over {over})", title="change")
    handles = [*axes[0, 0].get_legend_handles_labels()[0], *axis.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def perturbation_maps(
    layouts: Mapping[str, np.ndarray], called: pd.DataFrame, palette: Mapping, on_section: bool
) -> Figure:
    """Where control and perturbed cells lie, as called: a panel a group.

    Parameters
    ----------
    layouts
        Group to (cells of the group, 2).
    called
        (cells,) rows: ``group``, ``called``.
    palette
        Colours of classes.
    on_section
        Whether the layout is that of sections; else it is a map of the RNA.
    """
    figure, axes = new(1, 2, 9, 3.4, sharex=not on_section, sharey=not on_section)
    for axis, group in zip(axes[0], GROUP_COLOURS, strict=True):
        here = (called["group"] == group).to_numpy()
        title = f"{group} cells, as called ({here.sum():,})"
        if not on_section:
            everything = np.concatenate(list(layouts.values()))
            background(axis, everything)
        points(axis, layouts[group], called.loc[here, "called"], title, palette, legend=False)
        if on_section:
            axis.set_aspect("equal")
    names = sorted(called["called"].unique())
    columns = 1 if len(names) <= 14 else 2
    handles = legend_marks(names, palette)
    figure.legend(handles=handles, loc="outside right center", ncols=columns)
    return figure


def changed_genes(table: pd.DataFrame, most_panels: int = 4) -> Figure:
    """Genes by fold change, against their specificity to the call where that is known.

    Parameters
    ----------
    table
        Of :func:`scdyn.studies_genes.gene_table`.
    most_panels
        Comparisons drawn; the table has all.
    """
    pairs = list(dict.fromkeys(zip(table["class"], table["against"], strict=True)))[:most_panels]
    if not pairs:
        figure, axes = new(1, 1, 4, 1.2)
        axes[0, 0].text(0.5, 0.5, "no class has enough cells in both groups", ha="center")
        axes[0, 0].axis("off")
        return figure
    columns = min(len(pairs), 2)
    rows = -(-len(pairs) // columns)
    figure, axes = new(rows, columns, 4.2 * columns, 3.1 * rows)
    for axis in axes.flat[len(pairs) :]:
        axis.axis("off")
    for axis, (name, against) in zip(axes.flat, pairs, strict=False):
        part = table[(table["class"] == name) & (table["against"] == against)]
        gene_panel(axis, part, name, against)
    facts = "; ".join(dict.fromkeys(table["test"]))
    figure.suptitle(f"perturbed against control: {facts}", fontsize=8)
    return figure


def gene_panel(axis: Axes, part: pd.DataFrame, name: str, against: str) -> None:
    """One comparison: drivers by specificity, or all genes of the table by p-value."""
    with_drivers = part["specificity"].notna().any()
    part = part.dropna(subset=["log2_fold_change", "p_value"])
    if with_drivers:
        part = part.dropna(subset=["specificity"])
        x, x_label = part["specificity"], "specificity to the call (driver)"
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
    title = name if name == against else f"{name} against control {against}"
    if facts is not None:
        title += f"\n({facts['n_perturbed']:,} perturbed, {facts['n_control']:,} control cells)"
    axis.set(xlabel=x_label, ylabel="log2 fold change", title=title)
    axis.margins(x=0.18, y=0.12)
    axis.legend(loc="best", fontsize=6, handletextpad=0.1)


def name_points(axis: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str]) -> None:
    """Write names beside points, moved up until none covers another."""
    axis.margins(x=0.18, y=0.12)
    axis.autoscale_view()
    low, high = axis.get_ylim()
    step = 0.055 * (high - low)
    width = 0.2 * np.ptp(axis.get_xlim())  # of a name
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
