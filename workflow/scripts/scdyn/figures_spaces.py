"""Figure of embeddings side by side: their scores, and maps of the cells in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scdyn.figures import STYLE, points
from scdyn.spaces import MEAN, SPACES

# Kinds of scores from left to right, and what is said above them.
KINDS = {
    "labels kept": "labels kept (more is better)",
    "batches mixed": "batches mixed (more is better)",
    MEAN: "means",
    "library size": "library size\n(less is better)",
}


def embeddings(
    scores: pd.DataFrame,
    layouts: Mapping[str, np.ndarray],
    obs: pd.DataFrame,
    labels: Sequence[str],
    batch: str,
) -> Figure:
    """Draw a table of scores a label, and a UMAP an embedding coloured by each column.

    Parameters
    ----------
    scores
        As :func:`scdyn.spaces.judge`, with those of scib-metrics where it was run.
    layouts
        Key of the embedding to (cells, 2).
    obs
        The cells' table.
    labels, batch
        Its columns that are shown.
    """
    plt.rcParams.update(STYLE)
    tables = [score_table(scores, label) for label in labels or [""]]
    above = sum(1.5 + 0.25 * len(table) for table in tables)
    below = 2.0 * (1 + len(labels))
    width = max(2.1 * len(layouts) + 1.7, 2.2 + 0.5 * max(map(lambda t: t.shape[1], tables)))
    figure = plt.figure(figsize=(width, above + below))
    top, bottom = figure.subfigures(2, 1, height_ratios=[above, below])
    for axis, table, label in zip(
        top.subplots(len(tables), 1, squeeze=False)[:, 0], tables, labels or [""], strict=True
    ):
        heat_table(axis, table, label)
    axes = bottom.subplots(1 + len(labels), len(layouts), squeeze=False)
    for row, column in zip(axes, [batch, *labels], strict=True):
        for i, (axis, (space, layout)) in enumerate(zip(row, layouts.items(), strict=True)):
            last = i == len(layouts) - 1
            points(axis, layout, obs[column], SPACES[space][1], legend=last)
        row[0].set_ylabel(column)
    return figure


def score_table(scores: pd.DataFrame, label: str) -> pd.DataFrame:
    """One label's scores, and those of no label: a row an embedding, columns (kind, metric)."""
    chosen = scores[scores["label"].isin(["", label])]
    wide = chosen.pivot(index="space", columns=["kind", "metric"], values="value")
    columns = [column for kind in KINDS for column in wide if column[0] == kind]
    return wide.loc[[space for space in SPACES if space in wide.index], columns]


def heat_table(axis: Axes, table: pd.DataFrame, label: str) -> None:
    """Draw scores between 0 and 1 as a table whose shades are the values."""
    values = table.to_numpy()
    axis.imshow(values, cmap="Blues", vmin=0, vmax=1.2, aspect="auto")
    for i, j in np.ndindex(values.shape):
        text = f"{values[i, j]:.2f}"
        colour = "white" if values[i, j] > 0.7 else "black"
        axis.text(j, i, text, ha="center", va="center", color=colour, fontsize=7)
    kinds = table.columns.get_level_values("kind").to_numpy()
    for kind in dict.fromkeys(kinds):
        place = np.flatnonzero(kinds == kind)
        axis.text(place.mean(), -0.75, KINDS[kind], ha="center", va="bottom")
        axis.axvline(place[-1] + 0.5, color="white", linewidth=3)
    axis.set_xticks(range(values.shape[1]), table.columns.get_level_values("metric"))
    axis.tick_params(axis="x", rotation=45, length=0)
    plt.setp(axis.get_xticklabels(), ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(table)), [SPACES[space][1] for space in table.index])
    axis.tick_params(axis="y", length=0)
    axis.spines[:].set_visible(False)
    axis.set_ylabel(label)
