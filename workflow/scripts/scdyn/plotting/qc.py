"""Figure of a sample's quality control."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from scdyn.plotting.style import GREY, PALETTE, make_blank_figure
from scdyn.pp.counts import NO_SOURCE

# QC metrics shown before and after filtering, if the table has them, and their titles.
SHOWN_QUALITY = {
    "rna_genes": "genes",
    "mito_share": "mitochondrial share",
    "tss_enrichment": "TSS enrichment",
    "nucleosome_signal": "nucleosome signal",
    "promoter_share": "share in promoters",
    "peak_share": "share in peaks",
    "atac_mito_share": "mitochondrial, ATAC",
    "doublet_score": "doublets, RNA",
    "promoter_doublet_score": "doublets, ATAC",
}


def plot_quality(table: pd.DataFrame, sample: str) -> Figure:
    """Plot knee curves, kept and dropped cells, and QC metrics before and after filtering."""
    shown = [name for name in SHOWN_QUALITY if name in table]
    knees = {"rna_counts": "RNA counts"}
    other = "rna_genes", "genes"
    if "promoter_counts" in table:
        sources = table.loc[table["promoter_source"] != NO_SOURCE, "promoter_source"]
        other = "promoter_counts", f"promoter counts\n(from {sources.mode()[0]})"
        knees |= [other]
    figure = make_blank_figure(max(11.5, 1.35 * len(shown)), 5.2)
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
        axis.set(xscale="log", yscale="log", xlabel="rank of the barcode", ylabel=name)
        axis.legend()
    above[0].set_title(f"{sample}: {table['kept'].sum():,} of {len(table):,} cells kept")
    column, name = other
    for kept, colour, _ in kinds[::-1]:
        part = table.loc[table["kept"] == kept, ["rna_counts", column]].clip(lower=1)
        above[-2].scatter(*part.to_numpy().T, s=2, color=colour, linewidths=0)
    above[-2].set(xscale="log", yscale="log", xlabel="RNA counts", ylabel=name)
    for panel in above[:-1]:
        label_decades(panel.xaxis)
        label_decades(panel.yaxis)
    plot_reasons(above[-1], table)
    for axis, name in zip(below, shown, strict=True):
        plot_violins(axis, [table[name], table.loc[table["kept"], name]], SHOWN_QUALITY[name])
    return figure


def label_decades(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers: decades, and 2 and 5 between if it is short."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_minor_formatter(NullFormatter())


def plot_reasons(axis: Axes, table: pd.DataFrame) -> None:
    """Plot the number of dropped cells by reason; a cell may have several."""
    dropped = table.loc[~table["kept"], "reason"].astype(str)
    reasons = dropped.str.split("; ").explode().value_counts()[::-1]
    bars = axis.barh(reasons.index, reasons, color=PALETTE[5])
    axis.bar_label(bars, padding=2)
    axis.set(xlabel="cells (several reasons possible)", title="reasons for dropping")
    axis.set_ylim(-0.6, max(len(reasons), 4) - 0.4)  # keeps few bars thin


def plot_violins(axis: Axes, values: Sequence[pd.Series], name: str) -> None:
    """Plot one metric before and after quality control as violins, with the medians."""
    for place, (part, colour) in enumerate(zip(values, (GREY, PALETTE[0]), strict=True)):
        part = part.dropna().to_numpy(dtype=float)
        if len(part) > 1 and np.ptp(part) > 0:
            body = axis.violinplot(part, [place], widths=0.8, showextrema=False)["bodies"][0]
            body.set(facecolor=colour, alpha=0.8)
        if len(part):
            axis.plot(place, np.median(part), "o", ms=3, color="black")
    axis.set_xticks([0, 1], ["before", "after"])
    axis.set(title=name, xlim=(-0.6, 1.6))
