from scdyn.io.files import write_table
from scdyn.log import logged
from scdyn.pp import cell_tables, preflight
from scdyn.pp import findings as checked

with logged(snakemake.log[0]):
    params = snakemake.params
    samples = [
        (row["sample"], preflight.barcodes_of(row), params.metadata[row["sample"]])
        for row in params.rows
    ]
    findings = cell_tables.examine_metadata(samples, params.min_overlap)
    table = checked.report(findings)
    checked.tell(table)
    write_table(snakemake.output[0], table)
