from scdyn.data.corpus import Corpus
from scdyn.io.files import write_table
from scdyn.log import logged
from scdyn.tasks import baselines, splits

with logged(snakemake.log[0]):
    weights = baselines.fit_weights(
        Corpus(snakemake.input.corpus),
        splits.read_splits(snakemake.input.splits),
        snakemake.wildcards.fold,
        **snakemake.params.task,
    )
    write_table(snakemake.output[0], weights)
