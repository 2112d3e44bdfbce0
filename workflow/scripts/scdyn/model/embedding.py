"""Embedding of cells, and attention of genes to latents, from the last Full layer."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file
from sklearn.decomposition import PCA
from torch import Tensor

from scdyn.data.loader import Store, expressed_genes, is_measured, run_batches
from scdyn.data.tokens import NOT_MEASURED, TokenStore
from scdyn.io.artefacts import ALL_CHUNKS, make_stamp, write_zarr
from scdyn.io.files import atomic, remove
from scdyn.log import logger
from scdyn.model.transformer import ScDynOmics

# Numbers of a cell's embedding.
N_COMPONENTS = 128
# Cells per chunk of an embedding on disk.
CELLS_PER_CHUNK = 16_384
# Attention scores in memory at once.
SCORES_AT_ONCE = 2**24


class Projection(NamedTuple):
    """A linear map of the summed latents of cells to their embedding."""

    mean: Tensor
    """(latents x head width,) mean over cells."""
    components: Tensor
    """(latents x head width, components) principal components, divided by one number."""


@torch.no_grad()
def embed(
    model: ScDynOmics,
    store: Store,
    rows: np.ndarray,
    projection: Projection | None,
    batch_size: int = 64,
) -> np.ndarray:
    """Embed cells: latents of the last Full layer, summed over the expressed genes, and projected.

    A latent is a trained weighted sum over genes; latents that were initialised as a regulon have
    its name. The embedding sums the differences between the genes' representations in the cell and
    in a cell without counts (with the same measured modalities), over the genes with counts in
    either modality, so that a cell without counts is at the origin. Silent genes are left out
    because their representations depend on sequencing depth: with them, cell types of a mouse
    cortex were separated far less, and hardly at all by plain means over the genes. The embedding
    of a cell does not depend on its batch.

    Parameters
    ----------
    model
        In evaluation mode.
    store, rows
        The cells.
    projection
        Of :func:`fit_projection`. None: the latents are not projected.
    batch_size
        Cells per batch.

    Returns
    -------
    ndarray of float32, (cells, components)
        Or (cells, latents x head width), where the columns of a latent are adjacent.
    """
    device = next(model.parameters()).device
    layer = model.layers[model.last_full_layer()]
    attention = layer.attention
    n_numbers = attention.compress.out_features * attention.key_value.out_features
    if projection is not None:
        mean, components = (part.to(device) for part in projection)
        n_numbers = components.shape[1]
    embedded = np.empty((len(rows), n_numbers), dtype=np.float32)
    empty = torch.zeros(2, model.config.n_genes, dtype=torch.uint8, device=device)
    no_promoter = torch.stack([torch.full_like(empty[0], NOT_MEASURED), empty[1]])

    def tokens_of(rna: Tensor, promoter: Tensor) -> Tensor:
        # In float32, because bfloat16 loses differences of less than 0.4%.
        return layer.attention_norm.normalise(model.run_to_last_full_layer(rna, promoter))

    baseline = tokens_of(empty, no_promoter)

    def embed_batch(rna: Tensor, promoter: Tensor) -> np.ndarray:
        added = tokens_of(rna, promoter) - baseline[is_measured(promoter).long()]
        latents = attention.latents(added * expressed_genes(rna, promoter).unsqueeze(-1)).flatten(1)
        if projection is not None:
            latents = (latents - mean) @ components
        return latents.cpu().numpy()

    place = 0
    for part in run_batches(embed_batch, store, rows, device, batch_size):
        embedded[place : place + len(part)] = part
        place += len(part)
    return embedded


def fit_projection(model: ScDynOmics, store: Store, rows: np.ndarray) -> Projection:
    """Fit the projection of a model: principal components of the summed latents of some cells.

    The components are exact, and divided by one number so that the first has a standard deviation
    of one: float16 then holds every cell, and distances keep their proportions.

    Parameters
    ----------
    model
        In evaluation mode.
    store, rows
        The cells, a few thousand of those that the model is trained on.

    Returns
    -------
    Projection
        On the CPU. The largest number of each component is positive.
    """
    latents = embed(model, store, rows, None).astype(np.float64)
    n_components = min(N_COMPONENTS, len(latents) - 1, latents.shape[1])
    pca = PCA(n_components, svd_solver="covariance_eigh").fit(latents)
    scale = np.sqrt(pca.explained_variance_[0]) or 1.0
    mean, components = pca.mean_, pca.components_.T / scale
    return Projection(*(torch.tensor(part, dtype=torch.float32) for part in (mean, components)))


def write_embedding(
    model: ScDynOmics,
    projection: Projection,
    store: TokenStore,
    path: str | Path,
    parts: Path,
    model_id: str,
) -> None:
    """Embed a corpus, sample by sample, and write the embedding.

    Parameters
    ----------
    model, projection
        In evaluation mode, and its projection.
    store
        The corpus.
    path
        Folder, ``NAME.zarr``: an AnnData with ``obsm["X_scdyn"]`` (cells, components) of float16,
        and with the ids of corpus and model in its stamp. Written atomically.
    parts
        Folder of the samples that are finished, with which a killed job continues; removed at the
        end.
    model_id
        Hash of the model's weights.
    """
    corpus = store.corpus
    stamp = {"corpus": corpus.id, "model": model_id}
    # Parts by other code are not used, either.
    digest = hashlib.sha256(b"".join(values.numpy().tobytes() for values in projection))
    made_by = {
        "model": model_id,
        "projection": digest.hexdigest(),
        "version": make_stamp()["version"],
    }
    finished = [parts / f"{i}.safetensors" for i in range(len(corpus.shards))]
    bounds = list(pairwise(corpus.offsets))
    for part, shard, (start, stop) in zip(finished, corpus.shards, bounds, strict=True):
        identity = made_by | {"sample": shard.id}
        if read_identity(part) == identity:
            logger.info("%s: is embedded already", shard.path.stem)
            continue
        values = embed(model, store, np.arange(start, stop), projection).astype(np.float16)
        with atomic(part) as temporary:
            save_file({"X_scdyn": values}, temporary, identity)
        logger.info("%s: embedded %d cells", shard.path.stem, len(values))
    shape = len(corpus), projection.components.shape[1]
    with atomic(path) as temporary:
        group = write_zarr(temporary, ad.AnnData(obs=corpus.obs[[]].rename_axis(None)), stamp)
        array = group.create_array(
            "obsm/X_scdyn",
            shape=shape,
            dtype="float16",
            chunks=(min(CELLS_PER_CHUNK, shape[0]), shape[1]),
            compressors=None,
            attributes={"encoding-type": "array", "encoding-version": "0.2.0"},
            config=ALL_CHUNKS,
        )
        for part, (start, stop) in zip(finished, bounds, strict=True):
            array[start:stop] = load_file(part)["X_scdyn"]
    remove(parts)


def read_identity(part: Path) -> dict[str, str] | None:
    """Read of which sample, model and code a part is; None if it cannot be read."""
    try:
        with safe_open(part, framework="np") as opened:
            identity: dict[str, str] | None = opened.metadata()
            return identity
    except (OSError, SafetensorError):
        return None


@torch.no_grad()
def attention_to_latents(
    model: ScDynOmics,
    store: Store,
    rows: np.ndarray,
    batch_size: int = 64,
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
    attention = model.layers[model.last_full_layer()].attention

    def attend(rna: Tensor, promoter: Tensor) -> np.ndarray:
        latents, tokens = model.latents(rna, promoter)
        shares = [
            _mean_attention(attention.queries(tokens[i, genes]).flatten(0, 1), latents[i])
            for i, genes in enumerate(expressed_genes(rna, promoter))
        ]
        return torch.stack(shares).cpu().numpy()

    none = np.zeros((0, attention.compress.out_features), dtype=np.float32)
    return np.concatenate([none, *run_batches(attend, store, rows, device, batch_size)])


def _mean_attention(queries: Tensor, latents: Tensor) -> Tensor:
    """Average the attention to latents (L, D/H) over queries (Q, D/H): (L,)."""
    total = torch.zeros(len(latents), device=queries.device)
    for chunk in queries.split(max(1, SCORES_AT_ONCE // len(latents))):
        scores = (chunk @ latents.T).float() * latents.shape[1] ** -0.5
        total += scores.softmax(1).sum(0)
    return total / max(1, len(queries))
