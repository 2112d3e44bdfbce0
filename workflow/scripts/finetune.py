from pathlib import Path

import scdyn.training.openmp  # noqa: F401 - before torch
from scdyn.data.corpus import Corpus
from scdyn.data.tokens import TokenStore
from scdyn.log import logged
from scdyn.settings import TaskSettings, VariantSettings
from scdyn.tasks import finetuning, splits

with logged(snakemake.log[0]):
    wildcards = snakemake.wildcards
    block = TaskSettings(**snakemake.config["tasks"][wildcards.task])
    finetuning.finetune_run(
        TokenStore(snakemake.input.tokens, Corpus(snakemake.input.corpus)),
        splits.read_splits(snakemake.input.splits),
        wildcards.variant,
        int(wildcards.seed),
        wildcards.fold,
        VariantSettings(**snakemake.params.settings).with_hardware(block),
        Path(snakemake.params.model),
        Path(snakemake.output[0]),
        Path(snakemake.params.checkpoints),
    )
