from scdyn.data.corpus import make_corpus
from scdyn.log import logged

with logged(snakemake.log[0]):
    make_corpus(snakemake.params.folder, snakemake.input.samples)
