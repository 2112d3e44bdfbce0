"""The architecture of the paper (``architecture: paper``): one token per gene of the genome.

A token has both RNA and promoter accessibility. Layers alternate between TF layers, whose keys and
values are computed from the tokens of the transcription factors, and Full layers, where they are
computed from all genes. In both, keys and values are projected along the gene axis to a few
latents (Linformer, Wang et al. 2020, arXiv:2006.04768). Values are bins of log1p of TPM, and of
counts per TSS and million for promoters (Yu et al., bioRxiv 10.64898/2026.02.28.708160, Methods).

Shapes below: B cells, G genes, T TFs (the first T genes of the vocabulary),
L latents, D width, H heads.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from scdyn.data.loader import NOT_MEASURED, expressed_genes, is_measured
from scdyn.model.architecture import ModelConfig
from scdyn.model.layers import Linear, Norm, Tokens, anchor, attend, average_attention


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
    rates
        (2, G) inverse sizes of the genes: 1 / length in kb for RNA, 1 / number of TSSs for
        promoters; None before they are loaded.
    """

    rates: Tensor
    mean: Tensor
    components: Tensor

    def __init__(self, config: ModelConfig, rates: np.ndarray | None = None) -> None:
        super().__init__()
        self.config = config
        self.compiled = False
        given = torch.ones(2, config.n_genes) if rates is None else torch.from_numpy(rates)
        self.register_buffer("rates", given.double())
        # The embedding's projection of the summed latents: their mean, and principal components.
        self.register_buffer("mean", torch.zeros(0))
        self.register_buffer("components", torch.zeros(0, 0))
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

    def anchor_latents(self, regulons: Tensor) -> None:
        """Initialise latents of the Full layers as regulons; see :func:`anchor`."""
        for layer in self.layers:
            if layer.attention.n_sources == self.config.n_genes:
                anchor(layer.attention.compress, regulons)

    def bin(self, rna: Tensor, promoter: Tensor) -> tuple[Tensor, Tensor]:
        """Bin counts: bin = ceil(log1p of the rate per million), at most ``n_bins``.

        Parameters
        ----------
        rna, promoter
            (B, G) counts; negative where a modality was not measured.

        Returns
        -------
        rna, promoter : Tensor of int32, (B, G)
            Bins, or ``not_measured_id``.
        """
        found = []
        for counts, rates in zip((rna, promoter), self.rates, strict=True):
            # In float64, so that the bins do not depend on the device.
            known = counts.clamp(min=0).double() * rates
            size = known.sum(1, keepdim=True)
            logs = (known * (1e6 / torch.where(size > 0, size, 1.0))).log1p_()
            bins = logs.float().ceil_().clamp_(max=self.config.n_bins).int()
            found.append(bins.masked_fill_(counts < 0, self.config.not_measured_id))
        return found[0], found[1]

    def embed_tokens(self, rna: Tensor, promoter: Tensor) -> Tensor:
        """Sum the embeddings of gene, RNA and promoter: bins (B, G) each to tokens (B, G, D)."""
        # All pairs of values are summed first, so that there is one lookup per token.
        pairs = self.rna_embedding.weight[:, None] + self.promoter_embedding.weight
        ids = rna * len(pairs) + promoter
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
            (B, G) int32 bins, ``mask_id`` or ``not_measured_id``.
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

    def make_values(self, rna: Tensor, promoter: Tensor) -> tuple[Tensor, Tensor]:
        """Embed values: counts (B, G) each to (B, G, D) each, between which a path is a line."""
        ids = self.bin(rna, promoter)
        return self.rna_embedding(ids[0]).detach(), self.promoter_embedding(ids[1]).detach()

    def describe_values(
        self, values: tuple[Tensor, Tensor], rna: Tensor, promoter: Tensor
    ) -> Tokens:
        """Describe cells of given values, pooled as a cell of given counts.

        Parameters
        ----------
        values
            Between those of :meth:`make_values`.
        rna, promoter
            (B, G) counts, which determine the genes to pool and the modalities.
        """
        tokens = values[0] + values[1] + self.gene_embedding.weight
        return self._subtract_zero_cell(self.encode(tokens), rna, promoter)

    def describe(self, rna: Tensor, promoter: Tensor) -> Tokens:
        """Compute what a head reads: all tokens, as differences from a cell without counts.

        The many silent genes are nearly the same in all cells and hide the few that differ, so
        that only expressed genes have a weight.

        Parameters
        ----------
        rna, promoter
            (B, G) counts; negative where a modality was not measured.
        """
        return self._subtract_zero_cell(self(*self.bin(rna, promoter)), rna, promoter)

    def _subtract_zero_cell(self, representations: Tensor, rna: Tensor, promoter: Tensor) -> Tokens:
        zero_cells = self.encode_zero_cells(is_measured(rna)[0])
        # Not by indexing, whose backward pass is not deterministic.
        measured = is_measured(promoter)[:, None, None]
        changes = representations - torch.where(measured, zero_cells[:1], zero_cells[1:])
        return Tokens(changes, None, expressed_genes(rna, promoter).float())

    def encode_zero_cells(self, has_rna: Tensor | None = None) -> Tensor:
        """Represent two cells without counts, of which the second has no promoters: (2, G, D).

        RNA is measured unless the boolean ``has_rna`` is false; it is not read on the host, which
        would wait for the device.
        Always both, so that compiled layers see one shape. Without dropout, because all cells of a
        batch would share its noise.
        """
        rna, promoter = self._make_zero_cells(has_rna)
        training = self.training
        self.eval()
        try:
            representations: Tensor = self(*self.bin(rna, promoter))
            return representations
        finally:
            self.train(training)

    def _make_zero_cells(self, has_rna: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rna, promoter = self.rates.new_zeros(2, 2, self.config.n_genes)
        promoter[1] = NOT_MEASURED
        return rna if has_rna is None else rna.masked_fill(~has_rna, NOT_MEASURED), promoter

    @property
    def embedding_width(self) -> int:
        """Numbers of a cell's embedding."""
        return self.components.shape[1]

    def sum_latents(self, rna: Tensor, promoter: Tensor) -> Tensor:
        """Sum the latents of the last Full layer over the expressed genes: (B, L * D/H).

        A latent is a trained weighted sum over genes; latents that were initialised as a regulon
        have its name. The sums are of the differences between the genes' representations in the
        cell and in a cell without counts, so that a cell without counts is at the origin. Silent
        genes are left out because their representations depend on sequencing depth: with them,
        cell types of a mouse cortex were separated far less.
        """
        layer = self.layers[self.last_full_layer()]

        def tokens_of(rna: Tensor, promoter: Tensor) -> Tensor:
            # In float32, because bfloat16 loses differences of less than 0.4%.
            bins = self.bin(rna, promoter)
            normal: Tensor = layer.attention_norm.normalise(self.run_to_last_full_layer(*bins))
            return normal

        zero_cells = tokens_of(*self._make_zero_cells())
        added = tokens_of(rna, promoter) - zero_cells[(~is_measured(promoter)).long()]
        added = added * expressed_genes(rna, promoter).unsqueeze(-1)
        latents: Tensor = layer.attention.latents(added).flatten(1)
        return latents

    def embed_cells(self, rna: Tensor, promoter: Tensor) -> Tensor:
        """Embed cells: the projected sums of the latents, (B, components)."""
        return (self.sum_latents(rna, promoter) - self.mean) @ self.components

    def attend_to_latents(self, rna: Tensor, promoter: Tensor) -> Tensor:
        """Average the attention to the latents over the expressed genes of each cell: (B, L)."""
        layer = self.layers[self.last_full_layer()]
        tokens = layer.attention_norm(self.run_to_last_full_layer(*self.bin(rna, promoter)))
        return average_attention(
            layer.attention.queries(tokens),
            layer.attention.latents(tokens),
            expressed_genes(rna, promoter),
        )

    def decode(self, representations: Tensor) -> tuple[Tensor, Tensor]:
        """Predict bins: representations (..., D) to RNA and promoter logits (..., bins + 1)."""
        return self.rna_decoder(representations), self.promoter_decoder(representations)
