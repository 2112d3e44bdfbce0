from pathlib import Path

import anndata as ad
import pandas as pd

from scdyn import reference, tokens
from scdyn.log import logged

with logged(snakemake.log[0]):
    tokens.write_tokens(
        ad.read_h5ad(snakemake.input.corpus),
        reference.read_vocabulary(snakemake.input.genes),
        pd.read_csv(snakemake.input.regulons, sep="\t"),
        snakemake.params.n_bins,
        Path(snakemake.input.corpus),
        Path(snakemake.output[0]),
    )
