from pathlib import Path

import scdyn.training.openmp  # noqa: F401 - before torch
from scdyn.data.corpus import Corpus
from scdyn.data.tokens import TokenStore
from scdyn.log import logged
from scdyn.pp.metadata import read_selected_cells
from scdyn.pp.selection import require_column, select
from scdyn.settings import ModelSettings, PretrainingSettings
from scdyn.training import distributed, pretraining

with logged(snakemake.log[0]):
    name, files = snakemake.wildcards.model, snakemake.input
    block = ModelSettings(**snakemake.config["models"][name])
    settings = PretrainingSettings(**snakemake.params.settings).with_hardware(block)
    n_processes = distributed.take_processes(settings.gpus)
    distributed.launch(settings.nodes, n_processes, snakemake.threads)
    with distributed.process_group():
        corpus, wanted, key = Corpus(files.corpus), snakemake.params.cells, settings.batch_key
        columns = [*wanted, *([key] if key else [])]
        obs = read_selected_cells(files.cells, columns) if files.cells else corpus.obs
        of_sample, batches = snakemake.params.batches, None
        if key and not of_sample:
            require_column(obs, key, f"models.{name}.batch_key")
        chosen = obs.index[select(obs, wanted, f"models.{name}.cells")]
        if of_sample:
            batches = corpus.obs.loc[chosen, "sample"].astype(str).map(of_sample).rename(key)
        elif key:
            batches = obs.loc[chosen, key]
        pretraining.pretrain(
            TokenStore(files.tokens, corpus),
            corpus.find_rows(chosen),
            settings,
            Path(snakemake.params.folder),
            Path(snakemake.params.checkpoints),
            batches,
        )
