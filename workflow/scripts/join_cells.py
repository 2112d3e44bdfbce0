from scdyn.io.artefacts import read_cells, read_table
from scdyn.log import logged
from scdyn.pp import metadata, preflight_findings

with logged(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    for examined in files.examined:
        preflight_findings.require_passed(examined)
    samples = (
        (read_cells(path), read_table(qc, usecols=["cell"], dtype=str))
        for path, qc in zip(files.samples, files.qc, strict=True)
    )
    table = metadata.annotate_samples(
        samples, params.covariates, params.metadata, params.min_overlap
    )
    metadata.write_cells(snakemake.output[0], table)
