import anndata as ad

import scdyn.training.openmp  # noqa: F401 - before torch
from scdyn.data.corpus import Corpus
from scdyn.io.artefacts import write_h5ad
from scdyn.log import logged
from scdyn.pp.metadata import add_labels, read_cells_table
from scdyn.tasks import embeddings, peers
from scdyn.training import devices

with logged(snakemake.log[0]):
    devices.take_gpus(1)
    files, settings = snakemake.input, snakemake.params.peers
    corpus, batch = Corpus(files.corpus), settings["batch"]
    drawn = embeddings.draw_compared(corpus, snakemake.params.seed)
    cells = corpus.to_memory(drawn, ["rna"])
    if files.cells:
        add_labels(cells, read_cells_table(files.cells, [batch]))
    latents = peers.embed_with_scvi(cells, batch, settings["max_epochs"], snakemake.params.seed)
    embedded = ad.AnnData(obs=cells.obs[[]], obsm={"X_scvi": latents})
    write_h5ad(snakemake.output[0], embedded)
