import anndata as ad

import scdyn.openmp  # noqa: F401 - before torch
from scdyn import devices, peers
from scdyn.artefacts import read_cells
from scdyn.files import atomic
from scdyn.log import logged

with logged(snakemake.log[0]):
    devices.take_gpus(1)
    cells = read_cells(snakemake.input[0])
    settings = snakemake.params.peers
    latents = peers.scvi_embedding(
        cells, settings["batch"], settings["max_epochs"], snakemake.params.seed
    )
    with atomic(snakemake.output[0]) as temporary:
        ad.AnnData(obs=cells.obs[[]], obsm={"X_scvi": latents}).write_h5ad(temporary)
