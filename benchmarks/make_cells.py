"""Write random cells for the loaders of both packages: ``python make_cells.py FOLDER``."""

import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from sizes import EXPRESSED_SHARE, LOADER_CELLS, LOADER_GENES, N_BINS

from scdyn.data import tokens

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    rng = np.random.default_rng(0)
    layers = [
        sparse.random(
            LOADER_CELLS, LOADER_GENES, EXPRESSED_SHARE, "csr", dtype=np.float32, random_state=rng
        )
        * 9
        for _ in range(2)
    ]
    names = [f"g{i}" for i in range(LOADER_GENES)]
    obs = pd.DataFrame({"promoter_source": "peaks"}, [str(i) for i in range(LOADER_CELLS)])
    var = pd.DataFrame(index=names)
    cells = ad.AnnData(layers[0], obs, var, layers={"pan_promoter": layers[1]})
    cells.write_h5ad(folder / "cells.h5ad")
    cells.layers = {"rna_log": layers[0], "promoter_log": layers[1]}
    genes = pd.DataFrame({"gene_id": names, "symbol": names, "is_tf": False})
    regulons = pd.DataFrame({"regulon": [], "tf": [], "target": [], "weight": []})
    tokens.write_tokens(cells, genes, regulons, N_BINS, folder / "cells.h5ad", folder / "tokens")
