from scdyn import preflight
from scdyn.artefacts import read_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    preflight.require(read_table(snakemake.input[0]), snakemake.input[0])
