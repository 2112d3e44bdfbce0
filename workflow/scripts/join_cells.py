from scdyn.io.artefacts import read_table
from scdyn.io.shards import Shard
from scdyn.log import logged
from scdyn.pp import metadata, preflight_findings

with logged(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    for examined in files.examined:
        preflight_findings.require_passed(examined)
    samples = (
        (
            shard.read_table("obs"),
            shard.read_positions(),
            read_table(qc, usecols=["cell"], dtype=str),
        )
        for shard, qc in zip(map(Shard, files.samples), files.qc, strict=True)
    )
    table = metadata.annotate_samples(
        samples, params.covariates, params.metadata, params.min_overlap
    )
    metadata.write_cells(snakemake.output[0], table)
