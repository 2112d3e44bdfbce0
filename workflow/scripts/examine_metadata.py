from scdyn import cell_tables, preflight
from scdyn.files import write_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    params = snakemake.params
    samples = [
        (row["sample"], preflight.barcodes_of(row), params.metadata[row["sample"]])
        for row in params.rows
    ]
    findings = cell_tables.examine_metadata(samples, params.min_overlap)
    table = preflight.report(findings)
    preflight.tell(table)
    write_table(snakemake.output[0], table)
