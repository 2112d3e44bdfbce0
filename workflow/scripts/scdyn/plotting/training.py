"""Figure of masked pretraining."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scdyn.plotting.style import GREY, PALETTE, new

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
