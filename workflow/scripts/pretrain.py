from pathlib import Path

import scdyn.training.openmp  # noqa: F401 - before torch
from scdyn.data import tokens
from scdyn.io.artefacts import read_obs, read_table
from scdyn.log import logged
from scdyn.pp.metadata import read_cells_table
from scdyn.pp.selection import select
from scdyn.settings import ModelSettings, PretrainingSettings
from scdyn.training import distributed, pretraining

with logged(snakemake.log[0]):
    name, files = snakemake.wildcards.model, snakemake.input
    block = ModelSettings(**snakemake.config["models"][name])
    settings = PretrainingSettings(**snakemake.params.settings).with_hardware(block)
    n_processes = distributed.take_processes(settings.gpus)
    distributed.launch(settings.nodes, n_processes, snakemake.threads)
    with distributed.process_group():
        store = tokens.TokenStore(files.tokens)
        store.require_corpus(files.corpus)
        obs = read_cells_table(files.cells) if files.cells else read_obs(files.corpus)
        chosen = obs.index[select(obs, snakemake.params.cells, f"models.{name}.cells")]
        regulons = tokens.regulon_weights(store.vocabulary, read_table(files.regulons))
        pretraining.pretrain(
            store,
            store.find_rows(chosen),
            regulons,
            store.vocabulary,
            settings,
            Path(snakemake.params.folder),
            Path(snakemake.params.checkpoints),
        )
