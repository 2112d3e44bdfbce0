"""Embedding of cells, and attention of genes to latents, from the last Full layer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scdyn.data.loader import Store, expressed_genes, is_measured, run_batches
from scdyn.data.tokens import NOT_MEASURED
from scdyn.model.transformer import ScDynOmics

# Attention scores in memory at once.
SCORES_AT_ONCE = 2**24


@torch.no_grad()
def embed(
    model: ScDynOmics,
    store: Store,
    rows: np.ndarray,
    batch_size: int = 64,
) -> np.ndarray:
    """Embed cells: latents of the last Full layer, summed over the expressed genes.

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
    batch_size
        Cells per batch.

    Returns
    -------
    ndarray of float32, (cells, latents x head width)
        The columns of a latent are adjacent.
    """
    device = next(model.parameters()).device
    layer = model.layers[model.last_full_layer()]
    attention = layer.attention
    n_numbers = attention.compress.out_features * attention.key_value.out_features
    embedded = np.empty((len(rows), n_numbers), dtype=np.float32)
    empty = torch.zeros(2, model.config.n_genes, dtype=torch.uint8, device=device)
    no_promoter = torch.stack([torch.full_like(empty[0], NOT_MEASURED), empty[1]])

    def tokens_of(rna: Tensor, promoter: Tensor) -> Tensor:
        # In float32, because bfloat16 loses differences of less than 0.4%.
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
