"""Figures of the gene regulatory network: activity, stability, and the network itself."""

from __future__ import annotations

import textwrap

import anndata as ad
import networkx as nx
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scdyn.plotting.style import GREY, PALETTE, make_figure
from scdyn.settings import LEFT_OUT

ACTIVATED, REPRESSED = PALETTE[0], PALETTE[5]
# Numbers of regulons, regulators and targets that remain legible in a figure.
N_REGULONS = 40
N_LOWEST = 10
N_REGULATORS, N_TARGETS = 10, 10


def plot_activity(cells: ad.AnnData, specificity: pd.DataFrame, by: str) -> Figure:
    """Plot the mean activity of each label's most specific regulons as a heat map.

    Parameters
    ----------
    cells
        (cells, regulons), with ``obs[by]``.
    specificity
        (labels, regulons), RSS.
    by
        Column of ``obs`` with the labels.
    """
    table = cells.to_df()
    table = (table - table.mean()) / table.std().clip(lower=1e-9)
    means = table.groupby(cells.obs[by].astype(str).to_numpy()).mean()
    each = max(1, N_REGULONS // len(specificity))
    chosen = [
        name
        for _, row in specificity.iterrows()
        for name in row.sort_values(ascending=False).dropna().index[:each]
    ]
    order = means[list(dict.fromkeys(chosen))].idxmax().sort_values(kind="stable").index
    figure, axes = make_figure(1, 1, 1.8 + 0.22 * len(order), 1.6 + 0.25 * len(means))
    limit = float(means[order].abs().to_numpy().max())
    image = axes[0, 0].imshow(means[order], cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    axes[0, 0].set_xticks(range(len(order)), order, rotation=90)
    axes[0, 0].set_yticks(range(len(means)), means.index)
    axes[0, 0].set_title(f"regulon activity (AUCell), mean by {by}")
    figure.colorbar(image, label="z-score", shrink=0.8)
    return figure


def plot_stability(table: pd.DataFrame, left_out_share: float) -> Figure:
    """Plot the agreement of runs in the strongest edges, all regulons' edges and each regulon.

    Parameters
    ----------
    table
        ``what``, ``run_a``, ``run_b``, ``jaccard``.
    left_out_share
        Share of the cells that one run leaves out. It is compared with the first run, which has
        the same seed.
    """
    figure, axes = make_figure(1, 2, 7, 2.8, width_ratios=[1, 1.6])
    first = table["run_a"].iloc[0] if len(table) else ""
    between = table[table["run_b"] != LEFT_OUT]
    without = table[(table["run_b"] == LEFT_OUT) & (table["run_a"] == first)]
    kinds = ["strongest edges", "regulons' edges"]
    for shift, rows, colour, label in (
        (-0.12, between, PALETTE[0], "different seeds"),
        (0.12, without, PALETTE[1], f"{left_out_share:.0%} of the cells left out"),
    ):
        for i, kind in enumerate(kinds):
            values = rows.loc[rows["what"] == kind, "jaccard"]
            axes[0, 0].plot(
                np.full(len(values), i + shift), values, "o", ms=4, color=colour, alpha=0.7,
                label=label if i == 0 and len(values) else None,
            )  # fmt: skip
    axes[0, 0].set(xlim=(-0.5, 1.5), ylim=(0, 1.02), ylabel="Jaccard index of two runs")
    axes[0, 0].set_xticks(range(2), ["strongest\nedges", "regulons'\nedges"])
    axes[0, 0].legend(loc="lower left", fontsize=7)
    of_regulon = between[~between["what"].isin(kinds)].groupby("what")["jaccard"].mean()
    plot_regulon_stability(axes[0, 1], of_regulon.sort_values(ascending=False))
    return figure


def plot_regulon_stability(axis: Axes, ordered: pd.Series) -> None:
    """Plot the mean agreement of each regulon's targets: bars, or a curve if there are many."""
    axis.set(ylim=(0, 1.02), ylabel="mean Jaccard index of targets")
    if len(ordered) > N_REGULONS:
        axis.plot(np.arange(1, len(ordered) + 1), ordered, color=PALETTE[0])
        lowest = ", ".join(map(str, ordered.index[: -N_LOWEST - 1 : -1]))
        text = f"{len(ordered)} regulons, by agreement; the lowest, from the right: {lowest}"
        axis.set_xlabel(textwrap.fill(text, 62))
        return
    axis.bar(range(len(ordered)), ordered, color=PALETTE[0])
    axis.set_xticks(range(len(ordered)), ordered.index, rotation=90, fontsize=6)
    if ordered.empty:
        axis.text(0.5, 0.5, "only one run", ha="center", transform=axis.transAxes)


def lay_out_network(graph: nx.DiGraph, tfs: list[str]) -> dict[str, np.ndarray]:
    """Place regulators on a ring, targets of one regulator outside it and shared targets inside."""
    angles = dict(zip(tfs, np.linspace(0, 2 * np.pi, len(tfs), endpoint=False), strict=True))
    places = {tf: np.array([np.cos(angle), np.sin(angle)]) for tf, angle in angles.items()}
    of_tf = {tf: [n for n in graph.successors(tf) if n not in places] for tf in tfs}
    shared = [node for node in graph if node not in places and graph.in_degree(node) > 1]
    for tf, targets in of_tf.items():
        own = [node for node in targets if graph.in_degree(node) == 1]
        fan = angles[tf] + np.linspace(-0.85, 0.85, len(own)) * np.pi / len(tfs)
        for i, (node, angle) in enumerate(zip(own, fan, strict=True)):
            # Two alternating radii, so that names do not overlap.
            places[node] = (1.65 + 0.3 * (i % 2)) * np.array([np.cos(angle), np.sin(angle)])
    rng = np.random.default_rng(0)
    for node in shared:
        centre = np.mean([places[tf] for tf in graph.predecessors(node)], axis=0)
        places[node] = 0.7 * centre + rng.normal(0, 0.08, 2)
    return places


def plot_network(regulons: pd.DataFrame) -> Figure:
    """Plot the regulators of the largest regulons with their strongest targets.

    Parameters
    ----------
    regulons
        ``regulon``, ``tf``, ``target``, ``weight``, largest regulons first.
    """
    largest = regulons["regulon"].drop_duplicates().head(N_REGULATORS)
    shown = regulons[regulons["regulon"].isin(largest)]
    shown = shown.sort_values("weight", ascending=False).groupby("regulon").head(N_TARGETS)
    graph = nx.DiGraph()
    for row in shown.itertuples():
        colour = ACTIVATED if row.regulon.endswith("(+)") else REPRESSED
        graph.add_edge(row.tf, row.target, color=colour)
    tfs = set(shown["tf"])
    places = lay_out_network(graph, list(shown["tf"].unique()))
    figure, axes = make_figure(1, 1, 7, 6)
    axis = axes[0, 0]
    edge_colours = list(nx.get_edge_attributes(graph, "color").values())
    nx.draw_networkx_edges(
        graph, places, ax=axis, edge_color=edge_colours, alpha=0.45, arrowsize=6, node_size=60
    )
    for nodes, size, colour in (
        ([node for node in graph if node not in tfs], 18, GREY),
        ([node for node in graph if node in tfs], 160, PALETTE[1]),
    ):
        nx.draw_networkx_nodes(graph, places, nodes, ax=axis, node_size=size, node_color=colour)
    for node, (x, y) in places.items():
        size, weight = (8, "bold") if node in tfs else (5, "normal")
        axis.text(x, y, node, ha="center", va="center", fontsize=size, weight=weight)
    axis.set_title(f"regulators of the {len(largest)} largest regulons, {N_TARGETS} targets each")
    axis.axis("off")
    return figure
