"""Embedding of cells by a pretrained model, and its file."""

from __future__ import annotations

import warnings
from itertools import pairwise
from pathlib import Path

import anndata as ad
import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from scdyn.data.loader import Store, mask_modality, run_batches
from scdyn.data.tokens import TokenStore
from scdyn.io.artefacts import make_stamp, write_zarr
from scdyn.io.files import atomic, remove
from scdyn.io.parts import compute_parts, write_parts
from scdyn.model.adapters import Encoder
from scdyn.model.paper import PaperModel
from scdyn.model.transformer import CLIPPED, ScDynOmics

# Numbers of a cell's embedding by the paper's architecture.
N_COMPONENTS = 128
# Cells per batch of those whose components are computed.
BATCH = 512


@torch.no_grad()
def embed(
    model: Encoder,
    store: Store,
    rows: np.ndarray,
    batch_size: int = 64,
    modalities: str = "both",
) -> np.ndarray:
    """Embed cells; the embedding of a cell does not depend on its batch.

    Parameters
    ----------
    model
        In evaluation mode.
    store, rows
        The cells.
    batch_size
        Cells per batch.
    modalities
        Those that are read: "both", "rna" or "promoter".

    Returns
    -------
    ndarray of float32, (cells, numbers)
        See :meth:`scdyn.model.transformer.ScDynOmics.embed_cells` and
        :meth:`scdyn.model.paper.PaperModel.embed_cells`.
    """
    device = next(model.parameters()).device

    def embed_batch(rna: Tensor, promoter: Tensor) -> np.ndarray:
        counts = mask_modality(rna, promoter, modalities)
        return model.embed_cells(*counts).float().cpu().numpy()

    none = np.zeros((0, model.embedding_width), dtype=np.float32)
    return np.concatenate([none, *run_batches(embed_batch, store, rows, device, batch_size)])


@torch.no_grad()
def fit_projection(model: PaperModel, store: Store, rows: np.ndarray, batch_size: int = 64) -> None:
    """Fit the projection of a model: principal components of the summed latents of some cells.

    The components are exact, and divided by one number so that the first has a standard deviation
    of one: float16 then holds every cell, and distances keep their proportions.

    Parameters
    ----------
    model
        In evaluation mode. Its buffers ``mean`` and ``components`` are set; the largest number of
        each component is positive.
    store, rows
        The cells, a few thousand of those that the model is trained on.
    batch_size
        Cells per batch.
    """
    device = model.mean.device

    def sum_batch(rna: Tensor, promoter: Tensor) -> np.ndarray:
        return model.sum_latents(rna, promoter).double().cpu().numpy()

    latents = np.concatenate(list(run_batches(sum_batch, store, rows, device, batch_size)))
    n_components = min(N_COMPONENTS, len(latents) - 1, latents.shape[1])
    pca = PCA(n_components, svd_solver="covariance_eigh").fit(latents)
    scale = np.sqrt(pca.explained_variance_[0]) or 1.0
    parts = (pca.mean_, pca.components_.T / scale)
    model.mean, model.components = (torch.tensor(p, dtype=torch.float32).to(device) for p in parts)


@torch.no_grad()
def start_from_components(model: ScDynOmics, store: Store, rows: np.ndarray, seed: int) -> None:
    """Start a model with principal components of some cells, which its cell vectors start as.

    Half of them are of log-normalised counts scaled to unit variance and clipped, half of unscaled
    ones: the former are better where few of many genes tell cell types apart, the latter where
    many genes are noise. Each kind is divided by one number, so that its mean variance is one.

    Parameters
    ----------
    model
        Not trained yet.
    store, rows
        The cells, a few thousand of those that the model is trained on.
    seed
        Of the randomised singular value decomposition.
    """
    device = model.bottleneck.centre.device

    def normalise_batch(rna: Tensor, promoter: Tensor) -> np.ndarray:
        logs, known = model.normalise(rna, promoter)
        return logs.masked_fill(~known, torch.nan).cpu().numpy()

    values = np.concatenate(list(run_batches(normalise_batch, store, rows, device, BATCH)))
    with warnings.catch_warnings():
        # Of a modality that was measured in no cell.
        warnings.filterwarnings("ignore", "(Mean of empty slice|Degrees of freedom)")
        centre, deviation = (np.nan_to_num(f(values, axis=0)) for f in (np.nanmean, np.nanstd))
    scale = np.where(deviation > 0, deviation, 1.0).astype(np.float32)
    values = np.nan_to_num(values - centre)
    n_components = min(model.config.n_components // 2, len(rows) - 1, values.shape[1] - 1)
    components = []
    for of_kind in ((values / scale).clip(-CLIPPED, CLIPPED), values):
        pca = PCA(n_components, svd_solver="randomized", random_state=seed).fit(of_kind)
        size = np.sqrt(pca.explained_variance_.mean()) or 1.0
        components.append(pca.components_ / size)
    parts = (centre, scale, np.stack(components).astype(np.float32))
    model.bottleneck.start_from_components(*(torch.from_numpy(part) for part in parts))


def write_embedding(
    model: Encoder, store: TokenStore, path: str | Path, parts: Path, model_id: str
) -> None:
    """Embed a corpus, sample by sample, and write the embedding.

    Parameters
    ----------
    model
        In evaluation mode.
    store
        The corpus.
    path
        Folder, ``NAME.zarr``: an AnnData with ``obsm["X_scdyn"]`` (cells, numbers) of float16, and
        with the ids of corpus and model in its stamp. Written atomically.
    parts
        Folder of the samples that are finished, with which a killed job continues; removed at the
        end.
    model_id
        Hash of the model's weights.
    """
    corpus = store.corpus
    # Parts by other code are not used, either.
    made_by = {"model": model_id, "version": make_stamp()["version"]}
    bounds = list(pairwise(corpus.offsets))
    files = compute_parts(
        parts,
        [made_by | {"sample": shard.id} for shard in corpus.shards],
        lambda i: embed(model, store, np.arange(*bounds[i])).astype(np.float16),
    )
    with atomic(path) as temporary:
        table = ad.AnnData(obs=corpus.obs[[]].rename_axis(None))
        group = write_zarr(temporary, table, {"corpus": corpus.id, "model": model_id})
        shape = len(corpus), model.embedding_width
        write_parts(group, "obsm/X_scdyn", files, shape, "float16")
    remove(parts)


@torch.no_grad()
def attention_to_latents(
    model: Encoder, store: Store, rows: np.ndarray, batch_size: int = 64
) -> np.ndarray:
    """Compute the attention of a cell's genes to each latent of the last Full layer.

    Parameters
    ----------
    model
        In evaluation mode.
    store, rows
        The cells.
    batch_size
        Cells per batch.

    Returns
    -------
    ndarray of float32, (cells, latents)
        Mean over the heads and the genes with counts in either modality; the sum per cell is 1.
        Zeros for a cell without counts.
    """
    device = next(model.parameters()).device

    def attend(rna: Tensor, promoter: Tensor) -> np.ndarray:
        return model.attend_to_latents(rna, promoter).cpu().numpy()

    n_latents = model.layers[model.last_full_layer()].attention.compress.out_features
    none = np.zeros((0, n_latents), dtype=np.float32)
    return np.concatenate([none, *run_batches(attend, store, rows, device, batch_size)])
