from scdyn import reference
from scdyn.files import write_table
from scdyn.log import logged, logger
from scdyn.preflight import measured_genes

with logged(snakemake.log[0]):
    genes = reference.read_annotation(snakemake.input.annotation, snakemake.params.biotypes)
    rows = snakemake.params.rows
    measured = set().union(*map(measured_genes, rows)) if rows else None
    table = reference.build_vocabulary(genes, reference.read_tfs(snakemake.input.tfs), measured)
    logger.info("%d genes, of which %d TFs", len(table), table["is_tf"].sum())
    write_table(snakemake.output[0], table)
