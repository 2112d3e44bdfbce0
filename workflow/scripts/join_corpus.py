from scdyn.artefacts import read_cells
from scdyn.corpus import join
from scdyn.files import atomic
from scdyn.log import logged, logger

with logged(snakemake.log[0]):
    cells = join(read_cells(path) for path in snakemake.input)
    logger.info("%d cells, %d genes", *cells.shape)
    with atomic(snakemake.output[0]) as temporary:
        cells.write_h5ad(temporary, compression="lzf")
