"""A cell as a point: what its expressed genes add to the latents of the last Full layer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scdyn.data.loader import MemoryStore, expressed_genes, is_measured, run_batches
from scdyn.data.tokens import NOT_MEASURED, TokenStore
from scdyn.model.transformer import ScDynOmics

# Scores of attention that are held at once, in floats.
SCORES_AT_ONCE = 2**24


@torch.no_grad()
def embed(
    model: ScDynOmics,
    store: TokenStore | MemoryStore,
    rows: np.ndarray,
    batch_size: int = 64,
) -> np.ndarray:
    """Embed cells: what their expressed genes add to the latents of the last Full layer.

    Each latent is a learned, weighted sum over the representations of the genes, and where it
    began as a regulon it has that regulon's name. Here the sum is over the genes that either
    modality saw, of their representations less those in a cell without counts (where promoters
    were measured as in this cell), so that such a cell is at the origin. With the silent genes,
    whose representations follow the cell's depth, a mouse cortex' cell types were told apart far
    less, and by plain means over the genes hardly. The same cell gets the same point whatever
    batch it is in.

    Parameters
    ----------
    model
        In evaluation mode.
    store, rows
        The cells.
    batch_size
        Cells at once.

    Returns
    -------
    ndarray of float32, (cells, latents x head width)
        A latent's numbers stand beside each other.
    """
    device = next(model.parameters()).device
    layer = model.layers[model.last_full_layer()]
    attention = layer.attention
    n_numbers = attention.compress.out_features * attention.key_value.out_features
    embedded = np.empty((len(rows), n_numbers), dtype=np.float32)
    empty = torch.zeros(2, model.config.n_genes, dtype=torch.uint8, device=device)
    no_promoter = torch.stack([torch.full_like(empty[0], NOT_MEASURED), empty[1]])

    def tokens_of(rna: Tensor, promoter: Tensor) -> Tensor:
        # In float32: bfloat16 would round away what differs by less than 0.4%.
        return layer.attention_norm.normalise(model.run_to_last_full_layer(rna, promoter))

    baseline = tokens_of(empty, no_promoter)

    def embed_batch(rna: Tensor, promoter: Tensor) -> np.ndarray:
        added = tokens_of(rna, promoter) - baseline[is_measured(promoter).long()]
        latents = attention.latents(added * expressed_genes(rna, promoter).unsqueeze(-1))
        return latents.flatten(1).cpu().numpy()

    place = 0
    for part in run_batches(embed_batch, store, rows, device, batch_size):
        embedded[place : place + len(part)] = part
        place += len(part)
    return embedded


@torch.no_grad()
def attention_to_latents(
    model: ScDynOmics,
    store: TokenStore | MemoryStore,
    rows: np.ndarray,
    batch_size: int = 64,
) -> np.ndarray:
    """Share of the attention of a cell's genes that each latent of the last Full layer gets.

    Parameters
    ----------
    model
        In evaluation mode.
    store, rows
        The cells.
    batch_size
        Cells at once.

    Returns
    -------
    ndarray of float32, (cells, latents)
        Mean over the heads and the genes that either modality saw; each cell's shares sum to
        one. A cell without counts has zeros.
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
    """Mean over queries (Q, D/H) of the attention that each of the latents (L, D/H) gets."""
    total = torch.zeros(len(latents), device=queries.device)
    for chunk in queries.split(max(1, SCORES_AT_ONCE // len(latents))):
        scores = (chunk @ latents.T).float() * latents.shape[1] ** -0.5
        total += scores.softmax(1).sum(0)
    return total / max(1, len(queries))
