"""Figures of the studies of development and of tissue sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scanpy.plotting.palettes import godsnot_102

from scdyn.plotting.style import GREY, PALETTE, assign_colours, make_figure, scatter_labels
from scdyn.studies.common import as_text, turn_landscape
from scdyn.tasks.methods import method_name

# Colours of modalities and methods, the same in all figures.
MODALITY_COLOURS = {"rna": PALETTE[0], "promoter": PALETTE[1]}
METHOD_COLOURS = {"scdynomics": PALETTE[0], "logistic_regression": PALETTE[1]}
MOST_SECTIONS = 6  # sections shown; the table has all


def scatter_values(
    figure: Figure,
    axis: Axes,
    layout: np.ndarray,
    values: pd.Series,
    title: str,
    limits: tuple[float, float],
) -> None:
    """Scatter cells coloured by a number, above cells without a value, in grey."""
    known = values.notna().to_numpy()
    scatter_background(axis, layout[~known])
    order = np.random.default_rng(0).permutation(np.flatnonzero(known))
    low, high = limits
    image = axis.scatter(
        *layout[order].T, c=values.to_numpy()[order], s=choose_mark_size(len(order)),
        cmap="viridis", vmin=low, vmax=high, linewidths=0, rasterized=True,
    )  # fmt: skip
    axis.set(xticks=[], yticks=[], title=title)
    axis.spines[:].set_visible(False)
    figure.colorbar(image, cax=axis.inset_axes([1.02, 0.15, 0.025, 0.7]))


def scatter_classes(
    axis: Axes, layout: np.ndarray, labels: pd.Series, title: str, palette: Mapping[str, str]
) -> None:
    """Scatter cells coloured by a label, above cells without a label; without a legend."""
    known = labels.notna().to_numpy()
    scatter_background(axis, layout[~known])
    scatter_labels(axis, layout[known], labels[known], title, palette, legend=False)


def scatter_background(axis: Axes, layout: np.ndarray) -> None:
    """Scatter cells without a value, small and grey."""
    size = choose_mark_size(len(layout)) / 2
    axis.scatter(*layout.T, c="#D8D8D8", s=size, linewidths=0, rasterized=True)


def choose_mark_size(n_cells: int) -> float:
    """Choose the area of a point by the number of cells, as ``style.scatter_labels`` does."""
    return float(np.clip(8000 / max(n_cells, 1), 0.5, 8))


def show_text(text: str) -> Figure:
    """Make a figure of a sentence that says why there is nothing to plot."""
    figure, axes = make_figure(1, 1, 4, 1)
    axes[0, 0].text(0.5, 0.5, text, ha="center")
    axes[0, 0].axis("off")
    return figure


def make_legend_marks(names: Sequence[str], palette: Mapping[str, str]) -> list[Line2D]:
    """Make one mark per name, for a legend shared by several panels."""
    options = {"marker": "o", "linestyle": "", "ms": 4}
    return [Line2D([], [], color=palette[name], label=name, **options) for name in names]


def add_legend_below(figure: Figure, names: Sequence[str], palette: Mapping[str, str]) -> None:
    """Add one legend for all panels below a figure, and enlarge the figure by its height."""
    width, height = figure.get_size_inches()
    n_columns = int(np.clip(11 * width / (max(map(len, names)) + 6), 1, len(names)))
    figure.set_size_inches(width, height + 0.3 + 0.17 * -(-len(names) // n_columns))
    marks = make_legend_marks(names, palette)
    figure.legend(handles=marks, loc="outside lower center", ncols=n_columns)


def plot_development(
    layout: np.ndarray, table: pd.DataFrame, is_progenitor: np.ndarray, label: str, palette: Mapping
) -> Figure:
    """Plot the UMAP of the cells by label, predicted fate and pseudotime.

    Parameters
    ----------
    layout
        (cells, 2).
    table
        As :func:`scdyn.studies.development.development_table`.
    is_progenitor
        (cells,) boolean: cells whose fate is predicted.
    label
        Column of the label.
    palette
        Colours of labels and fates.
    """
    figure, axes = make_figure(1, 3, 11, 3.2)
    labels = table["label"].where(table["label"] != "")
    scatter_classes(axes[0, 0], layout, labels, f"label: {label} ({labels.count():,})", palette)
    fates = table["predicted"].where(is_progenitor)
    scatter_classes(axes[0, 1], layout, fates, f"predicted fate ({fates.count():,})", palette)
    time = table["pseudotime"]
    limits = (time.min(), time.max())
    scatter_values(figure, axes[0, 2], layout, time, f"pseudotime ({time.count():,})", limits)
    add_legend_below(figure, sorted({*labels.dropna(), *fates.dropna()}), palette)
    return figure


def plot_pseudotime(
    trends: pd.DataFrame,
    agreement: pd.DataFrame | None,
    names: Mapping[str, str],
    palette: Mapping[str, str],
) -> Figure:
    """Plot the probability of predicted fates along pseudotime, and the agreement of modalities.

    Parameters
    ----------
    trends
        As :func:`scdyn.studies.development.fate_trends`.
    agreement
        As :func:`scdyn.studies.development.measure_agreement`; None if no model of one
        modality was fine-tuned.
    names
        Modality to its name in the legend.
    palette
        Colours of fates.
    """
    figure, axes = make_figure(1, 1 if agreement is None else 2, 4.8 if agreement is None else 9, 4)
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.15), "ncols": 2}
    axis = axes[0, 0]
    for fate, part in trends.groupby("of", sort=False):
        title = f"{fate} ({part['n_cells'].iloc[0]:,})"
        axis.plot(part["pseudotime"], part["value"], color=palette[fate], label=title)
        axis.fill_between(
            part["pseudotime"], part["low"], part["high"], color=palette[fate], alpha=0.2, lw=0
        )
    axis.set(ylim=(0, 1.02), xlabel="pseudotime", ylabel="probability of the predicted fate")
    axis.legend(title="predicted fate (cells)", **below)
    if agreement is None:
        return figure
    axis = axes[0, 1]
    single = agreement[agreement["of"].isin(names)]
    for modality, part in single.groupby("of", sort=False):
        colour = MODALITY_COLOURS[modality]
        error = [part["value"] - part["low"], part["high"] - part["value"]]
        axis.errorbar(
            part["pseudotime"], part["value"], error, color=colour, marker="o", ms=3, capsize=2,
            lw=1, label=f"{names[modality]} only",
        )  # fmt: skip
        axis.plot(
            part["pseudotime"], part["chance"], color=colour, ls=":", lw=1,
            label=f"{names[modality]}, expected by chance",
        )  # fmt: skip
    n_cells = single.drop_duplicates("pseudotime")["n_cells"]
    axis.set(
        ylim=(0, 1.02),
        xlabel=f"pseudotime (bins of {n_cells.min():,} to {n_cells.max():,} progenitors)",
        ylabel=f"share in {single['measure'].iloc[0].replace(' with ', chr(10) + 'with ')}",
    )
    axis.legend(**below)
    return figure


def plot_driver_trends(
    times: np.ndarray,
    genes: pd.DataFrame,
    fates: Sequence[str],
    trends: Mapping[str, np.ndarray],
    name: str,
) -> Figure:
    """Plot the drivers along pseudotime as heat maps, one per predicted fate.

    Parameters
    ----------
    times, genes, fates, trends
        As :func:`scdyn.studies.development.driver_trends`.
    name
        Name of the values.
    """
    if not fates:
        return show_text("none of the predicted fates has drivers")
    figure, axes = make_figure(
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
        axis.set(title=f"predicted {fate}", xlabel="pseudotime")
    axes[0, 0].set_yticks(range(len(genes)), genes["symbol"], fontsize=7)
    places = genes.reset_index().groupby("class", sort=False)["index"].mean()
    for fate, place in places.items():
        axes[0, -1].text(
            1.03, place, f"drivers of\n{fate}", transform=axes[0, -1].get_yaxis_transform(),
            va="center", fontsize=8,
        )  # fmt: skip
    figure.colorbar(image, ax=axes[0], location="bottom", shrink=0.4, label=f"{name}, z-score")
    return figure


def plot_sections(
    positions: np.ndarray, section: pd.Series, table: pd.DataFrame, label: str, palette: Mapping
) -> Figure:
    """Plot labels, predicted labels and confidence on tissue sections, one row per section.

    Parameters
    ----------
    positions
        (cells, 2).
    section
        (cells,) names.
    table
        One row per cell: ``label``, ``predicted`` and ``confidence``, missing for cells that are
        not predicted.
    label
        Column of the label.
    palette
        Colour of each label.
    """
    names = sorted(section.unique())[:MOST_SECTIONS]
    parts, heights = [], []
    for name in names:
        here = (section == name).to_numpy()
        layout = turn_landscape(positions[here])
        extent = np.ptp(layout, axis=0)
        parts.append((name, table[here], layout))
        heights.append(0.3 + float(np.clip(3.6 * extent[1] / max(extent[0], 1e-9), 0.7, 3.6)))
    figure, axes = make_figure(len(names), 3, 12, sum(heights), height_ratios=heights)
    limits = (table["confidence"].min(), 1.0)
    for row, (name, part, layout) in zip(axes, parts, strict=True):
        labels = part["label"].where(part["label"] != "")
        scatter_classes(row[0], layout, labels, f"{name}: {label} ({labels.count():,})", palette)
        scatter_classes(
            row[1], layout, part["predicted"], f"predicted ({part['predicted'].count():,})", palette
        )
        scatter_values(
            figure, row[2], layout, part["confidence"], "probability of the prediction", limits
        )
        for axis in row:
            axis.set_aspect("equal")
    shown = {*table["label"], *table["predicted"].dropna()} - {""}
    add_legend_below(figure, sorted(shown), palette)
    return figure


def plot_coherence(table: pd.DataFrame) -> Figure:
    """Plot Moran's I of each class's probability: one point per section, over the null interval.

    Parameters
    ----------
    table
        As :func:`scdyn.studies.spatial.coherence_table`.
    """
    if table.empty:
        return show_text("no section has enough predicted cells")
    by_class = table.groupby("class")["morans_i"].mean().sort_values(na_position="first")
    place = dict(zip(by_class.index, range(len(by_class)), strict=True))
    figure, axes = make_figure(1, 1, 5, 1.5 + 0.26 * len(place))
    axis = axes[0, 0]
    methods = list(dict.fromkeys(table["method"]))
    for shift, method in zip(np.linspace(0.15, -0.15, len(methods)), methods, strict=True):
        part = table[table["method"] == method]
        height = part["class"].map(place) + shift
        axis.hlines(height, part["null_low"], part["null_high"], color=GREY, lw=4)
        axis.plot(
            part["morans_i"], height, "o", ms=4, alpha=0.8, color=METHOD_COLOURS[method],
            label=method_name(method),
        )  # fmt: skip
    axis.plot([], [], color=GREY, lw=4, label="permutation null, 95%")
    axis.axvline(0, color="black", lw=0.6)
    axis.set_yticks(range(len(place)), place)
    n_sections = table["section"].nunique()
    plural = "s" if n_sections > 1 else ""
    axis.set(xlabel=f"Moran's I of the probability ({n_sections} section{plural})")
    axis.set_ylim(-0.6, len(place) - 0.4)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def assign_label_colours(labels: pd.Series, predictions: pd.DataFrame) -> dict[str, str]:
    """Assign a colour to each label of the corpus and each predicted label.

    Up to eight have colours that everybody can distinguish. If there are more, the eight most
    frequent have these and the others colours of scanpy's longest palette.
    """
    names = {*as_text(labels), *predictions["predicted"]} - {""}
    if len(names) <= len(PALETTE):
        return assign_colours(sorted(names))
    count = as_text(labels).value_counts().reindex(sorted(names), fill_value=0)
    ordered = count.sort_values(ascending=False, kind="stable").index
    taken = np.array([to_rgb(name) for name in (*PALETTE, GREY, "white")])
    free = [c for c in godsnot_102 if np.linalg.norm(taken - to_rgb(c), axis=1).min() > 0.25]
    return dict(zip(ordered, cycle([*PALETTE, *free]), strict=False))
