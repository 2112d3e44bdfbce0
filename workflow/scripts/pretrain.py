from pathlib import Path

import scdyn.openmp  # noqa: F401 - before torch
from scdyn import distributed, pretraining, tokens
from scdyn.artefacts import read_obs, read_table
from scdyn.log import logged
from scdyn.selection import select

with logged(snakemake.log[0]):
    settings = snakemake.params.model
    store = tokens.TokenStore(snakemake.input.tokens)
    store.require_corpus(snakemake.input.corpus)
    obs = read_obs(snakemake.input.corpus)
    where = f"models.{snakemake.wildcards.model}.cells"
    chosen = select(obs, settings["cells"], where)
    regulons = tokens.regulon_weights(store.vocabulary, read_table(snakemake.input.regulons))
    distributed.launch(
        settings["nodes"],
        distributed.processes_for(settings["gpus"]),
        snakemake.threads,
        pretraining.pretrain,
        store,
        chosen.nonzero()[0],
        regulons,
        store.vocabulary,
        settings,
        Path(snakemake.output.weights).parent,
        Path(snakemake.params.checkpoints),
    )
