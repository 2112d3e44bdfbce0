import anndata as ad

from scdyn import figures
from scdyn.corpus import neighbour_map
from scdyn.log import logged

with logged(snakemake.log[0]):
    cells = ad.read_h5ad(snakemake.input.embedding)
    layout = neighbour_map(cells.obsm["X_scdyn"], snakemake.params.seed)
    labels = [name for name in snakemake.params.labels if name in cells.obs]
    figures.save(figures.embedding(layout, cells.obs, ["sample", *labels]), snakemake.output[0])
