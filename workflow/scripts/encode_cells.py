from pathlib import Path

import scdyn.training.openmp  # noqa: F401 - before torch
from scdyn.data.corpus import Corpus
from scdyn.data.tokens import TokenStore
from scdyn.log import logged
from scdyn.settings import EncodingSettings
from scdyn.tasks import encoding, splits

with logged(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    encoding.write_encoded_cells(
        TokenStore(files.tokens, Corpus(files.corpus)),
        splits.read_splits(files.splits)["cell"],
        EncodingSettings(**params.settings),
        Path(params.model),
        Path(snakemake.output[0]),
        Path(params.unfinished),
    )
