from scdyn.io.artefacts import read_table
from scdyn.log import logged
from scdyn.plotting import qc, style

with logged(snakemake.log[0]):
    table = read_table(snakemake.input[0])
    style.save(qc.plot_quality(table, snakemake.wildcards.sample), snakemake.output[0])
