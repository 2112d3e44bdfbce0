from scdyn.io.artefacts import read_cells
from scdyn.io.files import write_table
from scdyn.log import logged
from scdyn.settings import BaselineSettings
from scdyn.tasks import baselines, splits

with logged(snakemake.log[0]):
    predictions, costs = baselines.fit_baselines(
        read_cells(snakemake.input.corpus),
        splits.read_splits(snakemake.input.splits),
        snakemake.wildcards.fold,
        BaselineSettings(**snakemake.params.task),
    )
    write_table(snakemake.output.predictions, predictions)
    write_table(snakemake.output.costs, costs)
