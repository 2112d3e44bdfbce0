from scdyn import grn_cells
from scdyn.artefacts import read_cells
from scdyn.files import write_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    params = snakemake.params
    cells, report = grn_cells.choose_cells(
        read_cells(snakemake.input.corpus), params.cells, params.max_cells, params.seed
    )
    genes = grn_cells.choose_genes(cells, params.min_cells_share)
    grn_cells.write_expression(cells, genes, snakemake.output.expression)
    write_table(snakemake.output.cells, report)
