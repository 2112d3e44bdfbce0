"""Around pySCENIC: what goes in, edges merged over seeds, and regulons that come out.

pySCENIC itself (GPL) runs as a separate program in an environment of its own.
"""

from __future__ import annotations

import ast
import csv
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

from scdyn.errors import InputError
from scdyn.files import atomic, write_table
from scdyn.log import logger

# Edges compared between runs: as many as a network has in which each gene has this many regulators.
TOP_EDGES_PER_GENE = 5


def write_expression(
    cells: ad.AnnData, max_cells: int, min_cells_share: float, seed: int, matrix: Path, tfs: Path
) -> pd.DataFrame:
    """Write the matrix and the TF list that pySCENIC reads.

    Parameters
    ----------
    cells
        Corpus with ``layers["rna_log"]`` and ``var["symbol"]``, ``var["is_tf"]``.
    max_cells
        If there are more cells, this many are drawn, from each sample in proportion.
    min_cells_share
        A gene detected in a smaller share of the cells is left out: trees learn nothing from it.
    seed
        For the draw.
    matrix, tfs
        Files to write: tab-separated log1p(TPM), a row a cell, a column a symbol; TF symbols.

    Returns
    -------
    DataFrame
        What was written, (cells, symbols).

    Raises
    ------
    InputError
        If no TF is detected.
    """
    if cells.n_obs > max_cells:
        share = max_cells / cells.n_obs
        drawn = cells.obs.groupby("sample", observed=True).sample(frac=share, random_state=seed)
        logger.info("GRN inference on %d of %d cells", len(drawn), cells.n_obs)
        cells = cells[cells.obs_names.isin(drawn.index)]
    detected = cells.layers["rna_log"].getnnz(0) >= max(3, min_cells_share * cells.n_obs)
    symbols = cells.var["symbol"].astype(str)
    # cisTarget databases know symbols; where two ids share one, the first speaks for both.
    kept = (detected & ~symbols.duplicated()).to_numpy()
    logger.info(
        "GRN inference on %d genes; %d detected in too few cells", kept.sum(), (~detected).sum()
    )
    tf_symbols = symbols[kept & cells.var["is_tf"].to_numpy()]
    if tf_symbols.empty:
        raise InputError(
            f"no TF is detected in {min_cells_share:.1%} of the cells; lower grn.min_cells_share."
        )
    table = pd.DataFrame(
        cells.layers["rna_log"][:, kept].toarray(), index=cells.obs_names, columns=symbols[kept]
    )
    write_table(matrix, table, index=True)
    with atomic(tfs) as temporary:
        temporary.write_text("\n".join(tf_symbols) + "\n")
    return table


def merge_adjacencies(runs: Mapping[str, pd.DataFrame], expression: pd.DataFrame) -> pd.DataFrame:
    """Average the edges of runs with several seeds.

    Parameters
    ----------
    runs
        Seed to arboreto's ``TF``, ``target``, ``importance``.
    expression
        (cells, symbols), for the sign of an edge.

    Returns
    -------
    DataFrame
        ``tf``, ``target``, ``importance`` (mean over seeds, 0 where a run lacks the edge),
        ``n_seeds`` (runs that have it), ``correlation`` (Pearson); strongest first.

    Raises
    ------
    InputError
        If a run has no edge.
    """
    for seed, run in runs.items():
        if run.empty:
            raise InputError(f"GRN run with seed {seed} found no edge; see its log.")
    edges = pd.concat(runs.values()).rename(columns={"TF": "tf"})
    merged = edges.groupby(["tf", "target"])["importance"].agg(["sum", "size"]).reset_index()
    merged["importance"] = merged.pop("sum") / len(runs)
    merged["n_seeds"] = merged.pop("size")
    values = expression.to_numpy(dtype=float)
    values = (values - values.mean(0)) / np.maximum(values.std(0), 1e-12)
    column = pd.Series(np.arange(expression.shape[1]), index=expression.columns)
    tf, target = column[merged["tf"]].to_numpy(), column[merged["target"]].to_numpy()
    correlation = values.T @ values / len(values)
    merged["correlation"] = correlation[tf, target]
    order = ["importance", "tf", "target"]
    return merged.sort_values(order, ascending=[False, True, True]).reset_index(drop=True)


def stability(runs: Mapping[str, pd.DataFrame], n_top: int) -> pd.DataFrame:
    """Compare the strongest edges of every two runs.

    Returns
    -------
    DataFrame
        ``seed_a``, ``seed_b``, ``n_top``, ``jaccard``; empty for a single run.
    """
    top = {
        seed: set(
            run.nlargest(n_top, "importance")[["TF", "target"]].itertuples(index=False, name=None)
        )
        for seed, run in runs.items()
    }
    rows = [
        (a, b, n_top, len(top[a] & top[b]) / len(top[a] | top[b])) for a, b in combinations(top, 2)
    ]
    return pd.DataFrame(rows, columns=["seed_a", "seed_b", "n_top", "jaccard"])


def read_ctx(path: str | Path) -> pd.DataFrame:
    """Read the regulons that ``pyscenic ctx`` wrote as motif enrichments.

    Parameters
    ----------
    path
        Its csv: three header lines, then a row an enriched motif with the TF first and the
        column ``TargetGenes`` as a Python list of (gene, weight).

    Returns
    -------
    DataFrame
        ``tf``, ``target``, ``weight`` (the largest over motifs), ``n_motifs``.

    Raises
    ------
    InputError
        If no motif is enriched.
    """
    csv.field_size_limit(2**30)
    edges = []
    with open(path, newline="") as handle:
        rows = csv.reader(handle)
        header = [next(rows, []) for _ in range(3)]
        column = next((line.index("TargetGenes") for line in header if "TargetGenes" in line), None)
        if column is None:
            raise InputError(f"{path}: has no column TargetGenes; did pyscenic ctx end early?")
        for row in rows:
            edges += [(row[0], target, weight) for target, weight in ast.literal_eval(row[column])]
    if not edges:
        raise InputError(
            f"{path}: no regulon passes the motif enrichment; check that grn.rankings are of this "
            "species and hold its gene symbols, or loosen grn.nes_threshold."
        )
    table = pd.DataFrame(edges, columns=["tf", "target", "weight"]).groupby(["tf", "target"])[
        "weight"
    ]
    return table.agg(weight="max", n_motifs="size").reset_index()


def modules(adjacencies: pd.DataFrame, n_targets: int) -> pd.DataFrame:
    """Take each TF's strongest positively correlated targets, where there is no motif database.

    Returns
    -------
    DataFrame
        ``tf``, ``target``, ``weight`` (importance).
    """
    activated = adjacencies[adjacencies["correlation"] > 0]
    top = (
        activated.sort_values("importance", ascending=False, kind="stable")
        .groupby("tf")
        .head(n_targets)
    )
    return top[["tf", "target", "importance"]].rename(columns={"importance": "weight"})


def finish_regulons(edges: pd.DataFrame, min_targets: int) -> pd.DataFrame:
    """Order regulons by their number of targets, leaving out the small ones.

    Raises
    ------
    InputError
        If none is left.
    """
    sizes = edges.groupby("tf")["target"].transform("size")
    large = sizes >= min_targets
    if not large.any():
        raise InputError(
            f"no regulon has {min_targets} targets (the largest of {edges['tf'].nunique()} has "
            f"{sizes.max()}); lower grn.min_targets."
        )
    order = ["size", "tf", "weight", "target"]
    kept = edges[large].assign(size=sizes[large])
    kept = kept.sort_values(order, ascending=[False, True, False, True])
    return kept.drop(columns="size").reset_index(drop=True)


def write_gmt(regulons: pd.DataFrame, path: Path) -> None:
    """Write regulons as gene sets: name, description, targets."""
    with atomic(path) as temporary, temporary.open("w") as handle:
        for tf, members in regulons.groupby("tf", sort=False):
            handle.write("\t".join([tf, f"{len(members)} targets", *members["target"]]) + "\n")


def activity(auc: pd.DataFrame, regulons: pd.DataFrame) -> ad.AnnData:
    """Bring AUCell's table into an AnnData.

    Parameters
    ----------
    auc
        (cells, regulons) as ``pyscenic aucell`` wrote it.
    regulons
        ``tf``, ``target``, for the numbers of targets.
    """
    sizes = regulons.groupby("tf").size()
    names = auc.columns.str.replace(r"\([+-]\)$", "", regex=True)
    var = pd.DataFrame({"n_targets": sizes.reindex(names).to_numpy()}, index=names.astype(str))
    return ad.AnnData(
        auc.to_numpy(dtype=np.float32), obs=pd.DataFrame(index=auc.index.astype(str)), var=var
    )
