"""The samples joined, with counts and the paper's normalised values side by side."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse

from scdyn.errors import InputError


def log_scaled(counts: sparse.spmatrix, divisor: np.ndarray) -> sparse.csr_matrix:
    """Divide each gene by its size, scale each cell to a million, and take log1p.

    With lengths in kb as ``divisor`` this is log1p(TPM); with numbers of TSSs it is
    the paper's promoter value (both: Yu et al. 2026, Methods).

    Parameters
    ----------
    counts
        (cells, genes).
    divisor
        (genes,) positive.

    Returns
    -------
    csr_matrix of float32
        A cell without counts stays zero.
    """
    rates = sparse.csr_matrix(counts, dtype=np.float64) @ sparse.diags(1.0 / divisor)
    totals = np.asarray(rates.sum(1)).ravel()
    scaled = sparse.diags(1e6 / np.where(totals > 0, totals, 1.0)) @ rates
    return sparse.csr_matrix(scaled.log1p(), dtype=np.float32)


def normalise(cells: ad.AnnData) -> None:
    """Add ``layers["rna_log"]`` (TPM, log1p) and ``layers["promoter_log"]`` (per TSS, CPM, log1p).

    Parameters
    ----------
    cells
        Counts as :func:`scdyn.ingest.ingest` gives them; ``var`` has ``length`` (bp) and
        ``n_tss``. Changed in place.
    """
    cells.layers["rna_log"] = log_scaled(cells.X, cells.var["length"].to_numpy() / 1000)
    cells.layers["promoter_log"] = log_scaled(
        cells.layers["promoter"], cells.var["n_tss"].to_numpy()
    )


def join(samples: Sequence[ad.AnnData]) -> ad.AnnData:
    """Join samples over the same vocabulary and normalise them.

    Raises
    ------
    InputError
        If two samples stand on different vocabularies.
    """
    for sample in samples[1:]:
        if not sample.var_names.equals(samples[0].var_names):
            raise InputError("the samples stand on different vocabularies; ingest them anew.")
    cells = ad.concat(samples, join="outer", merge="first")
    cells.var = samples[0].var.copy()
    cells.X = sparse.csr_matrix(cells.X)
    normalise(cells)
    return cells


def principal_components(cells: ad.AnnData, seed: int, n_components: int = 30) -> np.ndarray:
    """Principal components of the log-normalised RNA: (cells, n_components) or fewer."""
    table = ad.AnnData(cells.layers["rna_log"].copy())
    sc.pp.pca(table, n_comps=min(n_components, min(table.shape) - 1), random_state=seed)
    return table.obsm["X_pca"]


def neighbour_map(values: np.ndarray, seed: int) -> np.ndarray:
    """Lay cells out in two dimensions with UMAP.

    Parameters
    ----------
    values
        (cells, features), such as an embedding.
    seed
        Of the neighbours and of the layout.

    Returns
    -------
    ndarray, (cells, 2)
    """
    table = ad.AnnData(obs=pd.DataFrame(index=range(len(values))), obsm={"values": values})
    sc.pp.neighbors(table, use_rep="values", random_state=seed)
    sc.tl.umap(table, random_state=seed)
    return table.obsm["X_umap"]
