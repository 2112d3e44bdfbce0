import anndata as ad

from scdyn import spaces
from scdyn.files import atomic
from scdyn.log import logged, logger

with logged(snakemake.log[0]):
    peer = snakemake.input.get("scvi")
    if not peer:
        logger.info("scVI is left out: the config has no peers")
    table = spaces.gather(
        ad.read_h5ad(snakemake.input.embedding),
        ad.read_h5ad(snakemake.input.corpus),
        ad.read_h5ad(peer).obsm["X_scvi"] if peer else None,
        snakemake.params.seed,
    )
    with atomic(snakemake.output[0]) as temporary:
        table.write_h5ad(temporary)
