"""Every figure of the report: functions from tables to matplotlib figures, one style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from scdyn.counts import NO_SOURCE
from scdyn.files import atomic

matplotlib.use("Agg")

# Okabe and Ito's colours, which people with any colour vision can tell apart.
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]
GREY = "#BBBBBB"
STYLE = {
    "figure.constrained_layout.use": True,
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "legend.frameon": False,
    # A name with two $ in it is a name.
    "text.parse_math": False,
    "savefig.dpi": 200,
    # Text stays text, and the same figure gives the same bytes.
    "svg.fonttype": "none",
    "svg.hashsalt": "scdyn",
}


def new(
    n_rows: int, n_columns: int, width: float, height: float, **options: Any
) -> tuple[Figure, Any]:
    """Start a figure in the house style; sizes in inches."""
    plt.rcParams.update(STYLE)
    return plt.subplots(n_rows, n_columns, figsize=(width, height), squeeze=False, **options)


def blank(width: float, height: float) -> Figure:
    """Start an empty figure in the house style, for parts of their own; sizes in inches."""
    plt.rcParams.update(STYLE)
    return plt.figure(figsize=(width, height))


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as its suffix says and close it."""
    with atomic(path) as temporary:
        metadata = {"Date": None} if Path(path).suffix == ".svg" else None
        figure.savefig(temporary, metadata=metadata)
    plt.close(figure)


def colours(names: Sequence[str]) -> dict[str, str]:
    """Give each name a colour; past eight, shades of a continuous map."""
    names = sorted(map(str, names))
    if len(names) <= len(PALETTE):
        return dict(zip(names, PALETTE, strict=False))
    shades = matplotlib.colormaps["turbo"](np.linspace(0.03, 0.97, len(names)))
    return {
        name: matplotlib.colors.to_hex(shade) for name, shade in zip(names, shades, strict=True)
    }


def points(
    axes: Axes,
    layout: np.ndarray,
    labels: pd.Series,
    title: str,
    palette: Mapping[str, str] | None = None,
    legend: bool = True,
) -> None:
    """Scatter cells coloured by a label; missing labels are grey and below the others.

    Parameters
    ----------
    axes
        Where to draw.
    layout
        (cells, 2) positions.
    labels
        (cells,) names.
    title
        Above the axes.
    palette
        Colour of each name, so that a name has one colour throughout a figure; by default
        that of the names at hand.
    legend
        Whether to draw one, of the names at hand.
    """
    labels = labels.astype(object).where(labels.notna(), "").astype(str)
    names = [name for name in sorted(labels.unique()) if name != ""]
    palette = palette or colours(names)
    size = float(np.clip(8000 / max(len(layout), 1), 0.5, 8))
    order = np.random.default_rng(0).permutation(len(layout))  # no class covers another
    order = order[np.argsort(labels.to_numpy()[order] != "", kind="stable")]
    shades = [palette.get(name, GREY) for name in labels.to_numpy()[order]]
    axes.scatter(*layout[order].T, c=shades, s=size, linewidths=0, rasterized=True)
    axes.set_title(title)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if legend:
        handles = [
            plt.Line2D([], [], marker="o", linestyle="", ms=4, color=palette.get(n, GREY), label=n)
            for n in names
        ]
        columns = 1 if len(handles) <= 12 else 2
        axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), ncols=columns)


def landscape(positions: np.ndarray) -> np.ndarray:
    """Turn a section so that its longer side lies flat: (cells, 2) to (cells, 2)."""
    extent = np.nanmax(positions, axis=0) - np.nanmin(positions, axis=0)
    return positions[:, ::-1] if extent[1] > extent[0] else positions


# Measures of a cell that the figure of quality shows before and after, where they are known.
SHOWN_QUALITY = {
    "rna_genes": "genes",
    "mito_share": "mitochondrial share",
    "tss_enrichment": "TSS enrichment",
    "nucleosome_signal": "nucleosome signal",
    "promoter_share": "share in promoters",
    "peak_share": "share in peaks",
    "atac_mito_share": "mitochondrial, ATAC",
    "doublet_score": "doublet score, RNA",
    "promoter_doublet_score": "doublet score, ATAC",
}


def quality(table: pd.DataFrame, sample: str) -> Figure:
    """Knee curves, what decided which cells are kept, and measures before and after."""
    shown = [name for name in SHOWN_QUALITY if name in table]
    knees = {"rna_counts": "RNA counts"}
    against = "rna_genes", "genes"
    if "promoter_counts" in table:
        sources = table.loc[table["promoter_source"] != NO_SOURCE, "promoter_source"]
        against = "promoter_counts", f"promoter counts\n(from {sources.mode()[0]})"
        knees |= [against]
    figure = blank(max(11.5, 1.35 * len(shown)), 5.2)
    above, below = (
        part.subplots(1, n)
        for part, n in zip(figure.subfigures(2, 1), (len(knees) + 2, len(shown)), strict=True)
    )
    kinds = [(True, PALETTE[0], "kept"), (False, PALETTE[5], "dropped")]
    for axis, (column, name) in zip(above, knees.items(), strict=False):
        for kept, colour, label in kinds:
            values = table.loc[table["kept"] == kept, column].sort_values(ascending=False)
            ranks = np.arange(1, len(values) + 1)
            axis.plot(ranks, values.clip(lower=1), color=colour, label=label)
        axis.set(xscale="log", yscale="log", xlabel="barcodes, by rank", ylabel=name)
        axis.legend()
    above[0].set_title(f"{sample}: {table['kept'].sum():,} of {len(table):,} cells kept")
    column, name = against
    for kept, colour, _ in kinds[::-1]:
        part = table.loc[table["kept"] == kept, ["rna_counts", column]].clip(lower=1)
        above[-2].scatter(*part.to_numpy().T, s=2, color=colour, linewidths=0)
    above[-2].set(xscale="log", yscale="log", xlabel="RNA counts", ylabel=name)
    for panel in above[:-1]:
        legible_decades(panel.xaxis)
        legible_decades(panel.yaxis)
    dropping_reasons(above[-1], table)
    for axis, name in zip(below, shown, strict=True):
        violins(axis, [table[name], table.loc[table["kept"], name]], SHOWN_QUALITY[name])
    return figure


def legible_decades(axis: Axis) -> None:
    """Label a logarithmic axis in plain numbers, between decades only where there are few."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_minor_formatter(NullFormatter())


def dropping_reasons(axis: Axes, table: pd.DataFrame) -> None:
    """Bars of why cells were dropped; a cell may have several reasons."""
    dropped = table.loc[~table["kept"], "reason"].astype(str)
    reasons = dropped.str.split("; ").explode().value_counts()[::-1]
    bars = axis.barh(reasons.index, reasons, color=PALETTE[5])
    axis.bar_label(bars, padding=2)
    axis.set(xlabel="cells (one may have several)", title="why dropped")
    axis.set_ylim(-0.6, max(len(reasons), 4) - 0.4)  # few bars stay thin


def violins(axis: Axes, values: Sequence[pd.Series], name: str) -> None:
    """Violins of one measure before and after quality control, with the medians."""
    for place, (part, colour) in enumerate(zip(values, (GREY, PALETTE[0]), strict=True)):
        part = part.dropna().to_numpy(dtype=float)
        if len(part) > 1 and np.ptp(part) > 0:
            body = axis.violinplot(part, [place], widths=0.8, showextrema=False)["bodies"][0]
            body.set(facecolor=colour, alpha=0.8)
        if len(part):
            axis.plot(place, np.median(part), "o", ms=3, color="black")
    axis.set_xticks([0, 1], ["before", "after"])
    axis.set(title=name, xlim=(-0.6, 1.6))


# Prefix of a predictor's scores: what it is called, and its colour.
PREDICTORS = {
    "mode_": ("gene-wise mode", PALETTE[5]),
    "mean_": ("gene-wise mean", PALETTE[1]),
    "frequency_": ("gene-wise frequencies", PALETTE[3]),
}


def pretraining(history: pd.DataFrame, scores: Mapping[str, float]) -> Figure:
    """Masked loss by epoch, and of each kind of bin, beside predictors that know only the gene."""
    figure, axes = new(1, 2, 8.4, 2.8)
    axis = axes[0, 0]
    epochs = history["epoch"]
    axis.plot(epochs, history["loss"], color=GREY, label="training cells")
    held_out = {"color": PALETTE[0], "marker": "o", "ms": 3, "label": "held-out cells"}
    axis.plot(epochs, history["masked_loss"], **held_out)
    for prefix, (label, colour) in PREDICTORS.items():
        axis.axhline(scores[f"{prefix}masked_loss"], color=colour, linestyle="--", label=label)
    axis.set(xlabel="epoch", ylabel="masked loss (nats a gene)")
    loss_bars(axes[0, 1], scores)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right upper")
    return figure


def loss_bars(axis: Axes, scores: Mapping[str, float]) -> None:
    """Bars of the masked loss where a bin is zero and where it is not, a group a modality."""
    kinds = {
        f"{modality}_{kind}_loss": f"{title},\n{name}"
        for modality, title in (("rna", "RNA"), ("promoter", "promoter"))
        for kind, name in (("zero", "zero"), ("nonzero", "not zero"))
    }
    kinds = {key: name for key, name in kinds.items() if key in scores}
    shades = {"": PALETTE[0]} | {prefix: colour for prefix, (_, colour) in PREDICTORS.items()}
    for i, (prefix, colour) in enumerate(shades.items()):
        values = [scores[prefix + key] for key in kinds]
        place = np.arange(len(kinds)) + (i - 1.5) * 0.2
        axis.bar(place, values, 0.18, color=colour)
    axis.set_xticks(range(len(kinds)), kinds.values())
