"""Figures of an explanation: drivers, regulons, checks and in-silico perturbation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scdyn.plotting.style import GREY, PALETTE, assign_colours, make_figure

# Most classes whose measured and predicted expression is shown.
COMPARED_CLASSES = 3
RANKINGS = {
    "attribution": ("attribution", PALETTE[0], "-"),
    "logistic_regression": ("logistic regression", PALETTE[1], "-"),
    "wilcoxon": ("Wilcoxon", PALETTE[2], "-"),
    "matched": ("random, similar expression", PALETTE[7], "--"),
    "random": ("random", GREY, "--"),
}


def make_panels(
    n_panels: int, width: float, height: float, n_columns: int = 4
) -> tuple[Figure, list]:
    """Make panels in rows of at most ``n_columns``, and hide those left over in the last row."""
    columns = min(n_panels, n_columns)
    rows = int(np.ceil(n_panels / columns))
    figure, axes = make_figure(rows, columns, width * columns, height * rows)
    for axis in axes.flat[n_panels:]:
        axis.axis("off")
    return figure, list(axes.flat[:n_panels])


def plot_drivers(table: pd.DataFrame, n_genes: int = 20) -> Figure:
    """Plot the genes of the highest specificity per class, with their intervals.

    Parameters
    ----------
    table
        As :func:`scdyn.explain.drivers.drivers_table`.
    n_genes
        Number of genes per class.
    """
    classes = table["class"].unique()
    figure, axes = make_panels(len(classes), 2.7, 3.6)
    for axis, name in zip(axes, classes, strict=True):
        top = table[table["class"] == name].head(n_genes)[::-1]
        place = np.arange(len(top))
        bounds = top["specificity_low"], top["specificity_high"]
        axis.hlines(place, *bounds, color=GREY, linewidth=3, label="95% interval")
        shown = {"specificity": ("k", "o", "both"), "specificity_rna": (PALETTE[0], "^", "RNA")}
        shown["specificity_promoter"] = (PALETTE[1], "s", "promoter")
        for column, (colour, marker, label) in shown.items():
            axis.plot(top[column], place, marker, color=colour, ms=3, label=label)
        names = top["symbol"] + top["wilcoxon_rank"].map(" ({:.0f})".format)
        axis.set_yticks(place, names)
        for tick, is_tf in zip(axis.get_yticklabels(), top["is_tf"], strict=True):
            tick.set_fontweight("bold" if is_tf else "normal")
        axis.axvline(0, color="k", linewidth=0.5)
        axis.set(title=name, xlabel="specificity")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    figure.suptitle("bold: TFs; in brackets: rank by Wilcoxon test", fontsize=8)
    return figure


def plot_regulons(table: pd.DataFrame, n_regulons: int = 12) -> Figure:
    """Plot the regulons whose genes have larger attributions than genes of similar expression.

    Parameters
    ----------
    table
        As :func:`scdyn.explain.gene_sets.regulon_attribution`.
    n_regulons
        Number of regulons per class.
    """
    classes = table["class"].unique()
    figure, axes = make_panels(max(len(classes), 1), 2.7, 0.8 + 0.2 * n_regulons)
    for axis, name in zip(axes, classes, strict=False):
        top = table[table["class"] == name].head(n_regulons)[::-1]
        shades = [PALETTE[0] if q <= 0.05 else GREY for q in top["q"]]
        axis.barh(top["regulon"], top["z"], color=shades)
        for place, (z, share) in enumerate(zip(top["z"], top["attribution"], strict=True)):
            axis.annotate(
                f"{share:.1%}", (max(z, 0), place), (3, 0), textcoords="offset points",
                va="center", fontsize=7,
            )  # fmt: skip
        axis.set(title=name, xlabel="z-score against permuted genes")
        axis.margins(x=0.25)
    if len(classes) == 0:
        axes[0].set_title("no regulon has three genes in the vocabulary")
    figure.suptitle("percentages: share of the total attribution; blue: q <= 0.05", fontsize=8)
    return figure


def plot_cascade(axis: Axes, checks: Mapping[str, Any]) -> None:
    """Plot rank correlations with randomised models and with a model of permuted labels."""
    steps = checks["cascade_correlation"]
    table = pd.DataFrame({step["down_to"]: step["correlation"] for step in steps})
    table["labels\npermuted"] = pd.Series(checks["label_correlation"])
    palette = assign_colours(table.index)
    for name, row in table.iterrows():
        colour = palette[str(name)]
        axis.plot(range(len(row) - 1), row[:-1], "o-", ms=3, color=colour, label=name)
        axis.plot([len(row) - 1], row.iloc[-1:], "D", ms=4, color=colour)
    names = [name.replace("layer", "layer\n") for name in table]
    axis.set_xticks(range(len(names)), names, fontsize=7)
    axis.axhline(0, color="k", linewidth=0.5)
    axis.set(ylim=(-0.6, 1), ylabel="rank correlation", title="layers randomised, from the head to")
    if len(table) <= 8:
        axis.legend(fontsize=7)


def plot_agreement(axis: Axes, checks: Mapping[str, Any]) -> None:
    """Plot the agreement between runs: one row per measure, one point per class."""
    rows = [
        (f"{'Spearman' if measure == 'spearman' else 'top-50 Jaccard'},\n{kind}", values)
        for measure, kinds in checks["stability"].items()
        for kind, values in kinds.items()
    ]
    for place, (_, values) in enumerate(rows[::-1]):
        found = list(values.values())
        axis.plot(found, np.full(len(found), place), "o", ms=4, color=PALETTE[0], alpha=0.7)
    axis.set_yticks(range(len(rows)), [name for name, _ in rows[::-1]])
    axis.set(xlim=(0, 1), ylim=(-0.5, max(len(rows), 1) - 0.5))
    axis.set(title="agreement between runs", xlabel="agreement (one point per class)")


def plot_curves(axis: Axes, table: pd.DataFrame, what: str) -> None:
    """Plot the mean probability of the class over the number of genes deleted or inserted."""
    part = table[table["what"] == what]
    for ranking, (label, colour, line) in RANKINGS.items():
        mean = part[part["ranking"] == ranking].groupby("n_genes")["probability"].mean()
        axis.plot(mean.index, mean, line, color=colour, label=label, marker=".", ms=4)
    axis.set_xscale("symlog", linthresh=1)
    sizes = sorted(part["n_genes"].unique())
    axis.set_xticks(sizes, sizes)
    axis.minorticks_off()
    axis.set(ylim=(0, 1.02), xlabel="number of top genes", ylabel="probability of the class")
    axis.set_title("top genes silenced" if what == "deletion" else "all but the top genes silenced")
    axis.tick_params(axis="x", labelsize=7)


def plot_checks(content: Mapping[str, Any], table: pd.DataFrame) -> Figure:
    """Plot the checks: completeness, randomisation, agreement of runs, deletion and insertion.

    Parameters
    ----------
    content
        ``checks.json``.
    table
        As :func:`scdyn.explain.checks.compute_deletion_curves`.
    """
    figure, axes = make_figure(2, 2, 7.2, 5.6)
    plot_cascade(axes[0, 0], content)
    plot_agreement(axes[0, 1], content)
    for axis, what in zip(axes[1], ("deletion", "insertion"), strict=True):
        plot_curves(axis, table, what)
    figure.legend(
        *axes[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=7
    )
    error = content["completeness"]
    figure.suptitle(
        f"error of the attributions' sum: median {error['median']:.2%}, 95th percentile "
        f"{error['percentile_95']:.2%} ({content['n_paths']:,} paths)",
        fontsize=8,
    )
    return figure


def plot_in_silico(effects: pd.DataFrame, measured: pd.DataFrame, knockout: pd.DataFrame) -> Figure:
    """Plot the shift of each class by perturbations, compared with random genes and a knockout.

    Parameters
    ----------
    effects, measured, knockout
        As :func:`scdyn.explain.in_silico.perturb_task`. Of the knockout, the classes with the most
        cells, without those in which the edit changes nothing.
    """
    classes = effects["class"].unique()
    n_edits = effects.groupby("class").size().max()
    cells = knockout[knockout["silenced"] != 0].groupby("class")["n_perturbed"].max()
    cells = cells.sort_values(ascending=False)
    compared = list(cells.index[:COMPARED_CLASSES])
    n_panels = len(classes) + bool(len(measured)) + len(compared)
    height = max(1.5 + 0.22 * n_edits, 2.6 if compared else 0)
    figure, axes = make_panels(n_panels, 2.9, height, 3)
    for axis, name in zip(axes, classes, strict=False):
        part = effects[effects["class"] == name][::-1]
        place = np.arange(len(part))
        shades = [PALETTE[5] if p <= 0.05 else PALETTE[0] for p in part["shift_p"]]
        axis.barh(place, part["shift"], color=shades, height=0.6)
        axis.plot(part["random_shift"], place, "|", color="k", ms=8, mew=2)
        axis.set_yticks(place, part["perturbation"] + np.where(part["raised"], " raised", ""))
        axis.axvline(0, color="k", linewidth=0.5)
        axis.locator_params(axis="x", nbins=4)
        axis.set(title=f"{name} cells", xlabel="shift of the class's log-odds")
    if len(measured):
        plot_measured(axes[len(classes)], measured)
    for axis, name in zip(axes[n_panels - len(compared) :], compared, strict=True):
        plot_fold_changes(axis, name, knockout[knockout["class"] == name])
    figure.suptitle(
        "orange: p <= 0.05; black: mean of random genes of similar expression", fontsize=8
    )
    return figure


def plot_measured(axis: Axes, measured: pd.DataFrame) -> None:
    """Plot the measured and the predicted shift of each class's probability in a knockout."""
    shifts = measured.set_index("method").filter(regex="^shift_").rename(columns=lambda c: c[6:])
    shifts = shifts.loc[["measured", "silenced", "random genes"]]
    for i, (method, row) in enumerate(shifts.iterrows()):
        place = np.arange(len(row)) + (i - 1) * 0.25
        axis.barh(place, row, 0.22, color=("k", PALETTE[0], PALETTE[1])[i], label=method)
    axis.set_yticks(range(shifts.shape[1]), shifts.columns)
    axis.invert_yaxis()
    axis.axvline(0, color="k", linewidth=0.5)
    axis.legend(loc="upper center", bbox_to_anchor=(0.4, -0.32), ncols=3, fontsize=6)
    found = measured.set_index("method")["embedding_correlation"]
    axis.set_title(
        f"measured knockout (shift of the embedding:\nr = {found['silenced']:.2f}, random genes "
        f"{found['random genes']:.2f})",
        fontsize=7,
    )
    axis.set_xlabel("shift of the mean probability")


def plot_fold_changes(axis: Axes, name: str, table: pd.DataFrame, n_named: int = 3) -> None:
    """Plot the predicted over the measured fold changes of the genes of one class.

    Parameters
    ----------
    axis
        Where to plot.
    name
        The class.
    table
        As :func:`scdyn.explain.expression.compare_knockout`, of one class.
    n_named
        Number of genes named of the largest measured change, and of the largest predicted one.
    """
    others = table[~table["edited"]]
    axis.plot(others["measured"], others["silenced"], "o", color=PALETTE[0], ms=2, alpha=0.6)
    sizes = others[["measured", "silenced"]].abs()
    top = [index for name in sizes for index in sizes[name].nlargest(n_named).index]
    for gene in others.loc[list(dict.fromkeys(top))].itertuples():
        axis.annotate(
            gene.symbol, (gene.measured, gene.silenced), (2, 2), textcoords="offset points",
            fontsize=6,
        )  # fmt: skip
    axis.axhline(0, color="k", linewidth=0.5)
    axis.axvline(0, color="k", linewidth=0.5)
    r = others[["silenced", "mean_shift"]].corrwith(others["measured"])
    axis.set_title(
        f"{name} cells\nr = {r['silenced']:.2f}, mean shift {r['mean_shift']:.2f}", fontsize=7
    )
    axis.set(xlabel="measured log2 fold change", ylabel="predicted")
    axis.margins(x=0.15)
