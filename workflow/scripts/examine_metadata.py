from scdyn.io.files import write_table
from scdyn.log import logged
from scdyn.pp import metadata, preflight, preflight_findings

with logged(snakemake.log[0]):
    params = snakemake.params
    samples = [
        (row["sample"], preflight.list_barcodes(row), params.metadata[row["sample"]])
        for row in params.rows
    ]
    findings = metadata.examine_metadata(samples, params.min_overlap)
    table = preflight_findings.make_table(findings)
    preflight_findings.log_findings(table)
    write_table(snakemake.output[0], table)
