"""Motif enrichment of co-expression modules: which targets of a TF its motifs support (cisTarget).

The method is i-cisTarget's (Imrichova et al. 2015, doi:10.1093/nar/gkv395) with the modules of
SCENIC (Aibar et al. 2017, doi:10.1038/nmeth.4463; Van de Sande et al. 2020,
doi:10.1038/s41596-020-0336-2).
``pyscenic ctx`` 0.12.1 finds the same motifs with the same scores. Where the enriched motifs of a
module are not all annotated for its TF, or not equally surely, it gives a motif the targets of
another one (aertslab/pySCENIC#635), which this does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pyarrow import feather
from scipy import sparse

from scdyn.errors import InputError, reading
from scdyn.grn.consensus import correlate_tfs
from scdyn.grn.databases import MIN_SHARE, read_annotations, read_database
from scdyn.grn.expression import Expression
from scdyn.grn.regulons import SIGNS, sign_edges
from scdyn.grn.ridge import GENES_AT_ONCE
from scdyn.log import logger

# A TF's modules, as SCENIC makes them: edges above a quantile of all weights, its strongest
# targets, and targets of which it is among the strongest regulators.
QUANTILES = (0.75, 0.90)
TOP_TARGETS = (50,)
TOP_REGULATORS = (5, 10, 50)
# Bounds what is in memory at once, as GENES_AT_ONCE does.
MODULES_AT_ONCE = 512
FOUND_COLUMNS = (
    *("regulon", "tf", "module", "database", "motif", "auc", "nes"),
    *("motif_similarity_qvalue", "orthologous_identity", "rank_at_max", "targets"),
)


def find_motifs(
    edges: pd.DataFrame,
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
        Of one run: ``TF``, ``target``, ``importance``.
    expression
        The cells that the run was over; gives edges their sign.
    rankings, annotations
        cisTarget's files: genes ranked by each motif, and which TF binds a motif.
    rank_threshold
        Ranks over which targets are recovered.
    auc_threshold
        Share of the ranked genes over which a motif's recovery is summed (AUC).
    nes_threshold
        Smallest normalised enrichment: standard deviations of the AUC above its mean over all
        motifs.
    min_genes
        Fewest genes of a module, its TF included.
    mask_dropouts
        See :func:`scdyn.grn.consensus.correlate_tfs`.
    repressing
        Whether to make modules of repressed targets, too.

    Returns
    -------
    DataFrame
        A row per enriched, annotated motif of a module: ``regulon`` (the TF with (+) or (-)),
        ``tf``, ``module`` (how it was made), ``database``, ``motif``, ``auc``, ``nes``,
        ``motif_similarity_qvalue``, ``orthologous_identity``, ``rank_at_max`` (up to which
        targets are taken) and ``targets`` (symbols, best ranked first, parted by commas).

    Raises
    ------
    InputError
        If a database cannot be read, or ranks too few genes for the thresholds.
    """
    members = make_modules(edges, expression, min_genes, mask_dropouts, repressing)
    if members.empty:
        logger.warning("no module has %d genes, so there are no motifs of any", min_genes)
        return pd.DataFrame(columns=list(FOUND_COLUMNS))
    known = read_annotations(annotations)
    tables = []
    for path in rankings:
        database = read_rankings(path, members["gene"].unique())
        found = search_database(
            members, *database, known, rank_threshold, auc_threshold, nes_threshold
        )
        tables.append(found.assign(database=Path(path).stem))
        logger.info("%s: %d enriched motifs of %d regulons", Path(path).name, len(found),
                    found["regulon"].nunique())  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def make_modules(
    edges: pd.DataFrame,
    expression: Expression,
    min_genes: int,
    mask_dropouts: bool,
    repressing: bool,
) -> pd.DataFrame:
    """Group each TF's targets of one sign in several ways, as SCENIC does; parameters as above.

    Returns
    -------
    DataFrame
        ``regulon``, ``tf``, ``module``, ``gene``: a row a member. The TF is one of each module.
    """
    genes = pd.Index(expression.genes)
    tfs = genes[expression.tfs]
    correlation = correlate_tfs(expression, mask_dropouts)[
        tfs.get_indexer(edges["TF"]), genes.get_indexer(edges["target"])
    ]
    signed = edges.assign(sign=sign_edges(correlation))
    floors = dict(zip(QUANTILES, edges["importance"].quantile(list(QUANTILES)), strict=True))
    parts = []
    for sign in (1, -1) if repressing else (1,):
        ordered = signed[signed["sign"] == sign].sort_values(
            "importance", ascending=False, kind="stable"
        )
        ways = {f"weight>{q:.0%}": ordered[ordered["importance"] > w] for q, w in floors.items()}
        ways |= {f"top{n}": ordered.groupby("TF").head(n) for n in TOP_TARGETS}
        ways |= {f"top{n}perTarget": ordered.groupby("target").head(n) for n in TOP_REGULATORS}
        for way, chosen in ways.items():
            of_tf = chosen["TF"].drop_duplicates()
            pairs = np.concatenate([chosen[["TF", "target"]], np.c_[of_tf, of_tf]])
            part = pd.DataFrame(pairs, columns=["tf", "gene"]).drop_duplicates()
            parts.append(part.assign(regulon=part["tf"] + SIGNS[sign], module=way))
    members = pd.concat(parts, ignore_index=True)
    size = members.groupby(["regulon", "module"])["gene"].transform("size")
    return members[size >= min_genes].reset_index(drop=True)


def read_rankings(
    path: str | Path, genes: Sequence[str]
) -> tuple[np.ndarray, pd.Index, list[str], int]:
    """Read the ranks of some genes from a cisTarget database.

    Returns
    -------
    ranks : ndarray of int, (motifs, found genes)
        From zero, a motif's best gene.
    found : Index
        The genes that it ranks.
    motifs : list of str
        Names.
    n_ranked : int
        Genes that it ranks in all.

    Raises
    ------
    InputError
        If it is no such database.
    """
    ranked, motifs = read_database(path)
    found = pd.Index(genes)[pd.Index(genes).isin(ranked)]
    with reading("MOTIFS", path, "holds no rankings that can be read", "fetch it again"):
        table = feather.read_table(path, columns=list(found), memory_map=True)
        kind = table.schema.types[0].to_pandas_dtype() if len(found) else np.int16
        ranks = np.empty((len(motifs), len(found)), kind)
        for i, name in enumerate(found):
            ranks[:, i] = table[name].to_numpy()
    return ranks, found, motifs, len(ranked)


def count_recovery_ranks(n_ranked: int, rank_threshold: int, auc_threshold: float) -> int:
    """Count the ranks over which a motif's recovery is summed.

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
    """Say how much each gene adds to the area under each motif's recovery curve.

    Parameters
    ----------
    ranks
        (motifs, genes), from zero.
    cutoff
        Ranks that count.

    Returns
    -------
    csr_matrix of int64, (genes, motifs)
        ``cutoff - 1 - rank``, or 0. It is made of some genes at a time, because the databases of
        human and mouse would take gigabytes as a dense matrix of 64 bits.
    """
    blocks = [
        sparse.csr_matrix(
            np.maximum(cutoff - 1 - ranks[:, start : start + GENES_AT_ONCE].T.astype(np.int64), 0)
        )
        for start in range(0, max(ranks.shape[1], 1), GENES_AT_ONCE)
    ]
    return sparse.vstack(blocks, format="csr")


def search_database(
    members: pd.DataFrame,
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
    members
        As :func:`make_modules` returns them.
    ranks, genes, motifs, n_ranked
        As :func:`read_rankings` returns them.
    annotations
        ``motif``, ``tf`` and how sure it is.
    rank_threshold, auc_threshold, nes_threshold
        See :func:`find_motifs`.

    Returns
    -------
    DataFrame
        As :func:`find_motifs`, but for the database's name.

    Raises
    ------
    InputError
        If the thresholds do not fit the number of genes.
    """
    cutoff = count_recovery_ranks(n_ranked, rank_threshold, auc_threshold)
    names = ["regulon", "tf", "module"]
    modules = members[names].drop_duplicates(ignore_index=True)
    number = pd.MultiIndex.from_frame(modules).get_indexer(pd.MultiIndex.from_frame(members[names]))
    size = np.bincount(number, minlength=len(modules))
    column = genes.get_indexer(members["gene"])
    at = number[column >= 0], column[column >= 0]
    shape = (len(modules), len(genes))
    belongs = sparse.csr_matrix((np.ones(len(at[0]), dtype=np.int64), at), shape=shape)
    n_found = np.diff(belongs.indptr)
    usable = np.flatnonzero((n_found > 0) & ((size - n_found) / size < 1 - MIN_SHARE))
    if len(usable) < len(modules):
        logger.warning(
            "%d of %d modules are left out: the database ranks less than %.0f%% of their genes",
            *(len(modules) - len(usable), len(modules), 100 * MIN_SHARE),
        )
    gains = compute_recovery_gains(ranks, cutoff)
    annotated = annotations.merge(pd.DataFrame({"motif": motifs}).reset_index(names="column"))
    parts = []
    for start in range(0, len(usable), MODULES_AT_ONCE):
        batch = usable[start : start + MODULES_AT_ONCE]
        # As in RcisTarget, the last rank counts in the largest possible area, not in the area.
        auc = (belongs[batch] @ gains).toarray() / (float(cutoff) * n_found[batch][:, None])
        with np.errstate(invalid="ignore"):  # 0 / 0 where no motif recovers any of the genes
            nes = (auc - auc.mean(1, keepdims=True)) / auc.std(1, keepdims=True)
        row, of_motif = np.nonzero(nes >= nes_threshold)
        scores = {"auc": auc[row, of_motif], "nes": nes[row, of_motif]}
        found = modules.loc[batch[row]].assign(at=batch[row], column=of_motif, **scores)
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
    """Find the members of a module that enriched motifs rank higher than chance would.

    Parameters
    ----------
    ranks
        (all motifs, members).
    motifs
        Rows of the enriched ones.
    rank_threshold
        Ranks that are looked at.

    Yields
    ------
    rank_at_max : int
        Where a motif's recovery curve is highest above the mean of all motifs and two standard
        deviations.
    members : ndarray
        Those up to there, best ranked first.
    """
    ordered = np.sort(ranks, axis=1)
    n_motifs, n_members = ordered.shape
    seen = ordered < rank_threshold
    # A curve's square rises by 2k - 1 at the rank of its k-th member.
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
