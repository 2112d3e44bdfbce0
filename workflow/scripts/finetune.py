from pathlib import Path

import scdyn.training.openmp  # noqa: F401 - before torch
from scdyn.data.corpus import Corpus
from scdyn.data.tokens import TokenStore
from scdyn.log import logged
from scdyn.settings import TaskSettings, VariantSettings
from scdyn.tasks import encoding, finetuning, splits

with logged(snakemake.log[0]):
    wildcards = snakemake.wildcards
    files, params = snakemake.input, snakemake.params
    store = TokenStore(files.tokens, Corpus(files.corpus))
    settings = VariantSettings(**params.settings)
    encoded = None
    if files.get("encoded"):
        encoded = encoding.open_encoded_cells(
            Path(files.encoded), store, settings, Path(params.model)
        )
    block = TaskSettings(**snakemake.config["tasks"][wildcards.task])
    finetuning.finetune_run(
        store,
        splits.read_splits(files.splits),
        wildcards.variant,
        int(wildcards.seed),
        wildcards.fold,
        settings.with_hardware(block),
        Path(params.model),
        Path(snakemake.output[0]),
        Path(params.checkpoints),
        encoded,
    )
