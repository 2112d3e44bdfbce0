"""Figures of the studies: maps, trends along pseudotime, order on sections, changes, genes."""

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

from scdyn.plotting.style import GREY, PALETTE, colours, new, points
from scdyn.studies.common import as_text, turn_landscape
from scdyn.tasks.methods import method_name

# Which colour says which modality or method, in all figures.
MODALITY_COLOURS = {"rna": PALETTE[0], "promoter": PALETTE[1]}
METHOD_COLOURS = {"scdynomics": PALETTE[0], "logistic_regression": PALETTE[1]}
MOST_SECTIONS = 6  # drawn; the table has all


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
    """Area of a cell's mark, by how many there are, as in :func:`scdyn.plotting.style.points`."""
    return float(np.clip(8000 / max(n_cells, 1), 0.5, 8))


def words(text: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure, axes = new(1, 1, 4, 1)
    axes[0, 0].text(0.5, 0.5, text, ha="center")
    axes[0, 0].axis("off")
    return figure


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
    """Maps of the cells as labelled, by predicted fate and by pseudotime.

    Parameters
    ----------
    layout
        (cells, 2).
    table
        Of :func:`scdyn.studies.development.development_table`.
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
    fates = table["predicted"].where(asked)
    named(axes[0, 1], layout, fates, f"predicted fate ({fates.count():,})", palette)
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
    """Probabilities of the predicted fates along pseudotime, and what one modality alone knows.

    Parameters
    ----------
    trends
        Of :func:`scdyn.studies.development.fate_trends`.
    agreement
        Of :func:`scdyn.studies.development.measure_agreement`; None where no modality was
        read alone.
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
    axis.set(ylim=(0, 1.02), xlabel="pseudotime", ylabel="probability of the predicted fate")
    axis.legend(title="predicted fate (cells)", **below)
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
    name: str,
) -> Figure:
    """Heat map of each fate's drivers along pseudotime, a panel a fate.

    Parameters
    ----------
    times, genes, fates, trends
        Of :func:`scdyn.studies.development.driver_trends`.
    name
        What to call the values.
    """
    if not fates:
        return words("none of the predicted fates has drivers")
    figure, axes = new(1, len(fates), 1.6 + 2.2 * len(fates), 1 + 0.15 * len(genes), sharey=True)
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


def section_maps(
    positions: np.ndarray, section: pd.Series, table: pd.DataFrame, label: str, palette: Mapping
) -> Figure:
    """Maps of labels, predicted fates and confidence, one row per section.

    Parameters
    ----------
    positions
        (cells, 2).
    section
        (cells,) names.
    table
        (cells,) rows: ``label``, ``predicted`` and ``confidence``, missing where no fate is asked.
    label
        The label's name.
    palette
        Colours of labels and fates.
    """
    names = sorted(section.unique())[:MOST_SECTIONS]
    parts, heights = [], []
    for name in names:
        here = (section == name).to_numpy()
        layout = turn_landscape(positions[here])
        extent = np.ptp(layout, axis=0)
        parts.append((name, table[here], layout))
        heights.append(0.3 + float(np.clip(3.6 * extent[1] / max(extent[0], 1e-9), 0.7, 3.6)))
    figure, axes = new(len(names), 3, 12, sum(heights), height_ratios=heights)
    limits = (table["confidence"].min(), 1.0)
    for row, (name, part, layout) in zip(axes, parts, strict=True):
        labels = part["label"].where(part["label"] != "")
        named(row[0], layout, labels, f"{name}: {label} ({labels.count():,})", palette)
        named(
            row[1], layout, part["predicted"], f"predicted ({part['predicted'].count():,})", palette
        )
        shaded(figure, row[2], layout, part["confidence"], "probability of the prediction", limits)
        for axis in row:
            axis.set_aspect("equal")
    shown = {*table["label"], *table["predicted"].dropna()} - {""}
    legend_below(figure, sorted(shown), palette)
    return figure


def coherence(table: pd.DataFrame) -> Figure:
    """Moran's I of each class's probability, a point a section, over the permutations' interval.

    Parameters
    ----------
    table
        Of :func:`scdyn.studies.spatial.coherence_table`.
    """
    if table.empty:
        return words("no section has enough predicted cells")
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


def label_colours(labels: pd.Series, calls: pd.DataFrame) -> dict[str, str]:
    """One colour for each label of the corpus and each class that is called.

    Up to eight are told apart by any colour vision. Of more, the eight commonest are, and the
    others have colours of scanpy's longest palette.
    """
    names = {*as_text(labels), *calls["predicted"]} - {""}
    if len(names) <= len(PALETTE):
        return colours(sorted(names))
    count = as_text(labels).value_counts().reindex(sorted(names), fill_value=0)
    ordered = count.sort_values(ascending=False, kind="stable").index
    taken = np.array([to_rgb(name) for name in (*PALETTE, GREY, "white")])
    free = [c for c in godsnot_102 if np.linalg.norm(taken - to_rgb(c), axis=1).min() > 0.25]
    return dict(zip(ordered, cycle([*PALETTE, *free]), strict=False))
