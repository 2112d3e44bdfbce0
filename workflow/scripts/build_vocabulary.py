from scdyn import reference
from scdyn.files import write_table
from scdyn.log import logged, logger
from scdyn.preflight import measured_genes

with logged(snakemake.log[0]):
    path = snakemake.input.annotation
    if path.removesuffix(".gz").endswith(".gtf"):
        genes = reference.read_gtf(path, snakemake.params.biotypes)
    else:
        genes = reference.read_bed(path)
    rows = snakemake.params.rows
    measured = set().union(*map(measured_genes, rows)) if rows else None
    table = reference.build_vocabulary(genes, reference.read_tfs(snakemake.input.tfs), measured)
    logger.info("%d genes, of which %d TFs", len(table), table["is_tf"].sum())
    write_table(snakemake.output[0], table)
