"""The scDynOmics transformer: a cell's whole coding genome, seen through its TFs.

One token a gene, shared by RNA and promoter accessibility. Layers alternate
between TF layers, whose keys and values read the transcription factors' tokens
only, and Full layers, which read all genes; in both, keys and values are
projected along the gene axis to a few latents (Linformer, Wang et al. 2020,
arXiv:2006.04768). The architecture is that of Yu et al., bioRxiv
10.64898/2026.02.28.708160; ``ModelConfig.full_size`` gives its figures.

Shapes below: B cells, G genes, T TFs (the first T genes of the vocabulary),
L latents, D width, H heads.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from scdyn.errors import InputError


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides the architecture.

    Attributes
    ----------
    n_genes, n_tfs
        Genes of the vocabulary; the first ``n_tfs`` of them are the TFs.
    n_bins
        Highest value bin. Ids 1 to ``n_bins`` are bins of expressed genes, 0 is
        zero; ``mask_id`` and ``absent_id`` follow.
    width, n_layers, n_heads, ffn_width
        Token width, layers (TF and Full in turn, TF first), query heads, width
        of the feed-forward layer.
    n_latents
        Latents that keys and values are projected to. A TF layer has at most
        one latent a TF.
    dropout
        After attention and after the feed-forward layer.
    """

    n_genes: int
    n_tfs: int
    n_bins: int = 14
    width: int = 96
    n_layers: int = 12
    n_heads: int = 12
    n_latents: int = 500
    ffn_width: int = 768
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.width % self.n_heads:
            raise InputError(
                f"model: width {self.width} is not a multiple of its {self.n_heads} heads; "
                "choose width = heads x head width."
            )
        if not 0 < self.n_tfs <= self.n_genes:
            raise InputError(
                f"model: {self.n_tfs} TFs among {self.n_genes} genes; a TF layer needs at least "
                "one TF, so check the TF list against the gene annotation."
            )

    @property
    def mask_id(self) -> int:
        """Token id of a value hidden from the model."""
        return self.n_bins + 1

    @property
    def absent_id(self) -> int:
        """Token id of a value that was not measured."""
        return self.n_bins + 2

    @classmethod
    def full_size(cls) -> ModelConfig:
        """Return the paper's architecture: 22,000 genes, 1,500 TFs, about 75 M parameters."""
        return cls(n_genes=22_000, n_tfs=1_500)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> ModelConfig:
        """Build from a mapping, refusing keys that are not attributes.

        Raises
        ------
        InputError
            Naming the unknown key.
        """
        unknown = sorted(set(content) - {field.name for field in fields(cls)})
        if unknown:
            raise InputError(f"model config: unknown key '{unknown[0]}'.")
        return cls(**content)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain values."""
        return asdict(self)


def attend(queries: Tensor, latents: Tensor) -> Tensor:
    """Attention of every head's queries to one shared head of keys, which are also the values.

    The heads are folded into the query axis, so that one fused call serves them
    all and no score matrix is kept.

    Parameters
    ----------
    queries
        (B, G, H, D/H).
    latents
        (B, L, D/H).

    Returns
    -------
    Tensor
        (B, G, H, D/H).
    """
    n_cells, n_genes, n_heads, head_width = queries.shape
    folded = queries.reshape(n_cells, 1, n_genes * n_heads, head_width)
    shared = latents.unsqueeze(1)
    return functional.scaled_dot_product_attention(folded, shared, shared).view_as(queries)


class LatentAttention(nn.Module):
    """Attention of all genes to latents made of the first ``n_sources`` genes."""

    def __init__(self, config: ModelConfig, n_sources: int) -> None:
        super().__init__()
        self.n_sources = n_sources
        self.n_heads = config.n_heads
        head_width = config.width // config.n_heads
        self.query = nn.Linear(config.width, config.width, bias=False)
        self.compress = nn.Linear(n_sources, min(config.n_latents, n_sources), bias=False)
        self.key_value = nn.Linear(config.width, head_width, bias=False)
        self.output = nn.Linear(config.width, config.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map normalised tokens (B, G, D) to their update (B, G, D)."""
        queries = self.query(tokens).unflatten(-1, (self.n_heads, -1))
        # Narrowing to the head's width first makes the product along the genes H times cheaper.
        narrow = self.key_value(tokens[:, : self.n_sources])
        # Contiguous, since fused attention wants the head's width innermost.
        latents = self.compress(narrow.transpose(1, 2)).transpose(1, 2).contiguous()
        return self.output(attend(queries, latents).flatten(-2))


class Layer(nn.Module):
    """One pre-norm encoder layer: latent attention, then a feed-forward network."""

    def __init__(self, config: ModelConfig, n_sources: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = LatentAttention(config, n_sources)
        self.ffn_norm = nn.LayerNorm(config.width)
        self.ffn_in = nn.Linear(config.width, config.ffn_width)
        self.ffn_out = nn.Linear(config.ffn_width, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, G, D) to tokens (B, G, D)."""
        tokens = tokens + self.dropout(self.attention(self.attention_norm(tokens)))
        hidden = functional.gelu(self.ffn_in(self.ffn_norm(tokens)))
        return tokens + self.dropout(self.ffn_out(hidden))


class ScDynOmics(nn.Module):
    """The encoder and its masked-bin decoders.

    Parameters
    ----------
    config
        The architecture.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        n_ids = config.n_bins + 3
        self.gene_embedding = nn.Embedding(config.n_genes, config.width)
        self.rna_embedding = nn.Embedding(n_ids, config.width)
        self.promoter_embedding = nn.Embedding(n_ids, config.width)
        self.layers = nn.ModuleList(
            Layer(config, config.n_tfs if i % 2 == 0 else config.n_genes)
            for i in range(config.n_layers)
        )
        self.final_norm = nn.LayerNorm(config.width)
        self.rna_decoder = nn.Linear(config.width, config.n_bins + 1)
        self.promoter_decoder = nn.Linear(config.width, config.n_bins + 1)
        self.initialise()

    def initialise(self) -> None:
        """Draw all parameters from torch's default generator; the one place where this is done."""
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                nn.init.constant_(parameter, 1.0 if name.endswith("norm.weight") else 0.0)
            elif "embedding" in name:
                nn.init.normal_(parameter, std=self.config.width**-0.5)
            elif name.endswith(("output.weight", "ffn_out.weight")):
                # Two residual branches a layer add up: scaled as in GPT-2, so that depth
                # does not raise the variance.
                scale = (2 * self.config.n_layers) ** -0.5
                nn.init.normal_(parameter, std=scale * parameter.shape[1] ** -0.5)
            else:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)

    @torch.no_grad()
    def anchor_latents(self, regulons: Tensor) -> None:
        """Start the first latents of every Full layer from regulons.

        Ours, not the paper's: a latent that starts as one regulon (its TF and
        targets by weight) can be named. Remaining latents stay random.

        Parameters
        ----------
        regulons
            (R, G) non-negative weights, strongest regulons first; rows beyond
            the number of latents are left out.
        """
        for layer in self.layers:
            weight = layer.attention.compress.weight
            if layer.attention.n_sources == self.config.n_genes:
                rows = regulons[: len(weight)].to(weight)
                weight[: len(rows)] = functional.normalize(rows, dim=1)

    def embed_tokens(self, rna: Tensor, promoter: Tensor) -> Tensor:
        """Sum the gene's and the two values' embeddings: ids (B, G) each to tokens (B, G, D)."""
        values = self.rna_embedding(rna.int()) + self.promoter_embedding(promoter.int())
        return values + self.gene_embedding.weight

    def encode(self, tokens: Tensor) -> Tensor:
        """Run the layers and the final norm: tokens (B, G, D) to representations (B, G, D)."""
        for layer in self.layers:
            tokens = layer(tokens)
        return self.final_norm(tokens)

    def forward(self, rna: Tensor, promoter: Tensor) -> Tensor:
        """Return the genes' representations.

        Parameters
        ----------
        rna, promoter
            (B, G) token ids, any integer type.

        Returns
        -------
        Tensor
            (B, G, D).
        """
        return self.encode(self.embed_tokens(rna, promoter))

    def decode(self, representations: Tensor) -> tuple[Tensor, Tensor]:
        """Predict bins: representations (..., D) to RNA and promoter logits (..., bins + 1)."""
        return self.rna_decoder(representations), self.promoter_decoder(representations)


def mask_genes(
    rna: Tensor, promoter: Tensor, share: float, mask_id: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Hide a share of each cell's non-zero genes in both modalities.

    Parameters
    ----------
    rna, promoter
        (B, G) bins. A gene counts as non-zero if either modality saw it.
    share
        Share of the non-zero genes to hide, rounded to whole genes, at least
        one in a cell that has any (the paper: 0.15).
    mask_id
        Token id that stands for a hidden value.
    generator
        Source of randomness, on the device of ``rna``.

    Returns
    -------
    tuple of Tensor
        RNA ids and promoter ids with the hidden values replaced, and the
        (B, G) boolean mask of hidden genes.
    """
    expressed = (rna > 0) | (promoter > 0)
    n_hidden = (expressed.sum(1) * share).round().long()
    n_hidden = n_hidden.clamp(min=1).minimum(expressed.sum(1))
    noise = torch.rand(rna.shape, generator=generator, device=rna.device)
    # Random ranks among the cell's non-zero genes: the first n_hidden are hidden.
    ranks = noise.masked_fill(~expressed, 2.0).argsort(1).argsort(1)
    hidden = ranks < n_hidden[:, None]
    return rna.masked_fill(hidden, mask_id), promoter.masked_fill(hidden, mask_id), hidden
