import anndata as ad
import numpy as np
import pandas as pd

import scdyn.training.openmp  # noqa: F401 - before torch
from scdyn.data import tokens
from scdyn.io.artefacts import write_h5ad
from scdyn.io.files import sha256
from scdyn.log import logged
from scdyn.model import embedding, pretrained
from scdyn.training import devices

with logged(snakemake.log[0]):
    store = tokens.TokenStore(snakemake.input.tokens)
    store.require_corpus(snakemake.input.corpus)
    model = pretrained.load_model(snakemake.params.model, store.meta)
    model = model.to(devices.choose_device())
    embedded = embedding.embed(model, store, np.arange(len(store.cells)))
    cells = ad.AnnData(obs=pd.DataFrame(index=store.cells), obsm={"X_scdyn": embedded})
    cells.uns["model_sha256"] = sha256(snakemake.input.model)
    write_h5ad(snakemake.output[0], cells)
