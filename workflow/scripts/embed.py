import anndata as ad
import numpy as np

import scdyn.openmp  # noqa: F401 - before torch
from scdyn import devices, embedding, pretrained, tokens
from scdyn.artefacts import read_obs
from scdyn.files import atomic, sha256
from scdyn.log import logged

with logged(snakemake.log[0]):
    store = tokens.TokenStore(snakemake.input.tokens)
    store.require_corpus(snakemake.input.corpus)
    model = pretrained.load_model(snakemake.input.model.rsplit("/", 1)[0], store.meta)
    model = model.to(devices.choose_device())
    obs = read_obs(snakemake.input.corpus).loc[store.cells]
    embedded = embedding.embed(model, store, np.arange(len(obs)))
    cells = ad.AnnData(obs=obs, obsm={"X_scdyn": embedded})
    cells.uns["model_sha256"] = sha256(snakemake.input.model)
    with atomic(snakemake.output[0]) as temporary:
        cells.write_h5ad(temporary)
