"""Write random cells for the loaders of both packages: ``python make_cells.py FOLDER``."""

import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from sizes import EXPRESSED_SHARE, LOADER_CELLS, LOADER_GENES

from scdyn.data.corpus import Corpus

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
    genes = pd.DataFrame({"symbol": names, "is_tf": False, "length": 1000, "n_tss": 1}, names)
    obs = obs.assign(sample="s", barcode=obs.index)
    counted = [values.ceil().astype(np.int32) for values in layers]
    sample = ad.AnnData(counted[0], obs, genes, layers={"promoter": counted[1]})
    Corpus.write(folder / "corpus", [sample])
