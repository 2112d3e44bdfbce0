"""Differential expression by perturbation within predicted classes, and drivers of the classes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
from pydeseq2.dds import DeseqDataSet
from pydeseq2.ds import DeseqStats
from scipy import sparse
from statsmodels.stats.multitest import multipletests

from scdyn.data.corpus import Corpus
from scdyn.log import logger
from scdyn.pp.wilcoxon import compare_groups, draw_groups
from scdyn.studies.common import GROUPS

MIN_CELLS_PER_GROUP = 10  # cells of a class per group, and per replicate
MIN_COUNTS = 10  # counts of a gene over all replicates
MAX_COMPARISONS = 12
GENES_PER_COMPARISON = 100  # genes per comparison in the table
PSEUDOBULK = "pseudobulk by sample, PyDESeq2"
OVER_CELLS = "Wilcoxon over cells, which are no replicates"


def choose_comparisons(change: pd.DataFrame) -> list[tuple[str, str]]:
    """Choose the classes of perturbed and of control cells to compare.

    Parameters
    ----------
    change
        Of :func:`scdyn.studies.perturbation.compare_composition`.

    Returns
    -------
    list of (class, class of controls)
        The classes that increased versus controls of the class that lost the largest share; then
        every class versus controls of the same class, changed classes first. Only classes with at
        least ``MIN_CELLS_PER_GROUP`` cells, and at most ``MAX_COMPARISONS``.
    """
    table = change.set_index("class")
    enough = {
        group: table.index[table[f"cells_{group}"] >= MIN_CELLS_PER_GROUP].tolist()
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
    return pairs[:MAX_COMPARISONS]


def sum_pseudobulk(corpus: Corpus, cells: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """Sum RNA counts per sample and group with at least ``MIN_CELLS_PER_GROUP`` cells, in blocks.

    Parameters
    ----------
    corpus
        The cells.
    cells
        ``group`` and ``sample`` of the cells to sum, indexed by cell.

    Returns
    -------
    sums : DataFrame
        (replicates, genes) of int.
    group : Series
        Group of each replicate.
    """
    replicate = cells["group"] + " " + cells["sample"]
    size = replicate.value_counts()
    kept = cells[replicate.map(size) >= MIN_CELLS_PER_GROUP]
    codes, names = pd.factorize(replicate.loc[kept.index], sort=True)
    rows = corpus.find_rows(kept.index)
    order = np.argsort(rows)  # ascending rows are read fastest
    sums = np.zeros((len(names), corpus.n_genes), dtype=np.int64)
    start = 0
    for block in corpus.iter_blocks(rows[order], ["rna"]):
        of_block = codes[order[start : start + len(block.rows)]]
        at = of_block, np.arange(len(of_block))
        member = sparse.csr_matrix((np.ones(len(of_block), np.int64), at), (len(names), len(at[1])))
        sums += (member @ block.layers["rna"]).toarray()
        start += len(of_block)
    table = pd.DataFrame(sums, index=names, columns=corpus.genes["gene_id"].to_numpy())
    group = kept["group"].groupby(codes).first().set_axis(names)
    return table, group


def run_deseq(sums: pd.DataFrame, group: pd.Series) -> pd.DataFrame:
    """Test perturbed against control replicates with PyDESeq2.

    DESeq2's negative binomial model (Love et al. 2014), implemented in PyDESeq2 (Muzellec et al.
    2023).

    Returns
    -------
    DataFrame
        By gene: ``log2_fold_change``, ``p_value``, ``adjusted`` (NaN for genes that DESeq2 filters
        out). Genes with fewer than ``MIN_COUNTS`` counts are left out.
    """
    sums = sums.loc[:, sums.sum() >= MIN_COUNTS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about genes that were refitted
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
        Group of each cell.

    Returns
    -------
    DataFrame
        As :func:`run_deseq`. Genes that no cell expresses are left out.
    """
    values = cells.layers["rna_log"]
    expressed = np.asarray((values != 0).sum(0)).ravel() > 0
    found = compare_groups(
        values[:, expressed],
        cells.var_names[expressed],
        pd.Categorical(group.to_numpy(), GROUPS),
        tested=["perturbed"],
        reference="control",
        tie_correct=True,
    )
    result = found.set_index("gene_id")[["log2_fold_change", "p_value"]]
    return result.assign(adjusted=multipletests(result["p_value"], method="fdr_bh")[1])


def compare_genes(
    corpus: Corpus, predicted: pd.DataFrame, name: str, control: str, seed: int
) -> tuple[pd.DataFrame, dict[str, object]]:
    """Test all genes between perturbed cells of one class and controls of one class.

    Parameters
    ----------
    corpus
        The cells.
    predicted
        Of :func:`scdyn.studies.perturbation.select_groups`.
    name, control
        Class of the perturbed cells, and of the controls.
    seed
        Seed of the draw of cells if cells are tested (:func:`scdyn.pp.wilcoxon.draw_groups`).

    Returns
    -------
    genes : DataFrame
        As :func:`run_deseq`.
    facts : dict
        ``test``, ``n_<group>`` (cells that are compared), ``samples_<group>`` (replicates; 0 if
        over cells).
    """
    chosen = predicted[
        (predicted["group"].eq("perturbed") & predicted["predicted"].eq(name))
        | (predicted["group"].eq("control") & predicted["predicted"].eq(control))
    ]
    sums, group = sum_pseudobulk(corpus, chosen)
    replicates = group.value_counts().reindex(GROUPS, fill_value=0)
    over_samples = replicates.min() >= 2
    if over_samples:
        result = run_deseq(sums, group)
    else:
        chosen = chosen.iloc[draw_groups(chosen["group"], seed)]
        cells = corpus.to_memory(corpus.find_rows(chosen.index), ["rna_log"])
        result = run_rank_sum_test(cells, chosen["group"])
    n_cells = chosen["group"].value_counts().reindex(GROUPS, fill_value=0)
    return result, {
        "test": PSEUDOBULK if over_samples else OVER_CELLS,
        **{f"n_{key}": int(n_cells[key]) for key in GROUPS},
        **{f"samples_{key}": int(replicates[key]) if over_samples else 0 for key in GROUPS},
    }


def gene_table(
    corpus: Corpus,
    predicted: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    drivers: pd.DataFrame | None,
    seed: int,
) -> pd.DataFrame:
    """Tabulate the most changed genes of each comparison, and all drivers of its class.

    Parameters
    ----------
    corpus, predicted, seed
        As :func:`compare_genes`.
    pairs
        Of :func:`choose_comparisons`.
    drivers
        ``gene_id``, ``class``, ``specificity``; None if the task is not explained.

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
    for name, control in pairs:
        genes, facts = compare_genes(corpus, predicted, name, control, seed)
        logger.info("%s versus controls of %s: %s", name, control, facts)
        of_class = drivers[drivers["class"] == name].set_index("gene_id")["specificity"]
        genes = genes.assign(specificity=of_class.reindex(genes.index))
        genes = genes.sort_values("p_value", kind="stable")
        kept = genes["specificity"].notna() | (np.arange(len(genes)) < GENES_PER_COMPARISON)
        genes = genes[kept].rename_axis("gene_id").reset_index()
        genes.insert(0, "against", control)
        genes.insert(0, "class", name)
        parts.append(genes.assign(**facts))
    columns = ["class", "against", "gene_id", "symbol", "log2_fold_change", "p_value", "adjusted"]
    columns += ["specificity", "test", *(f"{x}_{g}" for x in ("n", "samples") for g in GROUPS)]
    if not parts:
        return pd.DataFrame(columns=columns)
    table = pd.concat(parts, ignore_index=True)
    symbols = corpus.genes.set_index("gene_id")["symbol"]
    table["symbol"] = symbols.reindex(table["gene_id"]).to_numpy()
    return table[columns]
