from scdyn.data.corpus import Corpus
from scdyn.data.pca import Pca
from scdyn.io.files import write_table
from scdyn.log import logged
from scdyn.settings import BaselineSettings
from scdyn.tasks import baselines, splits

with logged(snakemake.log[0]):
    files, corpus = snakemake.input, Corpus(snakemake.input.corpus)
    predictions, costs = baselines.fit_baselines(
        corpus,
        Pca(files.pca, corpus),
        splits.read_splits(files.splits),
        snakemake.wildcards.fold,
        BaselineSettings(**snakemake.params.task),
    )
    write_table(snakemake.output.predictions, predictions)
    write_table(snakemake.output.costs, costs)
