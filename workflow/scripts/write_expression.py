import anndata as ad

from scdyn import grn
from scdyn.log import logged

with logged(snakemake.log[0]):
    params = snakemake.params
    grn.write_expression(
        ad.read_h5ad(snakemake.input[0]),
        params.max_cells,
        params.min_cells_share,
        params.seed,
        snakemake.output.matrix,
        snakemake.output.tfs,
    )
