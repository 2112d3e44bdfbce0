"""Figure of a task: scores of every method, confusion matrix, scores by class, calibration."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy

from scdyn.plotting.style import GREY, PALETTE, make_blank_figure
from scdyn.settings import MAIN, is_compared
from scdyn.tasks.evaluation import HEADLINES
from scdyn.tasks.methods import choose_model, method_name

NAMES = {"macro_f1": "macro-F1", "accuracy": "accuracy"}
PARTS = {"test": ("held-out cells", "o"), "predict": ("predicted cells that have a label", "D")}


def plot_task(report: Mapping[str, Any]) -> Figure:
    """Plot the evaluation of a task.

    Parameters
    ----------
    report
        Tables of :func:`scdyn.tasks.evaluation.evaluate`.

    Returns
    -------
    Figure
        Macro-F1 and accuracy of all runs by method; of the model, which is its ensemble if there
        are several seeds, the confusion matrix, F1 by class and calibration compared with the best
        baseline; and, if the task has them, macro-F1 by share of the labels and the detection of
        left-out classes.
    """
    summary = report["summary"]
    best, model = find_best_baseline(summary), choose_model(set(summary["method"]))
    n_classes = report["classes"]["class"].nunique()
    n_methods = summary["method"].nunique()
    extra = [name for name in ("efficiency", "novelty") if len(report[name])]
    side = max(3.0, 2.0 + 0.24 * n_classes)
    height = max(3.0, side, 0.28 * n_methods + 1.2)
    # Legends are beneath the lower panels, with one line per method.
    n_lines = max(
        report["efficiency"]["method"].nunique(),
        len(report["novelty"][["method", "by"]].drop_duplicates()),
    )
    low = 3.0 + 0.15 * max(0, n_lines - 3)
    figure = make_blank_figure(11.5, height + low + 0.2)
    above, below = figure.subfigures(2, 1, height_ratios=[height, low])
    wide = max(5.0, 11.5 - side)
    *left, right = above.subplots(1, 3, width_ratios=[0.58 * wide, 0.42 * wide, side])
    plot_methods(left, report["scores"], summary)
    plot_confusion(right, report["confusion"])
    panels = below.subplots(1, 2 + len(extra), squeeze=False)[0]
    plot_classes(panels[0], report["classes"], model, best)
    plot_reliability(panels[1], report["reliability"], [model, *([best] if best else [])])
    for panel, name in zip(panels[2:], extra, strict=True):
        {"efficiency": plot_label_curve, "novelty": plot_novelty}[name](panel, report[name])
    rare = [
        f"{name} ({why})" for name, why in report["metrics"].get("classes_left_out", {}).items()
    ]
    if rare:
        text = textwrap.fill(f"Classes left out as too rare: {', '.join(rare)}", 150)
        below.supxlabel(text, x=0.01, ha="left", fontsize=6, parse_math=False)
    return figure


def find_best_baseline(summary: pd.DataFrame) -> str | None:
    """Find the baseline with the highest macro-F1 on held-out cells; None if there is none."""
    chosen = (summary["part"] == "test") & (summary["score"] == "macro_f1")
    others = summary[chosen & ~summary["method"].map(is_compared)]
    return None if others.empty else others.loc[others["mean"].idxmax(), "method"]


def plot_methods(axes: Sequence[Axes], scores: pd.DataFrame, summary: pd.DataFrame) -> None:
    """Plot the headlines of each run in one panel each, with mean and 95% interval.

    One row per method, by its macro-F1.
    """
    by_f1 = summary[(summary["part"] == "test") & (summary["score"] == "macro_f1")]
    rows = {method: i for i, method in enumerate(by_f1.sort_values("mean")["method"])}
    for axis, score in zip(axes, HEADLINES, strict=True):
        plot_score(axis, score, scores, summary[summary["score"] == score], rows)
    axes[0].set_yticks(range(len(rows)), [method_name(name) for name in rows])
    axes[0].set_title("each fold and seed (grey); mean, 95% interval")
    axes[1].set_yticks(range(len(rows)), [])
    if summary["part"].nunique() > 1:
        add_legend_beneath(axes[0], ncols=2)


def plot_score(
    axis: Axes, score: str, scores: pd.DataFrame, means: pd.DataFrame, rows: Mapping[str, int]
) -> None:
    """Plot one score of each run, with the mean and its interval, on the rows of the methods."""
    parts = [part for part in PARTS if (means["part"] == part).any()]
    for j, part in enumerate(parts):
        name, marker = PARTS[part]
        shift = 0.18 * (j - (len(parts) - 1) / 2) * -2
        for row in means[means["part"] == part].itertuples():
            ours = is_compared(row.method)
            colour = PALETTE[0] if ours else PALETTE[5]
            place = rows[row.method] + shift
            runs = scores[(scores["method"] == row.method) & (scores["part"] == part)]
            runs = runs[runs["variant"].map(is_compared)][score]
            axis.scatter(
                runs, np.full(len(runs), place), s=9, color="#888888", zorder=4, linewidths=0
            )
            if np.isfinite(row.low):
                axis.plot([row.low, row.high], [place, place], color=colour, lw=1.2, zorder=2)
            filled = colour if part == "test" else "white"
            axis.plot(row.mean, place, marker, ms=4, color=colour, mfc=filled, zorder=3)
        axis.plot(
            [], [], marker, ms=4, color="black", mfc="black" if j == 0 else "white", label=name
        )
    lows = means.loc[means["method"] != "majority", ["mean", "low"]].min().min()
    axis.set_xlim(max(0, lows - 0.05), min(1.0, means[["mean", "high"]].max().max() + 0.03))
    left = axis.get_xlim()[0]
    tested = means[means["part"] == "test"]
    for row in tested[tested["mean"] < left].itertuples():
        axis.annotate(
            f"◂ {row.mean:.2f}", (left, rows[row.method]), (3, 0), textcoords="offset points",
            va="center", color="#666666", zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
    axis.set(xlabel=NAMES[score], ylim=(-0.5, len(rows) - 0.5))
    axis.grid(axis="x", color="#EEEEEE")
    axis.set_axisbelow(True)


def add_legend_beneath(axis: Axes, **options: Any) -> None:
    """Add a legend at a fixed distance below the x axis, for panels of any height."""
    place = offset_copy(axis.transAxes, axis.figure, y=-0.38)
    axis.legend(loc="upper center", bbox_to_anchor=(0.4, 0), bbox_transform=place, **options)


def plot_confusion(axis: Axes, confusion: pd.DataFrame) -> None:
    """Plot the confusion matrix of the held-out cells, as shares of each label."""
    classes = sorted(set(confusion.index) | set(confusion.columns))
    confusion = confusion.reindex(index=classes, columns=classes, fill_value=0)
    shares = confusion.div(confusion.sum(1).clip(lower=1), axis=0)
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(classes)), classes, rotation=90)
    axis.set_yticks(range(len(classes)), [f"{c} ({n:,})" for c, n in confusion.sum(1).items()])
    axis.set(xlabel="predicted label", ylabel="label (cells)", title="held-out cells")
    if len(classes) <= 8:
        for i, j in np.ndindex(shares.shape):
            colour = "white" if shares.iat[i, j] > 0.5 else "black"
            text = f"{shares.iat[i, j]:.2f}"
            axis.text(j, i, text, ha="center", va="center", color=colour, fontsize=7)
    axis.figure.colorbar(image, ax=axis, label="share of the label", shrink=0.7, pad=0.03)


def plot_classes(axis: Axes, classes: pd.DataFrame, model: str, best: str | None) -> None:
    """Plot the F1 of each class, for the model and the best baseline."""
    order = classes[classes["method"] == model].sort_values("f1")["class"].tolist()
    for method, colour, shift in ((best, PALETTE[5], -0.2), (model, PALETTE[0], 0.2)):
        if method is None:
            continue
        values = classes[classes["method"] == method].set_index("class")["f1"].reindex(order)
        bars = np.arange(len(order)) + shift
        axis.barh(bars, values, 0.38, color=colour, label=method_name(method))
    axis.set_yticks(range(len(order)), order, fontsize=8 if len(order) <= 10 else 5.5)
    axis.set(xlim=(0, 1), xlabel="F1", title="held-out cells")
    add_legend_beneath(axis, fontsize=7)


def plot_reliability(axis: Axes, reliability: pd.DataFrame, methods: list[str]) -> None:
    """Plot the share of correct predictions over their calibrated probability."""
    axis.plot([0, 1], [0, 1], color=GREY, lw=0.8)
    for method, colour in zip(methods, (PALETTE[0], PALETTE[5]), strict=False):
        part = reliability[reliability["method"] == method]
        axis.plot(part["confidence"], part["correct"], "o-", ms=3, color=colour)
    axis.set(xlabel="calibrated probability", ylabel="share correct", title="reliability")
    axis.set(xlim=(0, 1.02), ylim=(0, 1.05))


def plot_label_curve(axis: Axes, table: pd.DataFrame) -> None:
    """Plot the macro-F1 over the share of the labels, with the number of training cells."""
    table = table[table["score"] == "macro_f1"]
    others = cycle((PALETTE[5], PALETTE[1], PALETTE[2], PALETTE[3], *PALETTE[6:]))
    for method, part in table.groupby("method", sort=False):
        colour = PALETTE[0] if method == MAIN else next(others)
        fewest, most = part["n_training_cells"].agg(["min", "max"])
        name = f"{method_name(method)} ({fewest:,.0f} to {most:,.0f} cells)"
        axis.plot(part["labels"], part["mean"], "o-", ms=3, color=colour, label=name)
        axis.fill_between(part["labels"], part["low"], part["high"], color=colour, alpha=0.15, lw=0)
    axis.set_xscale("log")
    shares = sorted(table["labels"].unique())
    axis.set_xticks(shares, [f"{share:.0%}" for share in shares])
    axis.minorticks_off()
    lowest = max(0.0, table[["mean", "low"]].min().min() - 0.03)
    axis.set(xlabel="share of labels", ylabel="macro-F1", title="fewer labels", ylim=(lowest, 1.0))
    add_legend_beneath(axis, fontsize=6.5)


def plot_novelty(axis: Axes, table: pd.DataFrame) -> None:
    """Plot the AUROC of detecting cells of a class that was left out of the training set."""
    table = table.assign(
        name=[f"{method_name(m)}, {by}" for m, by in zip(table["method"], table["by"], strict=True)]
    )
    wide = table.pivot_table(index="class", columns="name", values="auroc", sort=False)
    wide = wide[sorted(wide, key=lambda name: not name.startswith(method_name(MAIN)))]
    shades = [PALETTE[i] for i in (0, 4, 5, 1, 2, 3, 6, 7)]
    place = np.arange(len(wide))
    for i, name in enumerate(wide):
        shift = (i - (wide.shape[1] - 1) / 2) * 0.8 / wide.shape[1]
        axis.barh(place + shift, wide[name], 0.75 / wide.shape[1], color=shades[i], label=name)
    axis.axvline(0.5, color=GREY, lw=0.8)
    axis.set_yticks(place, wide.index)
    axis.invert_yaxis()  # in the order of the legend
    axis.set(xlim=(0, 1.02), xlabel="AUROC", title="detecting a left-out class")
    add_legend_beneath(axis, fontsize=6.5)
