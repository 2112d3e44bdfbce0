"""Motif enrichment of co-expression modules (cisTarget): targets that a TF's motifs support.

The method is i-cisTarget's (Imrichova et al. 2015, doi:10.1093/nar/gkv395) with the modules of
SCENIC (Aibar et al. 2017, doi:10.1038/nmeth.4463; Van de Sande et al. 2020,
doi:10.1038/s41596-020-0336-2).
``pyscenic ctx`` 0.12.1 finds the same motifs with the same scores. If the enriched motifs of a
module are not all annotated for its TF with the same confidence, it assigns the targets of one
motif to another (aertslab/pySCENIC#635). This module does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pyarrow import feather
from scipy import sparse

from scdyn.errors import InputError, reading
from scdyn.grn.consensus import SIGNS, correlate_tfs, sign_edges
from scdyn.grn.databases import MIN_SHARE, read_annotations, read_database
from scdyn.grn.edges import Edges, rank_edges
from scdyn.grn.expression import Expression
from scdyn.grn.ridge import GENES_AT_ONCE
from scdyn.log import logger

# Modules per TF as in SCENIC: edges above a quantile of all weights, its strongest targets, and
# targets of which it is among the strongest regulators.
QUANTILES = (0.75, 0.90)
TOP_TARGETS = (50,)
TOP_REGULATORS = (5, 10, 50)
# Bounds the memory in use, as GENES_AT_ONCE does.
MODULES_AT_ONCE = 512
FOUND_COLUMNS = (
    *("regulon", "tf", "module", "database", "motif", "auc", "nes"),
    *("motif_similarity_qvalue", "orthologous_identity", "rank_at_max", "targets"),
)


@dataclass(frozen=True)
class Modules:
    """Co-expression modules of a run: targets of one sign per TF, selected by one criterion."""

    table: pd.DataFrame
    """One row per module: ``regulon``, ``tf``, ``module`` (the criterion)."""
    members: sparse.csr_matrix
    """(modules, genes) of bool; the TF is a member of each of its modules."""
    genes: pd.Index
    """Symbols."""


def find_motifs(
    edges: Edges,
    expression: Expression,
    rankings: Sequence[str | Path],
    annotations: str | Path,
    *,
    rank_threshold: int,
    auc_threshold: float,
    nes_threshold: float,
    min_genes: int,
    mask_dropouts: bool,
    repressing: bool,
) -> pd.DataFrame:
    """Find the motifs that are enriched in a run's modules and annotated for the modules' TFs.

    Parameters
    ----------
    edges
        Edges of one run.
    expression
        Cells and genes of the run, from which the sign of an edge is computed.
    rankings, annotations
        cisTarget's files: rankings of the genes per motif, and TFs annotated per motif.
    rank_threshold
        Ranks over which targets are recovered.
    auc_threshold
        Share of the ranked genes over which the area under a motif's recovery curve is computed.
    nes_threshold
        Smallest normalised enrichment: standard deviations of the AUC above its mean over all
        motifs.
    min_genes
        Fewest genes per module, its TF included.
    mask_dropouts
        See :func:`scdyn.grn.consensus.correlate_tfs`.
    repressing
        Whether to make modules of repressed targets as well.

    Returns
    -------
    DataFrame
        One row per module and enriched, annotated motif: ``regulon`` (the TF with (+) or (-)),
        ``tf``, ``module`` (the criterion that selected its targets), ``database``, ``motif``,
        ``auc``, ``nes``, ``motif_similarity_qvalue``, ``orthologous_identity``, ``rank_at_max``
        (the last rank of the leading edge) and ``targets`` (symbols of the leading edge, best
        ranked first, separated by commas).

    Raises
    ------
    InputError
        If the edges are those of other genes, or a database cannot be read or ranks too few genes
        for the thresholds.
    """
    modules = make_modules(edges, expression, min_genes, mask_dropouts, repressing)
    if modules.table.empty:
        logger.warning("no module has %d genes, so no motif is searched", min_genes)
        return pd.DataFrame(columns=list(FOUND_COLUMNS))
    known = read_annotations(annotations)
    tables = []
    for path in rankings:
        database = read_rankings(path, modules.genes[np.unique(modules.members.indices)])
        found = search_database(
            modules, *database, known, rank_threshold, auc_threshold, nes_threshold
        )
        tables.append(found.assign(database=Path(path).stem))
        logger.info("%s: %d enriched motifs of %d regulons", Path(path).name, len(found),
                    found["regulon"].nunique())  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def make_modules(
    edges: Edges, expression: Expression, min_genes: int, mask_dropouts: bool, repressing: bool
) -> Modules:
    """Group the targets of one sign per TF by several criteria, as SCENIC does.

    The parameters are those of :func:`find_motifs`.

    Raises
    ------
    InputError
        If the edges are those of other genes.
    """
    edges.require_genes(expression.tf_names, expression.genes, "GRN run")
    weights = edges.importance
    # No weight lies between this one and the quantile.
    floors = np.quantile(weights[weights > 0], QUANTILES, method="lower")
    signs = sign_edges(correlate_tfs(expression, mask_dropouts))
    tables, members = [], []
    for sign in (1, -1) if repressing else (1,):
        signed = np.where(signs == sign, weights, 0)
        of_tf, of_target = rank_edges(signed, axis=1), rank_edges(signed, axis=0)
        ways = {f"weight>{q:.0%}": signed > w for q, w in zip(QUANTILES, floors, strict=True)}
        ways |= {f"top{n}": of_tf < n for n in TOP_TARGETS}
        ways |= {f"top{n}perTarget": of_target < n for n in TOP_REGULATORS}
        for way, chosen in ways.items():
            chosen &= signed > 0
            used = np.flatnonzero(chosen.any(1))
            chosen[used, expression.tfs[used]] = True
            large = np.flatnonzero(chosen.sum(1) >= min_genes)
            tf = pd.Series(edges.tfs[large], dtype=object)
            tables.append(pd.DataFrame({"regulon": tf + SIGNS[sign], "tf": tf, "module": way}))
            members.append(sparse.csr_matrix(chosen[large]))
    return Modules(
        pd.concat(tables, ignore_index=True),
        sparse.vstack(members, format="csr"),
        pd.Index(edges.targets),
    )


def read_rankings(
    path: str | Path, genes: Sequence[str]
) -> tuple[np.ndarray, pd.Index, list[str], int]:
    """Read the ranks of some genes from a cisTarget database.

    Returns
    -------
    ranks : ndarray of int, (motifs, found genes)
        Ranks per motif; 0 is its best gene.
    found : Index
        Those of ``genes`` that the database ranks.
    motifs : list of str
        Names of the motifs.
    n_ranked : int
        Number of genes in the database.

    Raises
    ------
    InputError
        If the file is not a ranking database.
    """
    ranked, motifs = read_database(path)
    found = pd.Index(genes)[pd.Index(genes).isin(ranked)]
    with reading("MOTIFS", path, "cannot be read as a ranking database", "download it again"):
        table = feather.read_table(path, columns=list(found), memory_map=True)
        kind = table.schema.types[0].to_pandas_dtype() if len(found) else np.int16
        ranks = np.empty((len(motifs), len(found)), kind)
        for i, name in enumerate(found):
            ranks[:, i] = table[name].to_numpy()
    return ranks, found, motifs, len(ranked)


def count_recovery_ranks(n_ranked: int, rank_threshold: int, auc_threshold: float) -> int:
    """Count the ranks over which the area under a recovery curve is computed.

    Raises
    ------
    InputError
        If the thresholds do not fit the number of genes that the database ranks.
    """
    cutoff = round(auc_threshold * n_ranked)
    if not 0 < cutoff <= rank_threshold < n_ranked:
        raise InputError(
            "MOTIFS",
            f"grn.rank_threshold ({rank_threshold}) must lie between grn.auc_threshold's share of "
            f"the {n_ranked} genes of the motif database ({cutoff}) and all of them.",
        )
    return cutoff


def compute_recovery_gains(ranks: np.ndarray, cutoff: int) -> sparse.csr_matrix:
    """Compute how much each gene adds to the area under each motif's recovery curve.

    Parameters
    ----------
    ranks
        (motifs, genes), starting at 0.
    cutoff
        Number of ranks in the area.

    Returns
    -------
    csr_matrix of int64, (genes, motifs)
        ``cutoff - 1 - rank``, or 0. Computed for :data:`GENES_AT_ONCE` genes at a time, because
        the databases of human and mouse take gigabytes as a dense matrix of 64 bits.
    """
    blocks = [
        sparse.csr_matrix(
            np.maximum(cutoff - 1 - ranks[:, start : start + GENES_AT_ONCE].T.astype(np.int64), 0)
        )
        for start in range(0, max(ranks.shape[1], 1), GENES_AT_ONCE)
    ]
    return sparse.vstack(blocks, format="csr")


def search_database(
    modules: Modules,
    ranks: np.ndarray,
    genes: pd.Index,
    motifs: Sequence[str],
    n_ranked: int,
    annotations: pd.DataFrame,
    rank_threshold: int,
    auc_threshold: float,
    nes_threshold: float,
) -> pd.DataFrame:
    """Find the enriched motifs of all modules in one database.

    Parameters
    ----------
    modules
        As :func:`make_modules` returns them.
    ranks, genes, motifs, n_ranked
        As :func:`read_rankings` returns them.
    annotations
        As :func:`scdyn.grn.databases.read_annotations` returns them.
    rank_threshold, auc_threshold, nes_threshold
        See :func:`find_motifs`.

    Returns
    -------
    DataFrame
        As :func:`find_motifs`, without the column ``database``.

    Raises
    ------
    InputError
        If the thresholds do not fit the number of genes that the database ranks.
    """
    cutoff = count_recovery_ranks(n_ranked, rank_threshold, auc_threshold)
    size = np.diff(modules.members.indptr)
    belongs = modules.members[:, modules.genes.get_indexer(genes)].astype(np.int64)
    n_found = np.diff(belongs.indptr)
    usable = np.flatnonzero((n_found > 0) & ((size - n_found) / size < 1 - MIN_SHARE))
    if len(usable) < len(size):
        logger.warning(
            "%d of %d modules are left out: the database ranks less than %.0f%% of their genes",
            *(len(size) - len(usable), len(size), 100 * MIN_SHARE),
        )
    gains = compute_recovery_gains(ranks, cutoff)
    annotated = annotations.merge(pd.DataFrame({"motif": motifs}).reset_index(names="column"))
    parts = []
    for start in range(0, len(usable), MODULES_AT_ONCE):
        batch = usable[start : start + MODULES_AT_ONCE]
        # As in RcisTarget, the last rank counts in the maximum of the area, not in the area itself.
        auc = (belongs[batch] @ gains).toarray() / (float(cutoff) * n_found[batch][:, None])
        with np.errstate(invalid="ignore"):  # 0 / 0 if no motif recovers any gene
            nes = (auc - auc.mean(1, keepdims=True)) / auc.std(1, keepdims=True)
        row, of_motif = np.nonzero(nes >= nes_threshold)
        scores = {"auc": auc[row, of_motif], "nes": nes[row, of_motif]}
        found = modules.table.loc[batch[row]].assign(at=batch[row], column=of_motif, **scores)
        found = found.merge(annotated, on=["tf", "column"])
        for at, part in found.groupby("at", sort=False):
            own = belongs.indices[belongs.indptr[at] : belongs.indptr[at + 1]]
            edges = find_leading_edges(ranks[:, own], part["column"].to_numpy(), rank_threshold)
            at_max, chosen = zip(*edges, strict=True)
            targets = [",".join(genes[own[which]]) for which in chosen]
            parts.append(part.assign(rank_at_max=at_max, targets=targets))
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return found.reindex(columns=list(FOUND_COLUMNS))


def find_leading_edges(
    ranks: np.ndarray, motifs: np.ndarray, rank_threshold: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Find the leading edge of each enriched motif: members ranked up to the largest enrichment.

    Parameters
    ----------
    ranks
        (all motifs, members of the module).
    motifs
        Rows of the enriched motifs.
    rank_threshold
        Number of ranks that are searched.

    Yields
    ------
    rank_at_max : int
        Rank at which the motif's recovery curve exceeds the mean over all motifs plus two standard
        deviations most.
    members : ndarray
        Columns of the members up to that rank, best ranked first.
    """
    ordered = np.sort(ranks, axis=1)
    n_motifs, n_members = ordered.shape
    seen = ordered < rank_threshold
    # The square of a recovery curve rises by 2k - 1 at the rank of its k-th member.
    rises = np.broadcast_to(2.0 * np.arange(1, n_members + 1) - 1, ordered.shape)
    total = np.cumsum(np.bincount(ordered[seen], minlength=rank_threshold))
    squares = np.cumsum(np.bincount(ordered[seen], rises[seen], minlength=rank_threshold))
    mean = total / n_motifs
    bound = mean + 2 * np.sqrt(np.maximum(squares / n_motifs - mean**2, 0))
    for motif in motifs:
        counts = np.bincount(ordered[motif, seen[motif]], minlength=rank_threshold)
        rank_at_max = int(np.argmax(np.cumsum(counts) - bound))
        order = np.argsort(ranks[motif], kind="stable")
        yield rank_at_max, order[ranks[motif, order] <= rank_at_max]
