"""Regulons from motifs or from the strongest edges, and the consensus of several runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from scdyn.errors import InputError
from scdyn.grn.consensus import (
    SIGNS,
    TOP_EDGES_PER_GENE,
    compare_runs,
    select_strongest,
    sign_edges,
)
from scdyn.grn.edges import Edges, MergedEdges, rank_edges
from scdyn.io.files import atomic
from scdyn.log import logger

# Columns of the regulons' table from the merged edges.
EVIDENCE = ("correlation", "promoter_score", "promoter_p")


def build_motif_regulons(motifs: pd.DataFrame, edges: Edges) -> pd.DataFrame:
    """Make regulons: per regulon the union of its motifs' targets.

    Parameters
    ----------
    motifs
        Motifs of one run: ``regulon``, ``tf``, ``targets`` of
        :func:`scdyn.grn.motifs.find_motifs`.
    edges
        Edges of that run.

    Returns
    -------
    DataFrame
        ``regulon``, ``tf``, ``target``, ``weight``: the edge's importance, 1 for the TF
        itself; empty if no motif is enriched.
    """
    targets = motifs.assign(target=motifs["targets"].str.split(","))[["regulon", "tf", "target"]]
    pairs = targets.explode("target").drop_duplicates().sort_values(["regulon", "target"])
    weight = edges.importance[edges.locate(pairs["tf"], pairs["target"])].astype(np.float64)
    return pairs.assign(weight=np.where(weight > 0, weight, 1.0)).reset_index(drop=True)


def take_strongest_targets(
    edges: Edges, correlation: np.ndarray, n_targets: int, repressing: bool
) -> pd.DataFrame:
    """Make regulons without a motif database: the strongest targets per TF.

    Parameters
    ----------
    edges
        Edges of one run.
    correlation
        (TFs, targets), Pearson's; NaN where there is none, and no edge is taken.
    n_targets
        Most targets per TF and sign.
    repressing
        Whether to make regulons of repressed targets as well.

    Returns
    -------
    DataFrame
        ``regulon``, ``tf``, ``target``, ``weight`` (importance).
    """
    signs = sign_edges(correlation)
    parts = []
    for sign in (1, -1) if repressing else (1,):
        signed = np.where(signs == sign, edges.importance, 0)
        at = np.nonzero((rank_edges(signed, axis=1) < n_targets) & (signed > 0))
        tf = pd.Series(edges.tfs[at[0]], dtype=object)
        weight = signed[at].astype(np.float64)
        columns = {"regulon": tf + SIGNS[sign], "tf": tf, "target": edges.targets[at[1]]}
        parts.append(pd.DataFrame(columns | {"weight": weight}))
    return pd.concat(parts, ignore_index=True)


def keep_supported(regulons: pd.DataFrame, merged: MergedEdges, max_p: float) -> pd.DataFrame:
    """Keep the edges that promoter accessibility supports, or that were not tested.

    Parameters
    ----------
    regulons
        ``regulon``, ``tf``, ``target``.
    merged
        Promoter evidence of these edges.
    max_p
        Largest p-value of a supported edge. The sign of the score must be the regulon's: the
        promoter is open where an activator is expressed, or closed where a repressor is.
    """
    at = merged.locate(regulons["tf"], regulons["target"])
    p, score = merged.promoter_p[at], merged.promoter_score[at]
    sign = np.where(regulons["regulon"].str.endswith(SIGNS[1]), 1, -1)
    kept = (p <= max_p) & (np.sign(score) == sign) | np.isnan(p)
    return regulons[kept].reset_index(drop=True)


def build_consensus(
    runs: Mapping[str, pd.DataFrame], min_runs: int, min_targets: int
) -> pd.DataFrame:
    """Keep the regulons and targets that are found in enough runs.

    Parameters
    ----------
    runs
        Regulons by run: ``regulon``, ``tf``, ``target``, ``weight``.
    min_runs
        Number of runs in which a regulon and a target must be found.
    min_targets
        Fewest targets per regulon, in each run and in the consensus.

    Returns
    -------
    DataFrame
        ``regulon``, ``tf``, ``target``, ``weight`` (mean over the runs with the target), ``n_runs``
        (number of these runs); largest regulons first, strongest targets first.

    Raises
    ------
    InputError
        If no regulon is left.
    """
    found = pd.concat([drop_small(run, min_targets) for run in runs.values()])
    if found.empty:
        sizes = pd.concat([run.groupby("regulon").size() for run in runs.values()])
        raise InputError(
            "REGULONS",
            f"no regulon has {min_targets} targets in any of {len(runs)} runs (the largest has "
            f"{int(sizes.max()) if len(sizes) else 0}): check that grn.rankings are for this "
            "species and its gene symbols, lower grn.nes_threshold, raise grn.promoter_p, or lower "
            "grn.min_targets.",
        )
    edges = found.groupby(["regulon", "tf", "target"])["weight"].agg(["mean", "size"])
    edges = edges.rename(columns={"mean": "weight", "size": "n_runs"}).reset_index()
    kept = drop_small(edges[edges["n_runs"] >= min_runs], min_targets)
    logger.info(
        "%d regulons in any run, %d of them with at least %d targets found in %d of %d runs",
        *(edges["regulon"].nunique(), kept["regulon"].nunique()),
        *(min_targets, min_runs, len(runs)),
    )
    if kept.empty:
        raise InputError(
            "REGULONS",
            f"no regulon has {min_targets} targets found in {min_runs} of {len(runs)} runs; "
            "lower grn.min_runs or grn.min_targets, or use more cells (grn.max_cells).",
        )
    size = kept.groupby("regulon")["target"].transform("size")
    order = ["size", "regulon", "weight", "target"]
    ordered = kept.assign(size=size).sort_values(order, ascending=[False, True, False, True])
    return ordered.drop(columns="size").reset_index(drop=True)


def drop_small(edges: pd.DataFrame, min_targets: int) -> pd.DataFrame:
    """Leave out regulons with fewer than ``min_targets`` targets."""
    return edges[edges.groupby("regulon")["target"].transform("size") >= min_targets]


def compare_runs_by_regulon(runs: Mapping[str, pd.DataFrame], kept: pd.DataFrame) -> pd.DataFrame:
    """Compare the regulons of each pair of runs, all together and per regulon.

    Parameters
    ----------
    runs
        Regulons by run.
    kept
        The consensus, whose regulons are compared individually.

    Returns
    -------
    DataFrame
        As :func:`scdyn.grn.consensus.compare_runs`; ``what`` is "regulons' edges" or a regulon.
    """
    edges = {
        name: set(run[["regulon", "target"]].itertuples(index=False, name=None))
        for name, run in runs.items()
    }
    tables = [compare_runs(edges, "regulons' edges")]
    of_run = {name: run.groupby("regulon")["target"].agg(set) for name, run in runs.items()}
    for regulon in kept["regulon"].unique():
        sets = {name: targets.get(regulon, set()) for name, targets in of_run.items()}
        tables.append(compare_runs(sets, regulon))
    return pd.concat(tables, ignore_index=True)


def find_regulons(
    edges: Mapping[str, Edges],
    merged: MergedEdges,
    motifs: Mapping[str, pd.DataFrame] | None,
    *,
    n_targets: int,
    repressing: bool,
    promoter_p: float | None,
    min_runs: int,
    min_targets: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Find the regulons per run, their consensus, and the agreement between runs.

    Parameters
    ----------
    edges
        Edges by run. The run :data:`scdyn.settings.LEFT_OUT`, if there is one, is compared with
        the others but not part of the consensus.
    merged
        As :func:`scdyn.grn.consensus.merge_adjacencies` returns it.
    motifs
        Motifs by run, as :func:`scdyn.grn.motifs.find_motifs` returns them; None without a motif
        database, where a regulon is the strongest targets of its TF.
    n_targets, repressing
        As :func:`take_strongest_targets`; unused where there are motifs.
    promoter_p
        As ``max_p`` of :func:`keep_supported`; None keeps all edges.
    min_runs, min_targets
        As :func:`build_consensus`.

    Returns
    -------
    regulons : DataFrame
        As :func:`build_consensus`, with the evidence of ``merged``: ``correlation``,
        ``promoter_score``, ``promoter_p``.
    stability : DataFrame
        ``what``, ``run_a``, ``run_b``, ``n_a``, ``n_b``, ``jaccard`` per pair of runs: first of the
        "strongest edges" (:data:`scdyn.grn.consensus.TOP_EDGES_PER_GENE` per target), then as
        :func:`compare_runs_by_regulon`.

    Raises
    ------
    InputError
        If no regulon is left, or a run has other genes than ``merged``.
    """
    from scdyn.settings import LEFT_OUT  # needs pydantic, which pySCENIC's environment has not

    for name, run in edges.items():
        run.require_genes(merged.tfs, merged.targets, f"GRN run {name}")
    if motifs is None:
        logger.info("no motif database: regulons are the strongest targets per TF")
        runs = {
            name: take_strongest_targets(run, merged.correlation, n_targets, repressing)
            for name, run in edges.items()
        }
    else:
        runs = {name: build_motif_regulons(motifs[name], run) for name, run in edges.items()}
    if promoter_p is not None:
        runs = {name: keep_supported(run, merged, promoter_p) for name, run in runs.items()}
    seeded = {name: run for name, run in runs.items() if name != LEFT_OUT}
    kept = build_consensus(seeded, min_runs, min_targets)
    n_edges = TOP_EDGES_PER_GENE * int(merged.n_runs.any(0).sum())
    top = {name: select_strongest(run, n_edges) for name, run in edges.items()}
    stability = [compare_runs(top, "strongest edges"), compare_runs_by_regulon(runs, kept)]
    at = merged.locate(kept["tf"], kept["target"])
    evidence = {name: getattr(merged, name)[at] for name in EVIDENCE}
    return kept.assign(**evidence), pd.concat(stability, ignore_index=True)


def write_gmt(regulons: pd.DataFrame, path: Path) -> None:
    """Write regulons as gene sets: name, description, targets."""
    with atomic(path) as temporary, temporary.open("w") as handle:
        for name, members in regulons.groupby("regulon", sort=False):
            handle.write("\t".join([name, f"{len(members)} targets", *members["target"]]) + "\n")
