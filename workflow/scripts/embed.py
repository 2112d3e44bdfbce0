import scdyn.training.openmp  # noqa: F401 - before torch
from scdyn.data.corpus import Corpus
from scdyn.data.tokens import TokenStore
from scdyn.log import logged
from scdyn.model.pretrained import Pretrained
from scdyn.training.devices import choose_device

with logged(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    Pretrained(params.model, choose_device()).embed_corpus(
        TokenStore(files.tokens, Corpus(files.corpus)), snakemake.output[0], params.unfinished
    )
