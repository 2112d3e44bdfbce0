from scdyn.data.corpus import Corpus
from scdyn.data.pca import Pca
from scdyn.io.artefacts import read_cells, write_h5ad
from scdyn.log import logged, logger
from scdyn.pp.metadata import read_cells_table
from scdyn.tasks import embeddings

with logged(snakemake.log[0]):
    files, params, corpus = snakemake.input, snakemake.params, Corpus(snakemake.input.corpus)
    peer = files.get("scvi")
    if not peer:
        logger.info("scVI is left out: the config has no peers")
    table = embeddings.gather_embeddings(
        corpus,
        Pca(files.pca, corpus),
        files.embedding,
        read_cells(peer) if peer else None,
        embeddings.draw_compared(
            corpus, read_cells_table(files.cells, params.labels), params.labels, params.seed
        ),
    )
    write_h5ad(snakemake.output[0], table)
