"""Principal components of cells, and their layout in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse


def compute_pca(
    cells: ad.AnnData, seed: int, n_components: int = 30, layers: Sequence[str] = ("rna_log",)
) -> np.ndarray:
    """Principal components of log-normalised layers: (cells, n_components) or fewer."""
    table = ad.AnnData(sparse.hstack([cells.layers[layer] for layer in layers], format="csr"))
    sc.pp.pca(table, n_comps=min(n_components, min(table.shape) - 1), random_state=seed)
    return table.obsm["X_pca"]


def compute_umap(values: np.ndarray, seed: int) -> np.ndarray:
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
