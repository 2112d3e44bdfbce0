"""Quality control of cells in each modality, with the reasons for dropped cells."""

from __future__ import annotations

import re

import anndata as ad
import numpy as np
import pandas as pd
from scipy.stats import median_abs_deviation

from scdyn.errors import InputError
from scdyn.log import logger
from scdyn.pp.counts import promoters_measured, sum_cells
from scdyn.pp.doublets import run_scrublet
from scdyn.settings import QualitySettings

# If more than this share of cells exceeds the mitochondrial bound, it may be the wrong preset.
MANY_MITO = 0.2
# Metrics that need fragments; see scdyn.io.fragments.count_insertions.
FRAGMENT_METRICS = ("fragments", "promoter_share", "nucleosome_signal", "tss_enrichment")
# Metrics from Cell Ranger's table; see scdyn.io.tenx.read_metrics.
CELLRANGER_METRICS = ("peak_share", "atac_mito_share")


# Pattern of each reason for a dropped cell, and the key of ``ingest.qc`` that sets its bound.
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


def compute_metrics(cells: ad.AnnData, is_mt: np.ndarray) -> pd.DataFrame:
    """Compute QC metrics per cell: counts and genes of each modality, mitochondrial share.

    Parameters
    ----------
    cells
        ``X`` RNA counts, ``layers["promoter"]`` promoter counts, in ``obs`` ``promoter_source``
        and, if known, :data:`FRAGMENT_METRICS` and :data:`CELLRANGER_METRICS`.
    is_mt
        (genes,) whether a gene is mitochondrial.

    Returns
    -------
    DataFrame
        ``rna_counts``, ``rna_genes``, ``mito_share``; if promoters were measured also
        ``promoter_counts``, ``promoter_genes`` and the known metrics.
    """
    rna, promoter = cells.X.tocsr(), cells.layers["promoter"].tocsr()
    counts = sum_cells(rna)
    metrics = pd.DataFrame(
        {
            "rna_counts": counts,
            "rna_genes": rna.getnnz(1),
            "mito_share": sum_cells(rna[:, is_mt]) / np.maximum(counts, 1),
        },
        index=cells.obs_names,
    )
    if not promoters_measured(cells.obs).any():
        return metrics
    known = [name for name in (*FRAGMENT_METRICS, *CELLRANGER_METRICS) if name in cells.obs]
    return metrics.assign(
        promoter_counts=sum_cells(promoter),
        promoter_genes=promoter.getnnz(1),
        **{name: cells.obs[name].to_numpy() for name in known},
    )


def assign_libraries(barcodes: pd.Series, min_cells: int) -> pd.Series:
    """Return the library of each cell, from the number after its barcode.

    Cell Ranger and :mod:`scdyn.pp.ingestion` number libraries in this way. If a library has fewer
    than ``min_cells`` cells, the numbers probably mean something else, and all cells count as one
    library.
    """
    numbers = barcodes.astype(str).str.extract(r"-(\d+)$", expand=False).fillna("1")
    few = numbers.value_counts().min() < min_cells
    return pd.Series("1", barcodes.index) if few else numbers


def score_doublets(
    cells: ad.AnnData, metrics: pd.DataFrame, bounds: QualitySettings, seed: int
) -> pd.DataFrame:
    """Compute doublet scores per library, in each modality that was measured.

    Parameters
    ----------
    cells, metrics
        Of one sample, and the metrics of :func:`compute_metrics`.
    bounds
        Barcodes with fewer counts get zero, because they would be noise among the neighbours of
        the others; so do libraries with fewer than ``min_cells`` cells.
    seed
        For Scrublet.

    Returns
    -------
    DataFrame, (cells)
        ``doublet_score`` and, if promoters were measured, ``promoter_doublet_score``.
    """
    libraries = assign_libraries(cells.obs["barcode"], bounds.min_cells)
    fewest = max(bounds.min_promoter_counts, 1)
    scores = pd.DataFrame(index=metrics.index)
    for score, counts, suffices in [
        ("doublet_score", cells.X, metrics["rna_counts"] >= bounds.min_rna_counts),
        (
            "promoter_doublet_score",
            cells.layers["promoter"],
            metrics["promoter_counts"] >= fewest if "promoter_counts" in metrics else None,
        ),
    ]:
        if suffices is None:
            continue
        scores[score] = 0.0
        for library in libraries.unique():
            scored = np.flatnonzero(suffices & (libraries == library))
            if len(scored) >= bounds.min_cells:
                scores.iloc[scored, -1] = run_scrublet(counts, seed, scored)
    return scores


def find_outliers(counts: pd.Series, n_mads: float) -> pd.Series:
    """Find counts more than ``n_mads`` MADs from the median of log1p(counts)."""
    logs = np.log1p(counts)
    spread = median_abs_deviation(logs, scale="normal")
    return (logs - np.median(logs)).abs() > n_mads * spread


def apply_bounds(metrics: pd.DataFrame, bounds: QualitySettings) -> pd.DataFrame:
    """Apply the bounds to the metrics.

    Parameters
    ----------
    metrics
        From :func:`compute_metrics`, with doublet scores if there is a bound for them.

    Returns
    -------
    DataFrame
        ``metrics`` with ``rna_pass``, ``promoter_pass`` (if promoters were measured), ``kept`` and
        ``reason`` (failed bounds of a dropped cell, separated by "; ").
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
        # Computed from cells within the fixed bounds; empty barcodes would inflate the spread.
        for fails, name in [(rna, "rna_counts"), (promoter, "promoter_counts")]:
            if name not in metrics:
                continue
            bulk = metrics.loc[~pd.DataFrame(fails).any(axis=1), name]
            outliers = bulk.index[find_outliers(bulk, bounds.n_mads)] if len(bulk) else []
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


def describe_drops(table: pd.DataFrame) -> str:
    """Describe how many cells each bound dropped, the largest number first, with its key.

    Parameters
    ----------
    table
        From :func:`apply_bounds`.
    """
    reasons = table.loc[~table["kept"], "reason"].str.split("; ").explode().value_counts()
    keys = {
        reason: next(key for words, key in KEYS.items() if re.search(words, reason))
        for reason in reasons.index
    }
    return ", ".join(f"{n} are {reason} ({keys[reason]})" for reason, n in reasons.items())


def filter_cells(
    cells: ad.AnnData, bounds: QualitySettings | None = None, seed: int = 1
) -> tuple[ad.AnnData, pd.DataFrame]:
    """Filter the cells of one sample by quality.

    Parameters
    ----------
    cells
        All cells of the sample, from :func:`scdyn.pp.ingestion.ingest`.
    bounds
        For the cells to keep; those for nuclei if None.
    seed
        For Scrublet.

    Returns
    -------
    kept : AnnData
        With the metrics in ``obs``.
    table : DataFrame
        All cells, from :func:`apply_bounds`.

    Raises
    ------
    InputError
        If fewer than ``bounds.min_cells`` cells pass, with the number dropped by each bound.
    """
    bounds, name = bounds or QualitySettings(), cells.obs["sample"].iloc[0]
    metrics = compute_metrics(cells, cells.var["is_mt"].to_numpy())
    if bounds.max_doublet_score is not None:
        metrics = metrics.join(score_doublets(cells, metrics, bounds, seed))
    table = apply_bounds(metrics, bounds)
    n_kept = int(table["kept"].sum())
    reasons = table.loc[~table["kept"], "reason"].value_counts()
    logger.info("%s: %d of %d cells kept", name, n_kept, len(table))
    for reason, n_cells in reasons.items():
        logger.info("%s: %d dropped: %s", name, n_cells, reason)
    n_mito = int((metrics["mito_share"] > bounds.max_mito_share).sum())
    if n_mito > MANY_MITO * len(table):
        logger.warning(
            "%s: %d of %d cells have a mitochondrial share above %g, which is usual in whole cells "
            "but not in nuclei; if these are whole cells, set ingest.qc to cells",
            *(name, n_mito, len(table), bounds.max_mito_share),
        )
    if n_kept < bounds.min_cells:
        why = f": {dropped}" if (dropped := describe_drops(table)) else ""
        raise InputError(
            "QC",
            f"sample {name}: {n_kept} of {len(table)} cells pass quality control, fewer than "
            f"ingest.qc.min_cells = {bounds.min_cells}{why}; relax these bounds of ingest.qc if "
            "the cells are good.",
        )
    table["promoter_source"] = cells.obs["promoter_source"].to_numpy()
    rows = np.flatnonzero(table["kept"])
    obs = cells.obs.iloc[rows].drop(columns=metrics.columns, errors="ignore").join(metrics)
    # A copy of a view would take each matrix twice.
    kept = ad.AnnData(
        cells.X[rows],
        obs=obs,
        var=cells.var,
        layers={name: values[rows] for name, values in cells.layers.items()},
        obsm={name: values[rows] for name, values in cells.obsm.items()},
    )
    return kept, table
