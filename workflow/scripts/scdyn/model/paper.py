"""The scDynOmics transformer: one token per gene of a cell's coding genome.

A token has both RNA and promoter accessibility. Layers alternate between TF layers, whose keys and
values are computed from the tokens of the transcription factors, and Full layers, where they are
computed from all genes. In both, keys and values are projected along the gene axis to a few
latents (Linformer, Wang et al. 2020, arXiv:2006.04768). The architecture is that of Yu et al.,
bioRxiv 10.64898/2026.02.28.708160, with the numbers of ``ModelConfig.full_size``.

Shapes below: B cells, G genes, T TFs (the first T genes of the vocabulary),
L latents, D width, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from scdyn.model.architecture import ModelConfig
from scdyn.model.layers import Linear, Norm, attend


def gather_genes(tokens: Tensor, genes: Tensor | None) -> Tensor:
    """Select genes (B, Q) per cell from tokens (B, G, D); all genes if None."""
    if genes is None:
        return tokens
    return tokens.gather(1, genes.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


class LatentAttention(nn.Module):
    """Attention of genes to latents, which are projections of the first ``n_sources`` genes."""

    def __init__(self, config: ModelConfig, n_sources: int) -> None:
        super().__init__()
        self.n_sources = n_sources
        self.n_heads = config.n_heads
        head_width = config.width // config.n_heads
        self.query = Linear(config.width, config.width, bias=False)
        self.compress = nn.Linear(n_sources, min(config.n_latents, n_sources), bias=False)
        self.key_value = Linear(config.width, head_width, bias=False)
        self.output = Linear(config.width, config.width)

    def queries(self, tokens: Tensor) -> Tensor:
        """Project normalised tokens (B, Q, D) to queries (B, Q, H, D/H)."""
        return self.query(tokens).unflatten(-1, (self.n_heads, -1))

    def latents(self, tokens: Tensor) -> Tensor:
        """Project normalised tokens (B, G, D) to latents (B, L, D/H)."""
        # Projecting to the head's width first makes the product along the genes H times cheaper.
        narrow = self.key_value(tokens[:, : self.n_sources])
        # One product for all cells, whose gradient has the memory layout of the weight.
        columns = narrow.transpose(0, 1).flatten(1)
        latents = (self.compress.weight.to(columns.dtype) @ columns).unflatten(1, (len(tokens), -1))
        return latents.transpose(0, 1).contiguous()

    def forward(self, tokens: Tensor, genes: Tensor | None = None) -> Tensor:
        """Map normalised tokens (B, G, D) to the updates (B, Q, D) of genes (B, Q)."""
        queries = self.queries(gather_genes(tokens, genes))
        return self.output(attend(queries, self.latents(tokens)).flatten(-2))


class Layer(nn.Module):
    """One pre-norm encoder layer: latent attention, then a feed-forward network."""

    def __init__(self, config: ModelConfig, n_sources: int) -> None:
        super().__init__()
        self.attention_norm = Norm(config.width)
        self.attention = LatentAttention(config, n_sources)
        self.ffn_norm = Norm(config.width)
        self.ffn_in = Linear(config.width, config.ffn_width)
        self.ffn_out = Linear(config.ffn_width, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor, genes: Tensor | None = None) -> Tensor:
        """Map tokens (B, G, D) to the tokens (B, Q, D) of some genes (B, Q), or of all."""
        update = self.attention(self.attention_norm(tokens), genes)
        tokens = gather_genes(tokens, genes) + self.dropout(update)
        hidden = functional.gelu(self.ffn_in(self.ffn_norm(tokens)))
        return tokens + self.dropout(self.ffn_out(hidden))


class PaperModel(nn.Module):
    """The encoder and its masked-bin decoders.

    Parameters
    ----------
    config
        The architecture.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.compiled = False
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

    def set_precision(self, precision: str) -> None:
        """Choose the type of the layers' products: ``auto``, ``float32`` or ``bfloat16``."""
        for module in self.modules():
            if isinstance(module, Norm):
                module.precision = precision

    def compile_layers(self) -> None:
        """Compile all layers except the last, whose number of query genes varies.

        Layers are compiled one by one, because layers of one kind share the compiled code. It is
        compiled for TF and Full layers, for training and evaluation, for one cell and for more;
        with adapters also for the first layer, whose input needs no gradient.
        """
        # torch's default limit is 8, beyond which a layer runs uncompiled.
        torch._dynamo.config.recompile_limit = max(16, torch._dynamo.config.recompile_limit)
        self.compiled = True
        for layer in self.layers[:-1]:
            layer.compile()

    def initialise(self) -> None:
        """Initialise all parameters with torch's default generator."""
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                nn.init.constant_(parameter, 1.0 if name.endswith("norm.weight") else 0.0)
            elif "embedding" in name:
                nn.init.normal_(parameter, std=self.config.width**-0.5)
            elif name.endswith(("output.weight", "ffn_out.weight")):
                # Scaled as in GPT-2, so that the variance of the sum over two residual branches per
                # layer does not grow with depth.
                scale = (2 * self.config.n_layers) ** -0.5
                nn.init.normal_(parameter, std=scale * parameter.shape[1] ** -0.5)
            else:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
        # "Not measured" starts at zero, so that it adds nothing in untrained models.
        for embedding in (self.rna_embedding, self.promoter_embedding):
            nn.init.zeros_(embedding.weight[self.config.not_measured_id])

    @torch.no_grad()
    def anchor_latents(self, regulons: Tensor) -> None:
        """Initialise the first latents of each Full layer as regulons.

        This is our addition to the paper: a latent that starts as a regulon (its TF and targets by
        weight, relative to all genes) can be named. The other latents stay random.

        Parameters
        ----------
        regulons
            (R, G) non-negative weights, strongest regulons first; rows beyond the number of latents
            are left out.
        """
        for layer in self.layers:
            weight = layer.attention.compress.weight
            if layer.attention.n_sources == self.config.n_genes:
                rows = regulons[: len(weight)].to(weight)
                # Without their mean, because sums with positive weights are all nearly the same.
                rows = rows - rows.mean(1, keepdim=True)
                weight[: len(rows)] = functional.normalize(rows, dim=1)

    def value_ids(self, bins: Tensor) -> Tensor:
        """Map bins to rows of the value embeddings; ``NOT_MEASURED`` to ``not_measured_id``."""
        return bins.int().clamp(max=self.config.not_measured_id)

    def embed_tokens(self, rna: Tensor, promoter: Tensor) -> Tensor:
        """Sum the embeddings of gene, RNA and promoter: bins (B, G) each to tokens (B, G, D)."""
        # All pairs of values are summed first, so that there is one lookup per token.
        pairs = self.rna_embedding.weight[:, None] + self.promoter_embedding.weight
        ids = self.value_ids(rna) * len(pairs) + self.value_ids(promoter)
        return functional.embedding(ids, pairs.flatten(0, 1)) + self.gene_embedding.weight

    def encode(self, tokens: Tensor, genes: Tensor | None = None) -> Tensor:
        """Run the layers and the final norm.

        Parameters
        ----------
        tokens
            (B, G, D).
        genes
            (B, Q) positions of the query genes per cell; the last layer is run for these only. All
            genes if None.

        Returns
        -------
        Tensor
            (B, Q, D) representations.
        """
        for layer in self.layers[:-1]:
            if self.compiled:
                torch._dynamo.maybe_mark_dynamic(tokens, 0)
            tokens = layer(tokens)
        return self.final_norm(self.layers[-1](tokens, genes))

    def forward(self, rna: Tensor, promoter: Tensor, genes: Tensor | None = None) -> Tensor:
        """Compute the representations of genes.

        Parameters
        ----------
        rna, promoter
            (B, G) bins, ``mask_id`` or ``NOT_MEASURED``, of any integer type.
        genes
            (B, Q) positions of the query genes; all genes if None.

        Returns
        -------
        Tensor
            (B, Q, D).
        """
        return self.encode(self.embed_tokens(rna, promoter), genes)

    def last_full_layer(self) -> int:
        """Return the position of the last Full layer, or 0 if there is only one layer."""
        return max(0, len(self.layers) - 1 - len(self.layers) % 2)

    def run_to_last_full_layer(self, rna: Tensor, promoter: Tensor) -> Tensor:
        """Run the layers before the last Full layer: bins (B, G) each to tokens (B, G, D)."""
        tokens = self.embed_tokens(rna, promoter)
        for layer in self.layers[: self.last_full_layer()]:
            tokens = layer(tokens)
        return tokens

    def latents(self, rna: Tensor, promoter: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the latents of the last Full layer.

        Parameters
        ----------
        rna, promoter
            (B, G) bins.

        Returns
        -------
        latents : Tensor
            (B, L, D/H), keys and values of the layer.
        tokens : Tensor
            (B, G, D), normalised, the input of its queries.
        """
        layer = self.layers[self.last_full_layer()]
        tokens = layer.attention_norm(self.run_to_last_full_layer(rna, promoter))
        return layer.attention.latents(tokens), tokens

    def decode(self, representations: Tensor) -> tuple[Tensor, Tensor]:
        """Predict bins: representations (..., D) to RNA and promoter logits (..., bins + 1)."""
        return self.rna_decoder(representations), self.promoter_decoder(representations)
