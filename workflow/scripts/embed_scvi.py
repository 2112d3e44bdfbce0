import anndata as ad

import scdyn.training.openmp  # noqa: F401 - before torch
from scdyn.io.artefacts import read_cells, write_h5ad
from scdyn.log import logged
from scdyn.pp.metadata import read_annotated
from scdyn.tasks import peers
from scdyn.training import devices

with logged(snakemake.log[0]):
    devices.take_gpus(1)
    files = snakemake.input
    cells = read_annotated(files.corpus, files.cells) if files.cells else read_cells(files.corpus)
    settings = snakemake.params.peers
    latents = peers.embed_with_scvi(
        cells, settings["batch"], settings["max_epochs"], snakemake.params.seed
    )
    embedded = ad.AnnData(obs=cells.obs[[]], obsm={"X_scvi": latents})
    write_h5ad(snakemake.output[0], embedded)
