import anndata as ad

from scdyn import grn_cells
from scdyn.files import write_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    params = snakemake.params
    cells, report = grn_cells.choose_cells(
        ad.read_h5ad(snakemake.input.corpus), params.cells, params.max_cells, params.seed
    )
    genes = grn_cells.choose_genes(cells, params.min_cells_share)
    grn_cells.write_expression(cells, genes, snakemake.output.expression)
    write_table(snakemake.output.cells, report)
