from scdyn.grn.databases import check_databases
from scdyn.io.files import write_table
from scdyn.log import logged
from scdyn.pp import reference

with logged(snakemake.log[0]):
    files = snakemake.input
    table = check_databases(
        files.rankings,
        files.annotations,
        reference.read_vocabulary(files.genes),
        snakemake.params.min_overlap,
    )
    write_table(snakemake.output[0], table)
