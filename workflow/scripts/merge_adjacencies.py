from scdyn.grn.consensus import merge_adjacencies
from scdyn.grn.edges import Edges
from scdyn.grn.expression import read_expression
from scdyn.io.artefacts import read_cells
from scdyn.io.files import write_table_by_parts
from scdyn.log import logged

with logged(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    runs = dict(zip(params.runs, map(Edges.read, files.runs), strict=True))
    merged = merge_adjacencies(
        runs, read_expression(files.expression), read_cells(files.expression), **params.settings
    )
    merged.write(snakemake.output.arrays)
    write_table_by_parts(snakemake.output.table, merged.iter_tables())
