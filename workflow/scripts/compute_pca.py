from scdyn.data.corpus import Corpus
from scdyn.data.pca import compute_pca
from scdyn.log import logged

with logged(snakemake.log[0]):
    compute_pca(Corpus(snakemake.input.corpus), snakemake.output[0])
