"""Figure that compares embeddings: their scores, and a UMAP of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scdyn.plotting.style import STYLE, scatter_labels
from scdyn.tasks.embeddings import EMBEDDINGS, MEAN

# Kinds of scores from left to right, and their titles.
KIND_TITLES = {
    "labels kept": "labels kept (high is good)",
    "batches mixed": "batches mixed (high is good)",
    MEAN: "scib means",
    "library size": "depth\n(low is good)",
}


def plot_embeddings(
    scores: pd.DataFrame,
    layouts: Mapping[str, np.ndarray],
    obs: pd.DataFrame,
    labels: Sequence[str],
    batch: str,
) -> Figure:
    """Plot a table of scores per label, and a UMAP per embedding and column.

    Parameters
    ----------
    scores
        As :func:`scdyn.tasks.embeddings.score_embeddings`, with those of scib-metrics if it was
        run.
    layouts
        Key of the embedding to its UMAP, (cells, 2).
    obs
        One row per cell.
    labels, batch
        Columns of ``obs`` to colour by.
    """
    plt.rcParams.update(STYLE)
    tables = {label: lay_out_scores(scores, label) for label in labels or [""]}
    above = sum(1.5 + 0.2 * len(table) for table in tables.values())
    below = 1.9 * (1 + len(labels))
    figure = plt.figure(figsize=(2.1 * len(layouts) + 1.6, above + below))
    top, bottom = figure.subfigures(2, 1, height_ratios=[above, below])
    panels = top.subplots(len(tables), 1, squeeze=False)[:, 0]
    for axis, (label, table) in zip(panels, tables.items(), strict=True):
        draw_table(axis, table, label)
    bottom.suptitle(f"{len(obs):,} cells", fontsize=8)
    axes = bottom.subplots(1 + len(labels), len(layouts), squeeze=False)
    for (i, j), axis in np.ndenumerate(axes):
        column, embedding = [batch, *labels][i], list(layouts)[j]
        title = EMBEDDINGS[embedding][1] if i == 0 else ""
        scatter_labels(axis, layouts[embedding], obs[column], title, legend=j == len(layouts) - 1)
        if j == 0:
            axis.set_ylabel(column)
    return figure


def lay_out_scores(scores: pd.DataFrame, label: str) -> pd.DataFrame:
    """Lay out the scores of one label: one row per embedding, columns (kind, metric)."""
    chosen = scores[scores["label"].isin(["", label])]
    wide = chosen.pivot(index="embedding", columns=["kind", "metric"], values="value")
    present = dict.fromkeys(zip(chosen["kind"], chosen["metric"], strict=True))
    columns = sorted(present, key=lambda column: list(KIND_TITLES).index(column[0]))
    return wide.loc[[name for name in EMBEDDINGS if name in wide.index], columns]


def draw_table(axis: Axes, table: pd.DataFrame, label: str) -> None:
    """Draw scores between 0 and 1 as a table: darker is higher; high blue values are good."""
    kinds = table.columns.get_level_values("kind").to_numpy()
    shades = np.stack(
        [
            matplotlib.colormaps["Oranges" if kind == "library size" else "Blues"](column / 1.2)
            for kind, column in zip(kinds, table.to_numpy().T, strict=True)
        ],
        axis=1,
    )
    axis.imshow(shades, aspect="auto")
    for (i, j), value in np.ndenumerate(table.to_numpy()):
        colour = "white" if value > 0.7 else "black"
        text = "–" if np.isnan(value) else f"{value:.2f}".replace("-0.00", "0.00")
        axis.text(j, i, text, ha="center", va="center", color=colour, fontsize=7)
    for kind in dict.fromkeys(kinds):
        place = np.flatnonzero(kinds == kind)
        axis.text(place.mean(), -0.65, KIND_TITLES[kind], ha="center", va="bottom", fontsize=7)
        axis.axvline(place[-1] + 0.5, color="white", linewidth=3)
    axis.set_xticks(range(len(kinds)), table.columns.get_level_values("metric"))
    plt.setp(axis.get_xticklabels(), rotation=40, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(table)), [EMBEDDINGS[name][1] for name in table.index])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_ylabel(label)
