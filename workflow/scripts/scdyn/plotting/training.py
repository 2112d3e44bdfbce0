"""Figures of pretraining."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scdyn.plotting.style import GREY, PALETTE, make_figure

# Baselines of masked pretraining that ignore the cell: prefix of the scores to name and colour.
PREDICTORS = {
    "mode_": ("mode per gene", PALETTE[5]),
    "mean_": ("mean per gene", PALETTE[1]),
    "frequency_": ("frequencies per gene", PALETTE[3]),
}
MODALITIES = {"rna": "RNA", "promoter": "promoters"}
HELD_OUT = {"color": PALETTE[0], "marker": "o", "ms": 3, "label": "held-out cells"}


def plot_pretraining(history: pd.DataFrame, scores: Mapping[str, float]) -> Figure:
    """Plot the losses of held-out cells by epoch, compared with baselines that ignore the cell."""
    if "masked_loss" in history:
        return plot_masked_pretraining(history, scores)
    names = {name: title for name, title in MODALITIES.items() if f"{name}_cell_loss" in scores}
    figure, axes = make_figure(1, len(names), 0.6 + 3.6 * len(names), 2.8)
    for axis, (name, title) in zip(axes.flat, names.items(), strict=True):
        axis.plot(history["epoch"], history[f"{name}_cell_loss"], **HELD_OUT)
        mean = scores[f"mean_{name}_cell_loss"]
        axis.axhline(mean, color=PALETTE[1], linestyle="--", label="mean profile")
        axis.set(title=title, xlabel="epoch", ylabel="nats per predicted count")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def plot_masked_pretraining(history: pd.DataFrame, scores: Mapping[str, float]) -> Figure:
    """Plot the masked loss by epoch and by kind of bin, of ``architecture: paper``."""
    figure, axes = make_figure(1, 2, 8.4, 2.8)
    axis = axes[0, 0]
    epochs = history["epoch"]
    axis.plot(epochs, history["loss"], color=GREY, label="training cells")
    axis.plot(epochs, history["masked_loss"], **HELD_OUT)
    for prefix, (label, colour) in PREDICTORS.items():
        axis.axhline(scores[f"{prefix}masked_loss"], color=colour, linestyle="--", label=label)
    axis.set(xlabel="epoch", ylabel="masked loss (nats per gene)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot_losses(axes[0, 1], scores)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right upper")
    return figure


def plot_losses(axis: Axes, scores: Mapping[str, float]) -> None:
    """Plot the masked loss of zero and non-zero bins, per modality."""
    kinds = {
        f"{modality}_{kind}_loss": f"{title},\n{name}"
        for modality, title in MODALITIES.items()
        for kind, name in (("zero", "zero bins"), ("nonzero", "other bins"))
    }
    kinds = {key: name for key, name in kinds.items() if key in scores}
    shades = {"": PALETTE[0]} | {prefix: colour for prefix, (_, colour) in PREDICTORS.items()}
    for i, (prefix, colour) in enumerate(shades.items()):
        values = [scores[prefix + key] for key in kinds]
        place = np.arange(len(kinds)) + (i - 1.5) * 0.2
        axis.bar(place, values, 0.18, color=colour)
    axis.set_xticks(range(len(kinds)), kinds.values())
    axis.set_ylabel("masked loss (nats per gene)")
