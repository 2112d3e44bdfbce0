"""Which cells are good enough, modality by modality, and why the others are not."""

from __future__ import annotations

import re
from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse
from scipy.stats import median_abs_deviation

from scdyn.errors import InputError
from scdyn.log import logger
from scdyn.pp.counts import promoters_measured

# Most genes that Scrublet looks at, the most variable ones.
VARIABLE_GENES = 3000
# Most principal components in which it looks for neighbours, as scanpy has it.
MOST_COMPONENTS = 30
# Share of cells over the bound on mitochondrial UMIs from which on the bound may be the wrong one.
MANY_MITO = 0.2
# What only fragments tell; see scdyn.io.fragments.count_insertions.
OF_FRAGMENTS = ("fragments", "promoter_share", "nucleosome_signal", "tss_enrichment")
# What Cell Ranger's own table tells; see scdyn.io.tenx.read_metrics.
OF_CELLRANGER = ("peak_share", "atac_mito_share")


# How a reason against a cell is worded, and the key of ``ingest.qc`` that sets its bound.
KEYS = {
    "RNA counts$": "min_rna_counts",
    "genes$": "min_genes",
    "mitochondrial$": "max_mito_share",
    "promoter counts$": "min_promoter_counts",
    "MADs from the median$": "n_mads",
    "^TSS enrichment": "min_tss_enrichment",
    "^nucleosome signal": "max_nucleosome_signal",
    "^promoter share": "min_promoter_share",
    "^doublet score": "max_doublet_score",
    "^promoter doublet score": "max_promoter_doublet_score",
}


@dataclass(frozen=True)
class QualityBounds:
    """What a cell must reach.

    Attributes
    ----------
    min_rna_counts, min_genes
        Fewest UMIs and detected genes.
    max_mito_share
        Largest share of UMIs from mitochondrial genes, 0 to 1; here that of whole cells, while
        the workflow's default is that of nuclei (config.schema.yaml, ``presets``).
    min_promoter_counts
        Fewest insertions (or peak counts) in promoters.
    n_mads
        Counts further than this many median absolute deviations from the median, on
        log scale, are out of bounds too. None: no such bound.
    min_tss_enrichment, max_nucleosome_signal, min_promoter_share
        Of cells whose promoters were counted from fragments. None: no such bound.
    max_doublet_score
        Largest Scrublet score of the RNA. None: doublets are not looked for.
    max_promoter_doublet_score
        Largest Scrublet score of the promoter counts. None: no such bound; the score is
        reported all the same if doublets are looked for.
    keep
        "both": a cell must pass in both modalities; "either": one is enough.
    min_cells
        Fewest cells that must be left.
    """

    min_rna_counts: int = 500
    min_genes: int = 200
    max_mito_share: float = 0.2
    min_promoter_counts: int = 200
    n_mads: float | None = 5.0
    min_tss_enrichment: float | None = None
    max_nucleosome_signal: float | None = None
    min_promoter_share: float | None = None
    max_doublet_score: float | None = 0.3
    max_promoter_doublet_score: float | None = None
    keep: str = "both"
    min_cells: int = 50


def measure(cells: ad.AnnData, is_mt: np.ndarray) -> pd.DataFrame:
    """Measure each cell: counts and genes of each modality, mitochondrial share.

    Parameters
    ----------
    cells
        ``X`` RNA counts, ``layers["promoter"]`` promoter counts, ``promoter_source`` in ``obs``
        and :data:`OF_FRAGMENTS` and :data:`OF_CELLRANGER` if there.
    is_mt
        (genes,) which genes are mitochondrial.

    Returns
    -------
    DataFrame
        ``rna_counts``, ``rna_genes``, ``mito_share``; and where promoters were measured
        ``promoter_counts``, ``promoter_genes`` and what else is known.
    """
    rna, promoter = cells.X.tocsr(), cells.layers["promoter"].tocsr()
    counts = np.asarray(rna.sum(1)).ravel()
    metrics = pd.DataFrame(
        {
            "rna_counts": counts,
            "rna_genes": rna.getnnz(1),
            "mito_share": np.asarray(rna[:, is_mt].sum(1)).ravel() / np.maximum(counts, 1),
        },
        index=cells.obs_names,
    )
    if not promoters_measured(cells.obs).any():
        return metrics
    known = [name for name in (*OF_FRAGMENTS, *OF_CELLRANGER) if name in cells.obs]
    return metrics.assign(
        promoter_counts=np.asarray(promoter.sum(1)).ravel(),
        promoter_genes=promoter.getnnz(1),
        **{name: cells.obs[name].to_numpy() for name in known},
    )


def doublet_scores(counts: sparse.csr_matrix, seed: int) -> np.ndarray:
    """Scrublet's doublet score of each cell, from counts of one modality (Wolock et al. 2019).

    Its steps as scanpy runs them, but for a bound on the genes, which it makes dense:
    :data:`VARIABLE_GENES`.

    Parameters
    ----------
    counts
        (cells, genes) of one library: cells of two were never in one droplet.
    seed
        Of the simulated doublets.

    Returns
    -------
    ndarray, (cells,)
        Zeros if no gene varies, or the cells or the genes that vary are too few for one principal
        component, which the log says.
    """
    cells = ad.AnnData(sparse.csr_matrix(counts, dtype=np.float32))
    cells = cells[:, cells.X.getnnz(0) >= 3].copy()
    if not cells.n_vars:
        return no_scores(cells.n_obs, 0)
    cells.layers["raw"] = cells.X.copy()
    sc.pp.normalize_total(cells)
    logs = sc.pp.log1p(cells, copy=True)
    sc.pp.highly_variable_genes(logs)
    chosen = logs.var.loc[logs.var["highly_variable"], "dispersions_norm"].nlargest(VARIABLE_GENES)
    if min(cells.n_obs, len(chosen)) < 2:
        return no_scores(cells.n_obs, len(chosen))
    cells = cells[:, cells.var_names.isin(chosen.index)].copy()
    doublets = sc.pp.scrublet_simulate_doublets(cells, layer="raw", random_seed=seed)
    for table in (cells, doublets):
        sc.pp.normalize_total(table, target_sum=1e6)
    # The threshold is ours to set from config; any value keeps Scrublet from guessing one.
    # Exact neighbours: of some ten thousand cells they are found faster than approximate ones.
    sc.pp.scrublet(
        cells,
        doublets,
        use_approx_neighbors=False,
        threshold=1.0,
        n_prin_comps=min(MOST_COMPONENTS, min(cells.shape) - 1),
        random_state=seed,
        verbose=False,
    )
    return cells.obs["doublet_score"].to_numpy()


def no_scores(n_cells: int, n_genes: int) -> np.ndarray:
    """Log that cells, or genes that vary, are too few for doublet scores, and return zeros."""
    logger.info(
        "no doublet scores, all zero: %d cells with %d genes that vary are too few",
        *(n_cells, n_genes),
    )
    return np.zeros(n_cells)


def libraries_of(barcodes: pd.Series, min_cells: int) -> pd.Series:
    """Tell of which library each cell is, by the number behind its barcode.

    Cell Ranger numbers the libraries that it joins, and so does :mod:`scdyn.pp.ingest`. Where
    that would leave a library with fewer than ``min_cells``, the numbers mean something else, and
    all cells are taken to be of one.
    """
    numbers = barcodes.astype(str).str.extract(r"-(\d+)$", expand=False).fillna("1")
    few = numbers.value_counts().min() < min_cells
    return pd.Series("1", barcodes.index) if few else numbers


def score_doublets(
    cells: ad.AnnData, metrics: pd.DataFrame, bounds: QualityBounds, seed: int
) -> pd.DataFrame:
    """Score doublets in each modality that was measured, library by library.

    Parameters
    ----------
    cells, metrics
        Of one sample, and what :func:`measure` says of them.
    bounds
        Barcodes with fewer counts are left at zero: they would only be noise among the others'
        neighbours. So are libraries with fewer than ``min_cells`` cells.
    seed
        For Scrublet.

    Returns
    -------
    DataFrame, (cells)
        ``doublet_score`` and, where promoters were measured, ``promoter_doublet_score``.
    """
    libraries = libraries_of(cells.obs["barcode"], bounds.min_cells)
    fewest = max(bounds.min_promoter_counts, 1)
    scores = pd.DataFrame(index=metrics.index)
    for score, counts, enough in [
        ("doublet_score", cells.X, metrics["rna_counts"] >= bounds.min_rna_counts),
        (
            "promoter_doublet_score",
            cells.layers["promoter"],
            metrics["promoter_counts"] >= fewest if "promoter_counts" in metrics else None,
        ),
    ]:
        if enough is None:
            continue
        scores[score] = 0.0
        for library in libraries.unique():
            worth = (enough & (libraries == library)).to_numpy()
            if worth.sum() >= bounds.min_cells:
                scores.loc[worth, score] = doublet_scores(counts[worth], seed)
    return scores


def outlying(counts: pd.Series, n_mads: float) -> pd.Series:
    """Tell which counts lie more than ``n_mads`` MADs from the median of log1p(counts)."""
    logs = np.log1p(counts)
    spread = median_abs_deviation(logs, scale="normal")
    return (logs - np.median(logs)).abs() > n_mads * spread


def judge(metrics: pd.DataFrame, bounds: QualityBounds) -> pd.DataFrame:
    """Decide which cells are kept, with the reasons against each.

    Parameters
    ----------
    metrics
        As :func:`measure` returns them, and the doublet scores if bounds has one.

    Returns
    -------
    DataFrame
        ``metrics`` with ``rna_pass``, ``promoter_pass`` (where promoters were measured), ``kept``
        and ``reason`` (empty, or what failed, separated by "; ").
    """
    rna = {
        f"under {bounds.min_rna_counts} RNA counts": metrics["rna_counts"] < bounds.min_rna_counts,
        f"under {bounds.min_genes} genes": metrics["rna_genes"] < bounds.min_genes,
        f"over {bounds.max_mito_share:g} mitochondrial": metrics["mito_share"]
        > bounds.max_mito_share,
    }
    promoter = {}
    if "promoter_counts" in metrics:
        label = f"under {bounds.min_promoter_counts} promoter counts"
        promoter[label] = metrics["promoter_counts"] < bounds.min_promoter_counts
    for name, low, high in [
        ("tss_enrichment", bounds.min_tss_enrichment, None),
        ("nucleosome_signal", None, bounds.max_nucleosome_signal),
        ("promoter_share", bounds.min_promoter_share, None),
    ]:
        words = name.replace("_", " ").replace("tss", "TSS")
        if name in metrics and low is not None:
            promoter[f"{words} under {low:g}"] = metrics[name] < low
        if name in metrics and high is not None:
            promoter[f"{words} over {high:g}"] = metrics[name] > high
    if bounds.n_mads is not None:
        # The bulk is what passes the fixed bounds: empty barcodes would widen the spread.
        for fails, name in [(rna, "rna_counts"), (promoter, "promoter_counts")]:
            if name not in metrics:
                continue
            bulk = metrics.loc[~pd.DataFrame(fails).any(axis=1), name]
            outliers = bulk.index[outlying(bulk, bounds.n_mads)] if len(bulk) else []
            words = name.replace("_", " ").replace("rna", "RNA")
            label = f"{words} over {bounds.n_mads:g} MADs from the median"
            fails[label] = metrics.index.to_series().isin(outliers)
    doublet = {}
    if bounds.max_doublet_score is not None:
        label = f"doublet score over {bounds.max_doublet_score:g}"
        doublet[label] = metrics["doublet_score"] > bounds.max_doublet_score
        if promoter and bounds.max_promoter_doublet_score is not None:
            label = f"promoter doublet score over {bounds.max_promoter_doublet_score:g}"
            high = metrics["promoter_doublet_score"] > bounds.max_promoter_doublet_score
            doublet[label] = high
    table = metrics.copy()
    table["rna_pass"] = ~pd.DataFrame(rna).any(axis=1)
    if promoter:
        table["promoter_pass"] = ~pd.DataFrame(promoter).any(axis=1)
    passes = table[["rna_pass", "promoter_pass"] if promoter else ["rna_pass"]]
    table["kept"] = passes.all(axis=1) if bounds.keep == "both" else passes.any(axis=1)
    for fails in doublet.values():
        table["kept"] &= ~fails
    reasons = [
        np.where(failed, reason, "") for reason, failed in {**rna, **promoter, **doublet}.items()
    ]
    table["reason"] = ["; ".join(filter(None, row)) for row in zip(*reasons, strict=True)]
    table.loc[table["kept"], "reason"] = ""
    return table


def dropped_by(table: pd.DataFrame) -> str:
    """Say how many cells each bound dropped, most first, and its key.

    Parameters
    ----------
    table
        As :func:`judge` returns it.
    """
    reasons = table.loc[~table["kept"], "reason"].str.split("; ").explode().value_counts()
    keys = {
        reason: next(key for words, key in KEYS.items() if re.search(words, reason))
        for reason in reasons.index
    }
    return ", ".join(f"{n} are {reason} ({keys[reason]})" for reason, n in reasons.items())


def filter_cells(
    cells: ad.AnnData, is_mt: np.ndarray, bounds: QualityBounds, seed: int, name: str
) -> tuple[ad.AnnData, pd.DataFrame]:
    """Keep the good cells of one sample.

    Parameters
    ----------
    cells
        All cells of the sample, as :func:`scdyn.pp.ingest.ingest` gives them.
    is_mt
        (genes,) which genes are mitochondrial.
    seed
        For Scrublet.
    name
        The sample, for messages.

    Returns
    -------
    kept : AnnData
        With the metrics in ``obs``.
    table : DataFrame
        Every cell, as :func:`judge` returns it.

    Raises
    ------
    InputError
        If fewer than ``bounds.min_cells`` cells are left, with how many each bound dropped.
    """
    metrics = measure(cells, is_mt)
    if bounds.max_doublet_score is not None:
        metrics = metrics.join(score_doublets(cells, metrics, bounds, seed))
    table = judge(metrics, bounds)
    n_kept = int(table["kept"].sum())
    reasons = table.loc[~table["kept"], "reason"].value_counts()
    logger.info("%s: %d of %d cells kept", name, n_kept, len(table))
    for reason, n_cells in reasons.items():
        logger.info("%s: %d dropped: %s", name, n_cells, reason)
    n_mito = int((metrics["mito_share"] > bounds.max_mito_share).sum())
    if n_mito > MANY_MITO * len(table):
        logger.warning(
            "%s: %d of %d cells have more than %g mitochondrial UMIs, as whole cells do and sound "
            "nuclei do not; if these are whole cells, set ingest.qc to cells",
            *(name, n_mito, len(table), bounds.max_mito_share),
        )
    if n_kept < bounds.min_cells:
        why = f": {dropped}" if (dropped := dropped_by(table)) else ""
        raise InputError(
            "QC",
            f"sample {name}: {n_kept} of {len(table)} cells pass quality control, fewer than "
            f"ingest.qc.min_cells = {bounds.min_cells}{why}; loosen these bounds of ingest.qc if "
            "the cells are sound.",
        )
    table["promoter_source"] = cells.obs["promoter_source"].to_numpy()
    kept = cells[table["kept"].to_numpy()].copy()
    kept.obs = kept.obs.drop(columns=metrics.columns, errors="ignore").join(metrics)
    return kept, table
