"""Genes that a perturbation changes within called classes, beside those that drive the predictions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from pydeseq2.dds import DeseqDataSet
from pydeseq2.ds import DeseqStats
from statsmodels.stats.multitest import multipletests

from scdyn.log import logger
from scdyn.pp.wilcoxon import compare_groups
from scdyn.studies.common import GROUPS

LEAST_CELLS_OF_GROUP = 10  # of a class in a group, and in a sample that is a replicate
LEAST_COUNTS = 10  # of a gene over all replicates
MOST_COMPARISONS = 12
GENES_OF_COMPARISON = 100  # in the table
PSEUDOBULK = "pseudobulk by sample, PyDESeq2"
OVER_CELLS = "Wilcoxon over cells, which are no replicates"


def choose_comparisons(change: pd.DataFrame) -> list[tuple[str, str]]:
    """Which perturbed cells are held against which controls.

    Parameters
    ----------
    change
        Of :func:`scdyn.studies.perturbation.compare_composition`.

    Returns
    -------
    list of (class, class of controls)
        The classes that are more against the controls of the class that lost the largest share;
        then every class against controls of the same class, those that changed first. Only
        those of at least ``LEAST_CELLS_OF_GROUP`` cells, and at most ``MOST_COMPARISONS``.
    """
    table = change.set_index("class")
    enough = {
        group: table.index[table[f"cells_{group}"] >= LEAST_CELLS_OF_GROUP].tolist()
        for group in GROUPS
    }
    pairs = []
    difference = table["share_perturbed"] - table["share_control"]
    lost = difference[table["change"].isin(["vanished", "fewer"])].nsmallest(1).index
    gained = difference[table["change"].isin(["appeared", "more"])].sort_values(ascending=False)
    if len(lost) and lost[0] in enough["control"]:
        pairs = [(name, lost[0]) for name in gained.index if name in enough["perturbed"]]
    order = table["log2_ratio"].abs().sort_values(ascending=False, kind="stable").index
    changed_first = sorted(order, key=lambda name: table.loc[name, "change"] == "")
    pairs += [
        (name, name)
        for name in changed_first
        if name in enough["control"] and name in enough["perturbed"]
    ]
    return pairs[:MOST_COMPARISONS]


def sum_pseudobulk(counts: ad.AnnData, cells: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """Sum counts by sample and group, of those with at least ``LEAST_CELLS_OF_GROUP`` cells.

    Parameters
    ----------
    counts
        RNA counts in ``X``.
    cells
        ``group`` and ``sample`` of the cells to sum, indexed by cell.

    Returns
    -------
    sums : DataFrame
        (replicates, genes) of int.
    group : Series
        Of each replicate.
    """
    replicate = cells["group"] + " " + cells["sample"]
    size = replicate.value_counts()
    kept = cells[replicate.map(size) >= LEAST_CELLS_OF_GROUP]
    replicate = replicate.loc[kept.index]
    # What is grouped stays sparse.
    sums = sc.get.aggregate(
        ad.AnnData(counts[kept.index].X, obs=pd.DataFrame({"replicate": replicate})),
        by="replicate", func="sum",
    )  # fmt: skip
    table = pd.DataFrame(
        np.asarray(sums.layers["sum"]).astype(int), index=sums.obs_names, columns=counts.var_names
    )
    group = kept.groupby(replicate)["group"].first().loc[table.index]
    return table, group


def run_deseq(sums: pd.DataFrame, group: pd.Series) -> pd.DataFrame:
    """Test perturbed against control replicates with PyDESeq2.

    DESeq2's negative binomial model (Love et al. 2014) as PyDESeq2 has it (Muzellec et al. 2023).

    Returns
    -------
    DataFrame
        By gene: ``log2_fold_change``, ``p_value``, ``adjusted`` (NaN where DESeq2 has set a gene
        aside). Genes with fewer than ``LEAST_COUNTS`` counts are left out.
    """
    sums = sums.loc[:, sums.sum() >= LEAST_COUNTS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on fits of single genes that were done anew
        data = DeseqDataSet(
            counts=sums, metadata=group.to_frame("group"), design="~group", quiet=True, n_cpus=1
        )
        data.deseq2()
        result = DeseqStats(data, contrast=["group", "perturbed", "control"], quiet=True, n_cpus=1)
        result.summary()
    names = {"log2FoldChange": "log2_fold_change", "pvalue": "p_value", "padj": "adjusted"}
    return result.results_df[list(names)].rename(columns=names)


def run_rank_sum_test(cells: ad.AnnData, group: pd.Series) -> pd.DataFrame:
    """Test perturbed against control cells by Wilcoxon's rank sum.

    Parameters
    ----------
    cells
        ``layers["rna_log"]``.
    group
        Of each cell.

    Returns
    -------
    DataFrame
        As :func:`run_deseq`. Genes that no cell expresses are left out.
    """
    values = cells.layers["rna_log"]
    seen = np.asarray((values != 0).sum(0)).ravel() > 0
    found = compare_groups(
        values[:, seen],
        cells.var_names[seen],
        pd.Categorical(group.to_numpy(), GROUPS),
        tested=["perturbed"],
        reference="control",
        tie_correct=True,
    )
    result = found.set_index("gene_id")[["log2_fold_change", "p_value"]]
    return result.assign(adjusted=multipletests(result["p_value"], method="fdr_bh")[1])


def compare_genes(
    cells: ad.AnnData, called: pd.DataFrame, name: str, against: str
) -> tuple[pd.DataFrame, dict[str, object]]:
    """Genes that differ between perturbed cells of a class and controls of a class.

    Parameters
    ----------
    cells
        The corpus.
    called
        Of :func:`scdyn.studies.perturbation.select_groups`.
    name, against
        Class of the perturbed cells, and of the controls.

    Returns
    -------
    genes : DataFrame
        As :func:`run_deseq`.
    facts : dict
        ``test``, ``n_<group>`` (cells), ``samples_<group>`` (replicates; 0 if over cells).
    """
    chosen = called[
        (called["group"].eq("perturbed") & called["predicted"].eq(name))
        | (called["group"].eq("control") & called["predicted"].eq(against))
    ]
    facts = {f"n_{group}": int((chosen["group"] == group).sum()) for group in GROUPS}
    sums, group = sum_pseudobulk(cells, chosen)
    replicates = group.value_counts().reindex(GROUPS, fill_value=0)
    if replicates.min() >= 2:
        facts |= {f"samples_{key}": int(n) for key, n in replicates.items()}
        return run_deseq(sums, group), {"test": PSEUDOBULK, **facts}
    facts |= {f"samples_{key}": 0 for key in GROUPS}
    part = cells[chosen.index]
    return run_rank_sum_test(part, chosen["group"]), {"test": OVER_CELLS, **facts}


def gene_table(
    cells: ad.AnnData,
    called: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    drivers: pd.DataFrame | None,
) -> pd.DataFrame:
    """The most changed genes of every comparison, and all drivers of its class.

    Parameters
    ----------
    cells, called
        As :func:`compare_genes`.
    pairs
        Of :func:`choose_comparisons`.
    drivers
        ``gene_id``, ``class``, ``specificity``; None where the task is not explained.

    Returns
    -------
    DataFrame
        ``class``, ``against``, ``gene_id``, ``symbol``, ``log2_fold_change``, ``p_value``,
        ``adjusted`` (Benjamini-Hochberg), ``specificity`` (of a driver of the class, else NaN),
        ``test``, ``n_control``, ``n_perturbed``, ``samples_control``, ``samples_perturbed``.
    """
    if drivers is None:
        drivers = pd.DataFrame({"gene_id": [], "class": [], "specificity": []})
    parts = []
    for name, against in pairs:
        genes, facts = compare_genes(cells, called, name, against)
        logger.info("%s against %s: %s", name, against, facts)
        of_class = drivers[drivers["class"] == name].set_index("gene_id")["specificity"]
        genes = genes.assign(specificity=of_class.reindex(genes.index))
        genes = genes.sort_values("p_value", kind="stable")
        kept = genes["specificity"].notna() | (np.arange(len(genes)) < GENES_OF_COMPARISON)
        genes = genes[kept].rename_axis("gene_id").reset_index()
        genes.insert(0, "against", against)
        genes.insert(0, "class", name)
        parts.append(genes.assign(**facts))
    columns = ["class", "against", "gene_id", "symbol", "log2_fold_change", "p_value", "adjusted"]
    columns += ["specificity", "test", *(f"{x}_{g}" for x in ("n", "samples") for g in GROUPS)]
    if not parts:
        return pd.DataFrame(columns=columns)
    table = pd.concat(parts, ignore_index=True)
    table["symbol"] = cells.var["symbol"].reindex(table["gene_id"]).to_numpy()
    return table[columns]
