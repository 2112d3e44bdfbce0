import pandas as pd

from scdyn import figures
from scdyn.log import logged

with logged(snakemake.log[0]):
    table = pd.read_csv(snakemake.input[0], sep="\t")
    figures.save(figures.quality(table, snakemake.wildcards.sample), snakemake.output[0])
