from scdyn.io.artefacts import read_cells, write_h5ad
from scdyn.log import logged, logger
from scdyn.pp.corpus import join

with logged(snakemake.log[0]):
    cells = join(read_cells(path) for path in snakemake.input)
    logger.info("%d cells, %d genes", *cells.shape)
    write_h5ad(snakemake.output[0], cells)
