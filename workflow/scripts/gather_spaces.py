from scdyn.io.artefacts import read_cells, write_h5ad
from scdyn.log import logged, logger
from scdyn.tasks import embeddings

with logged(snakemake.log[0]):
    peer = snakemake.input.get("scvi")
    if not peer:
        logger.info("scVI is left out: the config has no peers")
    table = embeddings.gather_embeddings(
        read_cells(snakemake.input.embedding),
        read_cells(snakemake.input.corpus),
        read_cells(peer).obsm["X_scvi"] if peer else None,
        snakemake.params.seed,
    )
    write_h5ad(snakemake.output[0], table)
