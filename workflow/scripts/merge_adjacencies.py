from scdyn.grn.consensus import merge_adjacencies
from scdyn.grn.expression import read_expression
from scdyn.io.artefacts import read_cells, read_table
from scdyn.io.files import write_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    runs = dict(zip(params.runs, map(read_table, files.runs), strict=True))
    edges = merge_adjacencies(
        runs, read_expression(files.expression), read_cells(files.expression), **params.settings
    )
    write_table(snakemake.output[0], edges)
