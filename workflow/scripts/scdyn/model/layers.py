"""Parts of both architectures: precision, attention to latents, and pooled tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

# Attention scores in memory at once.
SCORES_AT_ONCE = 2**24


def attend(queries: Tensor, latents: Tensor) -> Tensor:
    """Compute attention of the queries of all heads to one shared head of keys, also the values.

    By torch's fused attention, which keeps no matrix of scores.

    Parameters
    ----------
    queries
        (B, Q, H, D/H).
    latents
        (B, L, D/H).

    Returns
    -------
    Tensor
        (B, Q, H, D/H).
    """
    n_cells, n_queries, n_heads, head_width = queries.shape
    # All heads share the keys, so the order of queries does not matter: view (B, Q * H) as
    # (B, H, Q), H independent blocks for the kernel.
    parts = queries.reshape(n_cells, n_heads, n_queries, head_width)
    shared = latents.unsqueeze(1).expand(-1, n_heads, -1, -1)
    return functional.scaled_dot_product_attention(parts, shared, shared).reshape(queries.shape)


class Linear(nn.Linear):
    """A linear layer that computes in the type of its input, not of its weights."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (..., n) to (..., m)."""
        bias = None if self.bias is None else self.bias.to(tokens.dtype)
        return functional.linear(tokens, self.weight.to(tokens.dtype), bias)


class Norm(nn.LayerNorm):
    """Layer norm whose output has the type in which a layer's products and attention are computed.

    Weights, statistics and the residual stream are always float32.

    Attributes
    ----------
    precision
        ``float32``, ``bfloat16``, or ``auto``: bfloat16 on a GPU.
    """

    precision: str = "auto"

    def forward(self, tokens: Tensor) -> Tensor:
        """Normalise tokens (B, G, D)."""
        low = self.precision == "bfloat16" or (self.precision == "auto" and tokens.is_cuda)
        normal = self.normalise(tokens)
        return normal.to(torch.bfloat16) if low else normal

    def normalise(self, tokens: Tensor) -> Tensor:
        """Normalise tokens (B, G, D) without changing their type."""
        return super().forward(tokens)


class Tokens(NamedTuple):
    """Tokens of cells, or their representations."""

    values: Tensor
    """(B, Q, D)."""
    genes: Tensor | None
    """(B, Q) positions of the genes, any gene where a cell has fewer tokens; None: all genes."""
    weight: Tensor
    """(B, Q) 1 for tokens that count, 0 for others."""


class CellFeatures(NamedTuple):
    """What the default model computes of cells for a head."""

    features: Tensor
    """(B, F) cell vectors, then principal components."""
    logs: Tensor
    """(B, 2 G) log-normalised counts of RNA, then of promoters."""
    measured: Tensor
    """(B, 2 G) which of them were measured."""


class Pool(nn.Module):
    """Weighted sums of the tokens of a cell, with trained weights of each gene."""

    def __init__(self, n_genes: int, n_pools: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_genes, n_pools)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights with torch's default generator."""
        nn.init.normal_(self.embedding.weight, std=self.embedding.num_embeddings**-0.5)

    def forward(self, tokens: Tokens) -> Tensor:
        """Sum representations: (B, P * D)."""
        if tokens.genes is None:
            weighted = tokens.values * tokens.weight.unsqueeze(-1)
            return (self.embedding.weight.T @ weighted).flatten(1)
        weights = self.embedding(tokens.genes) * tokens.weight.unsqueeze(-1)
        return torch.bmm(weights.transpose(1, 2), tokens.values).flatten(1)


def set_precision(model: nn.Module, precision: str) -> None:
    """Choose the type of the layers' products: ``auto``, ``float32`` or ``bfloat16``."""
    for module in model.modules():
        if isinstance(module, Norm):
            module.precision = precision


def average_attention(queries: Tensor, latents: Tensor, is_token: Tensor) -> Tensor:
    """Average the attention to latents over heads and tokens.

    Parameters
    ----------
    queries
        (B, Q, H, D/H).
    latents
        (B, L, D/H).
    is_token
        (B, Q) boolean.

    Returns
    -------
    Tensor, (B, L)
        The sum per cell is 1, or 0 in a cell without tokens.
    """
    shares = []
    for of_cell, keys, chosen in zip(queries, latents, is_token, strict=True):
        own = of_cell[chosen].flatten(0, 1)
        total = torch.zeros(len(keys), device=queries.device)
        for chunk in own.split(max(1, SCORES_AT_ONCE // len(keys))):
            scores = (chunk @ keys.T).float() * keys.shape[1] ** -0.5
            total += scores.softmax(1).sum(0)
        shares.append(total / max(1, len(own)))
    return torch.stack(shares)


@torch.no_grad()
def anchor(compress: nn.Linear, regulons: Tensor) -> None:
    """Initialise the first latents of a Full layer as regulons; the others stay random.

    This is our addition to the paper: a latent that starts as a regulon (its TF and targets by
    weight, relative to all genes) can be named.

    Parameters
    ----------
    compress
        From genes to latents.
    regulons
        (R, G) non-negative weights, strongest regulons first; rows beyond the number of latents are
        left out.
    """
    rows = regulons[: compress.out_features].to(compress.weight)
    # Without their mean, because sums with positive weights are all nearly the same.
    rows = rows - rows.mean(1, keepdim=True)
    compress.weight[: len(rows)] = functional.normalize(rows, dim=1)
