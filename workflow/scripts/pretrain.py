from pathlib import Path

import anndata as ad
import pandas as pd

from scdyn import distributed, pretraining, reference, tokens
from scdyn.log import logged
from scdyn.selection import select

with logged(snakemake.log[0]):
    settings = snakemake.params.model
    folder = Path(snakemake.input.tokens)
    store = tokens.TokenStore(folder)
    obs = ad.read_h5ad(snakemake.input.corpus, backed="r").obs
    where = f"models.{snakemake.wildcards.model}.cells"
    chosen = select(obs, settings["cells"], where)
    genes = reference.read_vocabulary(folder / "vocabulary.tsv")
    regulons = tokens.regulon_weights(genes, pd.read_csv(snakemake.input.regulons, sep="\t"))
    distributed.launch(
        settings["nodes"],
        distributed.processes_for(settings["gpus"]),
        snakemake.threads,
        pretraining.pretrain,
        store,
        chosen.nonzero()[0],
        regulons,
        genes,
        settings,
        Path(snakemake.output.weights).parent,
        Path(snakemake.params.checkpoints),
    )
