import pandas as pd

from scdyn.data.corpus import Corpus
from scdyn.data.pca import Pca
from scdyn.io.artefacts import writing_parquet
from scdyn.io.files import write_table
from scdyn.log import logged
from scdyn.settings import BaselineSettings
from scdyn.tasks import baselines, splits

with logged(snakemake.log[0]):
    files, corpus = snakemake.input, Corpus(snakemake.input.corpus)
    costs = []
    with writing_parquet(snakemake.output.predictions) as write:
        for predictions, cost in baselines.fit_baselines(
            corpus,
            Pca(files.pca, corpus),
            splits.read_splits(files.splits),
            snakemake.wildcards.fold,
            BaselineSettings(**snakemake.params.task),
        ):
            write(predictions)
            costs.append(cost)
    write_table(snakemake.output.costs, pd.DataFrame(costs))
