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
    files, params, corpus = snakemake.input, snakemake.params, Corpus(snakemake.input.corpus)
    batch, labels = params.peers["batch"], params.labels
    table = read_cells_table(files.cells, [*labels, batch])
    drawn = embeddings.draw_compared(corpus, table, labels, params.seed)
    cells = add_labels(corpus.to_memory(drawn, ["rna"]), table)
    latents = peers.embed_with_scvi(cells, batch, params.peers["max_epochs"], params.seed)
    embedded = ad.AnnData(obs=cells.obs[[]], obsm={"X_scvi": latents})
    write_h5ad(snakemake.output[0], embedded)
