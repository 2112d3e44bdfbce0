from scdyn import preflight
from scdyn.log import logged

with logged(snakemake.log[0]):
    preflight.require(snakemake.input.gathered)
    preflight.require_room(snakemake.input.files, snakemake.input.gathered)
