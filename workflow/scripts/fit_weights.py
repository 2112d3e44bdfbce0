from scdyn import baselines, splits
from scdyn.artefacts import read_cells
from scdyn.files import write_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    weights = baselines.fit_weights(
        read_cells(snakemake.input.corpus),
        splits.read_splits(snakemake.input.splits),
        snakemake.wildcards.fold,
    )
    write_table(snakemake.output[0], weights)
