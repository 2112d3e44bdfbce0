"""Regulons: from motifs or from modules, agreed upon by several runs."""

from __future__ import annotations

import ast
import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from scdyn.artefacts import artefact
from scdyn.errors import InputError
from scdyn.files import atomic
from scdyn.grn import agreement
from scdyn.log import logger

# Weakest correlation that gives an edge a sign, as in pySCENIC (``add_correlation``).
MIN_CORRELATION = 0.03
SIGNS = {1: "(+)", -1: "(-)"}


def read_ctx(path: str | Path) -> pd.DataFrame:
    """Read the regulons that ``pyscenic ctx`` wrote as motif enrichments.

    Parameters
    ----------
    path
        Its csv: three header lines, then a row an enriched motif with the TF first, the column
        ``Context`` (activating or repressing) and ``TargetGenes`` as a Python list of
        (gene, weight).

    Returns
    -------
    DataFrame
        ``regulon`` (the TF with (+) or (-)), ``tf``, ``target``, ``weight`` (the largest over
        motifs), ``n_motifs``; empty if no motif is enriched.

    Raises
    ------
    InputError
        If it is not such a file, or was cut short.
    """
    with artefact(path):
        edges = list(_edges(path))
    table = pd.DataFrame(edges, columns=["regulon", "tf", "target", "weight"])
    grouped = table.groupby(["regulon", "tf", "target"])["weight"]
    return grouped.agg(weight="max", n_motifs="size").reset_index()


def _edges(path: str | Path) -> Iterator[tuple[str, str, str, float]]:
    """Read each enriched motif's regulon, TF, target and weight."""
    csv.field_size_limit(2**30)
    with open(path, newline="") as handle:
        rows = csv.reader(handle)
        header = [next(rows, []) for _ in range(3)]
        names = next((line for line in header if "TargetGenes" in line), [])
        if "Context" not in names:
            raise InputError(
                f"{path}: has no column TargetGenes, as pyscenic ctx writes it; remove it and run "
                "the workflow again."
            )
        for row in rows:
            tf, context = row[0], row[names.index("Context")]
            regulon = tf + SIGNS[-1 if "repressing" in context else 1]
            for target, weight in ast.literal_eval(row[names.index("TargetGenes")]):
                yield regulon, tf, target, weight


def modules(edges: pd.DataFrame, n_targets: int, repressing: bool) -> pd.DataFrame:
    """Take each TF's strongest targets, where there is no motif database.

    Parameters
    ----------
    edges
        ``tf``, ``target``, ``importance``, ``correlation``.
    n_targets
        Of a TF, activated and repressed each.
    repressing
        Whether to take repressed ones, too.

    Returns
    -------
    DataFrame
        ``regulon``, ``tf``, ``target``, ``weight`` (importance).
    """
    correlation = edges["correlation"].to_numpy()
    sign = np.where(np.abs(correlation) > MIN_CORRELATION, np.sign(correlation), 0)
    signed = edges.assign(sign=sign)[(sign > 0) | (repressing & (sign < 0))]
    ordered = signed.sort_values("importance", ascending=False, kind="stable")
    top = ordered.groupby(["tf", "sign"]).head(n_targets)
    names = top["tf"].astype(str) + top["sign"].map(SIGNS).astype(str)
    return pd.DataFrame(
        {
            "regulon": names,
            "tf": top["tf"],
            "target": top["target"],
            "weight": top["importance"],
        }
    ).reset_index(drop=True)


def supported(regulons: pd.DataFrame, edges: pd.DataFrame, max_p: float) -> pd.DataFrame:
    """Keep the edges that the chromatin supports, or cannot be asked about.

    Parameters
    ----------
    regulons
        ``regulon``, ``tf``, ``target``.
    edges
        ``tf``, ``target``, ``promoter_score``, ``promoter_p``.
    max_p
        Largest p-value; the score's sign must be the regulon's: a promoter open where an
        activator is expressed, closed where a repressor is.
    """
    evidence = regulons.merge(edges, on=["tf", "target"], how="left")
    sign = np.where(evidence["regulon"].str.endswith(SIGNS[1]), 1, -1)
    agrees = (evidence["promoter_p"] <= max_p) & (np.sign(evidence["promoter_score"]) == sign)
    kept = (agrees | evidence["promoter_p"].isna()).to_numpy()
    return regulons[kept].reset_index(drop=True)


def consensus(runs: Mapping[str, pd.DataFrame], min_runs: int, min_targets: int) -> pd.DataFrame:
    """Keep regulons, and of these the targets, that enough runs agree upon.

    Parameters
    ----------
    runs
        Run to its ``regulon``, ``tf``, ``target``, ``weight``.
    min_runs
        In which a regulon and a target must be found.
    min_targets
        Fewest targets of a regulon, in a run and after.

    Returns
    -------
    DataFrame
        ``regulon``, ``tf``, ``target``, ``weight`` (mean over the runs that have it), ``n_runs``
        (that have the target); largest regulons first, their strongest targets first.

    Raises
    ------
    InputError
        If none is left.
    """
    found = pd.concat([drop_small(run, min_targets) for run in runs.values()])
    if found.empty:
        sizes = pd.concat([run.groupby("regulon").size() for run in runs.values()])
        raise InputError(
            f"no regulon has {min_targets} targets in any of {len(runs)} runs (the largest has "
            f"{int(sizes.max()) if len(sizes) else 0}): check that grn.rankings are of this "
            "species and hold its symbols, loosen grn.nes_threshold or grn.promoter_p, or lower "
            "grn.min_targets."
        )
    edges = found.groupby(["regulon", "tf", "target"])["weight"].agg(["mean", "size"])
    edges = edges.rename(columns={"mean": "weight", "size": "n_runs"}).reset_index()
    kept = drop_small(edges[edges["n_runs"] >= min_runs], min_targets)
    logger.info(
        "%d regulons in any run, %d of them with %d targets in at least %d of %d runs",
        *(edges["regulon"].nunique(), kept["regulon"].nunique()),
        *(min_targets, min_runs, len(runs)),
    )
    if kept.empty:
        raise InputError(
            f"no regulon has {min_targets} targets that {min_runs} of {len(runs)} runs agree "
            "upon; lower grn.min_runs or grn.min_targets, or give more cells (grn.max_cells)."
        )
    size = kept.groupby("regulon")["target"].transform("size")
    order = ["size", "regulon", "weight", "target"]
    ordered = kept.assign(size=size).sort_values(order, ascending=[False, True, False, True])
    return ordered.drop(columns="size").reset_index(drop=True)


def drop_small(edges: pd.DataFrame, min_targets: int) -> pd.DataFrame:
    """Leave out regulons with fewer targets."""
    return edges[edges.groupby("regulon")["target"].transform("size") >= min_targets]


def stability(runs: Mapping[str, pd.DataFrame], kept: pd.DataFrame) -> pd.DataFrame:
    """Compare the regulons of every two runs, over all and one by one.

    Parameters
    ----------
    runs
        Run to its regulons.
    kept
        The consensus, whose regulons are compared one by one.

    Returns
    -------
    DataFrame
        As :func:`scdyn.grn.agreement`; ``what`` is "regulons' edges" or a regulon.
    """
    edges = {
        name: set(run[["regulon", "target"]].itertuples(index=False, name=None))
        for name, run in runs.items()
    }
    tables = [agreement(edges, "regulons' edges")]
    of_run = {name: run.groupby("regulon")["target"].agg(set) for name, run in runs.items()}
    for regulon in kept["regulon"].unique():
        sets = {name: targets.get(regulon, set()) for name, targets in of_run.items()}
        tables.append(agreement(sets, regulon))
    return pd.concat(tables, ignore_index=True)


def write_gmt(regulons: pd.DataFrame, path: Path) -> None:
    """Write regulons as gene sets: name, description, targets."""
    with atomic(path) as temporary, temporary.open("w") as handle:
        for name, members in regulons.groupby("regulon", sort=False):
            handle.write("\t".join([name, f"{len(members)} targets", *members["target"]]) + "\n")
