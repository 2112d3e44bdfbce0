import anndata as ad
import numpy as np
import pandas as pd

import scdyn.openmp  # noqa: F401 - before torch
from scdyn import devices, embedding, pretrained, tokens
from scdyn.artefacts import write_h5ad
from scdyn.files import sha256
from scdyn.log import logged

with logged(snakemake.log[0]):
    store = tokens.TokenStore(snakemake.input.tokens)
    store.require_corpus(snakemake.input.corpus)
    model = pretrained.load_model(snakemake.input.model.rsplit("/", 1)[0], store.meta)
    model = model.to(devices.choose_device())
    embedded = embedding.embed(model, store, np.arange(len(store.cells)))
    cells = ad.AnnData(obs=pd.DataFrame(index=store.cells), obsm={"X_scdyn": embedded})
    cells.uns["model_sha256"] = sha256(snakemake.input.model)
    write_h5ad(snakemake.output[0], cells)
