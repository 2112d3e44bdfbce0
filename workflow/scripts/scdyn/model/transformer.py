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

import torch
from torch import Tensor, nn
from torch.nn import functional

from scdyn.model.architecture import ModelConfig


def attend(queries: Tensor, latents: Tensor) -> Tensor:
    """Attention of every head's queries to one shared head of keys, which are also the values.

    The one seam for attention. No matrix of scores is kept: torch's fused attention serves all
    heads with the same keys.

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
    # Queries of all heads in H equal parts, whichever heads they are of: the parts run in parallel.
    parts = queries.reshape(n_cells, n_heads, n_queries, head_width)
    shared = latents.unsqueeze(1).expand(-1, n_heads, -1, -1)
    return functional.scaled_dot_product_attention(parts, shared, shared).reshape(queries.shape)


class Linear(nn.Linear):
    """A linear layer that works in its input's type, whatever the type of its weights."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (..., n) to (..., m)."""
        bias = None if self.bias is None else self.bias.to(tokens.dtype)
        return functional.linear(tokens, self.weight.to(tokens.dtype), bias)


def gather_genes(tokens: Tensor, genes: Tensor | None) -> Tensor:
    """Pick each cell's genes (B, Q) out of tokens (B, G, D), all if None."""
    if genes is None:
        return tokens
    return tokens.gather(1, genes.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


class Norm(nn.LayerNorm):
    """Layer norm whose output has the type that a layer's products and attention are done in.

    The one place where that type is chosen. Weights, statistics and the sum over the layers
    are float32 in each.

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
        """Normalise tokens (B, G, D) in their own type."""
        return super().forward(tokens)


class LatentAttention(nn.Module):
    """Attention of genes to latents made of the first ``n_sources`` genes."""

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
        # Narrowing to the head's width first makes the product along the genes H times cheaper.
        narrow = self.key_value(tokens[:, : self.n_sources])
        # Cells beside each other: one product, whose gradient has the weight's own layout.
        columns = narrow.transpose(0, 1).flatten(1)
        latents = (self.compress.weight.to(columns.dtype) @ columns).unflatten(1, (len(tokens), -1))
        return latents.transpose(0, 1).contiguous()

    def forward(self, tokens: Tensor, genes: Tensor | None = None) -> Tensor:
        """Map normalised tokens (B, G, D) to the update (B, Q, D) of the genes (B, Q)."""
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
        """Compile all layers but the last, which is asked for other numbers of genes each time.

        One by one, as alike layers share what is compiled: for any number of cells but one, a TF
        and a Full layer, in training and in evaluation; with adapters the first layer, too,
        whose input needs no gradient.
        """
        # Above torch's 8, beyond which a layer would run uncompiled.
        torch._dynamo.config.recompile_limit = max(16, torch._dynamo.config.recompile_limit)
        self.compiled = True
        for layer in self.layers[:-1]:
            layer.compile()

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
        # What was not measured adds nothing, until cells without it teach otherwise.
        for embedding in (self.rna_embedding, self.promoter_embedding):
            nn.init.zeros_(embedding.weight[self.config.not_measured_id])

    @torch.no_grad()
    def anchor_latents(self, regulons: Tensor) -> None:
        """Start the first latents of every Full layer from regulons.

        Ours, not the paper's: a latent that starts as one regulon (its TF and targets by
        weight, relative to all genes) can be named. Remaining latents stay random.

        Parameters
        ----------
        regulons
            (R, G) non-negative weights, strongest regulons first; rows beyond
            the number of latents are left out.

        See Also
        --------
        latents : The pools that these weights begin as.
        """
        for layer in self.layers:
            weight = layer.attention.compress.weight
            if layer.attention.n_sources == self.config.n_genes:
                rows = regulons[: len(weight)].to(weight)
                # Against the mean of all genes: sums of positive weights would all be alike.
                rows = rows - rows.mean(1, keepdim=True)
                weight[: len(rows)] = functional.normalize(rows, dim=1)

    def value_ids(self, bins: Tensor) -> Tensor:
        """Rows of the values' embeddings: those of bins, ``mask_id`` or ``not_measured_id``."""
        return bins.int().clamp(max=self.config.not_measured_id)

    def embed_tokens(self, rna: Tensor, promoter: Tensor) -> Tensor:
        """Sum the gene's and the two values' embeddings: ids (B, G) each to tokens (B, G, D)."""
        # Every pair of values is summed once, so that a token is looked up once.
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
            (B, Q) positions of each cell's genes that are asked for; the last layer is run
            for these alone. All if None.

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
        """Return the genes' representations.

        Parameters
        ----------
        rna, promoter
            (B, G) bins, ``mask_id`` or ``NOT_MEASURED``; any integer type that holds it.
        genes
            (B, Q) positions of the genes that are asked for; all if None.

        Returns
        -------
        Tensor
            (B, Q, D).
        """
        return self.encode(self.embed_tokens(rna, promoter), genes)

    def last_full_layer(self) -> int:
        """Position of the last Full layer; of the only layer if there is but one."""
        return max(0, len(self.layers) - 1 - len(self.layers) % 2)

    def run_to_last_full_layer(self, rna: Tensor, promoter: Tensor) -> Tensor:
        """Run the layers before the last Full one: token ids (B, G) each to tokens (B, G, D)."""
        tokens = self.embed_tokens(rna, promoter)
        for layer in self.layers[: self.last_full_layer()]:
            tokens = layer(tokens)
        return tokens

    def latents(self, rna: Tensor, promoter: Tensor) -> tuple[Tensor, Tensor]:
        """Pool the genes' representations as the last Full layer does.

        Parameters
        ----------
        rna, promoter
            (B, G) token ids.

        Returns
        -------
        latents : Tensor
            (B, L, D/H), which this layer attends to.
        tokens : Tensor
            (B, G, D), normalised, of which it makes its queries.
        """
        layer = self.layers[self.last_full_layer()]
        tokens = layer.attention_norm(self.run_to_last_full_layer(rna, promoter))
        return layer.attention.latents(tokens), tokens

    def decode(self, representations: Tensor) -> tuple[Tensor, Tensor]:
        """Predict bins: representations (..., D) to RNA and promoter logits (..., bins + 1)."""
        return self.rna_decoder(representations), self.promoter_decoder(representations)
