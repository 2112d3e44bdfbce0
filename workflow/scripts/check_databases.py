from scdyn import reference
from scdyn.files import write_table
from scdyn.grn_databases import check_databases
from scdyn.log import logged

with logged(snakemake.log[0]):
    files = snakemake.input
    table = check_databases(
        files.rankings,
        files.annotations,
        reference.read_vocabulary(files.genes),
        snakemake.params.min_overlap,
    )
    write_table(snakemake.output[0], table)
