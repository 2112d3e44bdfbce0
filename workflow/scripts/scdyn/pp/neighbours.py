"""Layout of cells in two dimensions."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd


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
    import scanpy as sc  # the torch environment scores ablations and has none

    table = ad.AnnData(obs=pd.DataFrame(index=range(len(values))), obsm={"values": values})
    sc.pp.neighbors(table, use_rep="values", random_state=seed)
    sc.tl.umap(table, random_state=seed)
    return table.obsm["X_umap"]
