from scdyn import figures
from scdyn.artefacts import read_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    table = read_table(snakemake.input[0])
    figures.save(figures.quality(table, snakemake.wildcards.sample), snakemake.output[0])
