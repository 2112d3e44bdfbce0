"""The corpus: joined samples with counts and normalised values, their PCA and layout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse

from scdyn.errors import InputError
from scdyn.pp.counts import normalise
from scdyn.pp.obs_columns import METRICS

# Columns of ``obs`` that are measured. Labels and covariates are in a separate table.
MEASURED = ("sample", "barcode", "promoter_source", *METRICS)


def join(samples: Iterable[ad.AnnData]) -> ad.AnnData:
    """Join samples over the same vocabulary and normalise them.

    Only the columns of :data:`MEASURED` are kept. Labels and covariates are in the corpus' table
    of cells (:mod:`scdyn.pp.metadata`), so that they can change without recomputing counts.

    Parameters
    ----------
    samples
        From ingestion. They are changed in place, and freed once they are joined if the caller
        keeps no reference.

    Raises
    ------
    InputError
        If the samples have different vocabularies.
    """
    samples = list(samples)
    for sample in samples[1:]:
        if not sample.var_names.equals(samples[0].var_names):
            raise InputError(
                "CORPUS", "the samples have different vocabularies; ingest them again."
            )
    var = samples[0].var.copy()
    for sample in samples:
        sample.obs = sample.obs[[name for name in MEASURED if name in sample.obs]]
        sample.obsm = {}
        sample.uns = {}
    cells = samples[0] if len(samples) == 1 else ad.concat(samples, join="outer", merge="first")
    del samples
    cells.var = var
    cells.X = sparse.csr_matrix(cells.X)
    normalise(cells)
    return cells


def compute_pca(
    cells: ad.AnnData, seed: int, n_components: int = 30, layers: Sequence[str] = ("rna_log",)
) -> np.ndarray:
    """Compute principal components of log-normalised layers: (cells, n_components) or fewer."""
    table = ad.AnnData(sparse.hstack([cells.layers[layer] for layer in layers], format="csr"))
    sc.pp.pca(table, n_comps=min(n_components, min(table.shape) - 1), random_state=seed)
    return table.obsm["X_pca"]


def compute_umap(values: np.ndarray, seed: int) -> np.ndarray:
    """Compute a two-dimensional layout of cells with UMAP.

    Parameters
    ----------
    values
        (cells, features), such as an embedding.
    seed
        Of the neighbours and the layout.

    Returns
    -------
    ndarray, (cells, 2)
    """
    table = ad.AnnData(obs=pd.DataFrame(index=range(len(values))), obsm={"values": values})
    sc.pp.neighbors(table, use_rep="values", random_state=seed)
    sc.tl.umap(table, random_state=seed)
    return table.obsm["X_umap"]
