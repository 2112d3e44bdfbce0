from scdyn.log import logged
from scdyn.pp import preflight, preflight_findings

with logged(snakemake.log[0]):
    preflight_findings.require_passed(snakemake.input.gathered)
    preflight.require_room(snakemake.input.files, snakemake.input.gathered)
