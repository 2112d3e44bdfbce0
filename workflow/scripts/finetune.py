from pathlib import Path

from scdyn import evaluation, finetune, tokens
from scdyn.log import logged

with logged(snakemake.log[0]):
    finetune.finetune_fold(
        tokens.TokenStore(snakemake.input.tokens),
        evaluation.read_splits(snakemake.input.splits),
        snakemake.wildcards.fold,
        snakemake.params.task,
        Path(snakemake.input.model).parent,
        Path(snakemake.output[0]),
        Path(snakemake.params.checkpoints),
    )
