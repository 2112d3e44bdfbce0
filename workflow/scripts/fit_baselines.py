import pandas as pd

from scdyn.io.artefacts import read_cells, writing_parquet
from scdyn.io.files import write_table
from scdyn.log import logged
from scdyn.settings import BaselineSettings
from scdyn.tasks import baselines, splits

with logged(snakemake.log[0]):
    costs = []
    with writing_parquet(snakemake.output.predictions) as write:
        for predictions, cost in baselines.fit_baselines(
            read_cells(snakemake.input.corpus),
            splits.read_splits(snakemake.input.splits),
            snakemake.wildcards.fold,
            BaselineSettings(**snakemake.params.task),
        ):
            write(predictions)
            costs.append(cost)
    write_table(snakemake.output.costs, pd.DataFrame(costs))
