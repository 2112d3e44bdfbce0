from scdyn.io.files import write_table
from scdyn.log import logged, logger
from scdyn.pp import reference
from scdyn.pp.preflight import genes_of_panel

with logged(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    genes = reference.read_annotation(files.annotation, params.biotypes)
    tfs = reference.read_tfs(files.tfs, {*genes["gene_id"], *genes["symbol"]})
    measured = genes_of_panel(params.rows) if params.rows else None
    table = reference.build_vocabulary(genes, tfs, measured)
    logger.info("%d genes, of which %d TFs", len(table), table["is_tf"].sum())
    write_table(snakemake.output[0], table)
