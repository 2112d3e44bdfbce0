"""The style of all figures, and what they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scdyn.io.files import atomic

matplotlib.use("Agg")

# Okabe and Ito's colours, which can be distinguished with any colour vision.
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]
GREY = "#BBBBBB"
STYLE = {
    "figure.constrained_layout.use": True,
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "legend.frameon": False,
    # Names may contain $, which matplotlib would read as mathematics.
    "text.parse_math": False,
    "savefig.dpi": 200,
    # Keep text as text, and write the same bytes for the same figure.
    "svg.fonttype": "none",
    "svg.hashsalt": "scdyn",
}


def make_figure(
    n_rows: int, n_columns: int, width: float, height: float, **options: Any
) -> tuple[Figure, Any]:
    """Make a figure with a grid of axes in the common style; sizes in inches."""
    plt.rcParams.update(STYLE)
    return plt.subplots(n_rows, n_columns, figsize=(width, height), squeeze=False, **options)


def make_blank_figure(width: float, height: float) -> Figure:
    """Make a figure without axes in the common style, for subfigures; sizes in inches."""
    plt.rcParams.update(STYLE)
    return plt.figure(figsize=(width, height))


def save(figure: Figure, *paths: str | Path) -> None:
    """Write a figure to each path, in the format of the suffix, and close it."""
    for path in paths:
        with atomic(path) as temporary:
            metadata = {"Date": None} if Path(path).suffix == ".svg" else None
            figure.savefig(temporary, metadata=metadata)
    plt.close(figure)


def assign_colours(names: Sequence[str]) -> dict[str, str]:
    """Assign a colour to each name; more than eight get shades of a continuous colour map."""
    names = sorted(map(str, names))
    if len(names) <= len(PALETTE):
        return dict(zip(names, PALETTE, strict=False))
    shades = matplotlib.colormaps["turbo"](np.linspace(0.03, 0.97, len(names)))
    return {
        name: matplotlib.colors.to_hex(shade) for name, shade in zip(names, shades, strict=True)
    }


def scatter_labels(
    axes: Axes,
    layout: np.ndarray,
    labels: pd.Series,
    title: str,
    palette: Mapping[str, str] | None = None,
    legend: bool = True,
) -> None:
    """Scatter cells coloured by a label, above cells without a label, in grey.

    Parameters
    ----------
    axes
        Axes to plot on.
    layout
        (cells, 2) positions.
    labels
        (cells,) names.
    title
        Title of the axes.
    palette
        Colour of each name, so that it is the same in all panels; by default assigned to the
        names in ``labels``.
    legend
        Whether to draw a legend of the names in ``labels``.
    """
    labels = labels.astype(object).where(labels.notna(), "").astype(str)
    names = [name for name in sorted(labels.unique()) if name != ""]
    palette = palette or assign_colours(names)
    size = float(np.clip(8000 / max(len(layout), 1), 0.5, 8))
    order = np.random.default_rng(0).permutation(len(layout))  # so that no class covers another
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
