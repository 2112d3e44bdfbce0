from pathlib import Path

import scdyn.training.openmp  # noqa: F401 - before torch
from scdyn.data import tokens
from scdyn.log import logged
from scdyn.settings import with_hardware
from scdyn.tasks import finetuning, splits

with logged(snakemake.log[0]):
    wildcards = snakemake.wildcards
    finetuning.finetune_run(
        tokens.TokenStore(snakemake.input.tokens),
        splits.read_splits(snakemake.input.splits),
        wildcards.variant,
        int(wildcards.seed),
        wildcards.fold,
        with_hardware(snakemake.params.settings, snakemake.config["tasks"][wildcards.task]),
        Path(snakemake.params.model),
        Path(snakemake.output[0]),
        Path(snakemake.params.checkpoints),
    )
