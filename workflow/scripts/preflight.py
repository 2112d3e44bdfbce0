from scdyn.log import logged
from scdyn.pp import findings as checked
from scdyn.pp import preflight

with logged(snakemake.log[0]):
    checked.require(snakemake.input.gathered)
    preflight.require_room(snakemake.input.files, snakemake.input.gathered)
