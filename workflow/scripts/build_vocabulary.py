from scdyn.errors import InputError
from scdyn.io.files import write_table
from scdyn.log import logged, logger
from scdyn.pp import reference
from scdyn.pp.preflight import list_measured_genes

with logged(snakemake.log[0]):
    genes = reference.read_annotation(snakemake.input.annotation, snakemake.params.biotypes)
    rows = snakemake.params.rows
    measured: set[str] = set()
    for row in rows:
        try:
            measured |= list_measured_genes(row)
        except InputError as error:  # which preflight says, of all samples
            logger.warning("sample %s is left out: %s", row["sample"], error)
            if row is rows[-1] and not measured:
                raise
    tfs = reference.read_tfs(snakemake.input.tfs, {*genes["gene_id"], *genes["symbol"]})
    table = reference.build_vocabulary(genes, tfs, measured if rows else None)
    logger.info("%d genes, of which %d TFs", len(table), table["is_tf"].sum())
    write_table(snakemake.output[0], table)
