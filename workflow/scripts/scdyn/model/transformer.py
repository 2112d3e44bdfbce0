"""The scDynOmics transformer: one token per expressed gene of a cell.

A gene is expressed if it has counts in RNA or at its promoter. Its token is the sum of the gene's
embedding, of both values (log-normalised counts, interpolated between learned vectors), and of the
cell's sequencing depth. Layers alternate between TF layers, whose keys and values are computed from
the tokens of the transcription factors, and Full layers, where they are computed from all tokens.
In both they are projected along the gene axis to a few latents (Linformer, Wang et al. 2020,
arXiv:2006.04768), as in Yu et al., bioRxiv 10.64898/2026.02.28.708160, whose own architecture is
:mod:`scdyn.model.paper`.

The cell vector is computed from pooled tokens and predicts the counts of all genes, given the
cell's depth, so that it need not hold the depth. Heads read it beside principal components and
marker genes.

Shapes below: B cells, G genes, T TFs (the first T genes of the vocabulary), Q tokens (the most of
a cell of the batch), L latents, D width, H heads, P pools, Z numbers of a cell vector, C principal
components.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from scdyn.model.architecture import ModelConfig
from scdyn.model.layers import (
    CellFeatures,
    Linear,
    Norm,
    Pool,
    Tokens,
    anchor,
    attend,
    average_attention,
)

# Bound of scaled values, as in scanpy's ``pp.scale(max_value=10)``.
CLIPPED = 10.0
# Larger values are embedded as this one, log1p of a thousand counts in a cell of median depth.
HIGHEST = 7.0
# Cells that are computed at once, of a batch that is sorted by the number of tokens.
AT_ONCE, AT_ONCE_ON_GPU = 16, 128
# Logarithms of sequencing depths are divided by this, to be near one.
SCALE_OF_DEPTH = 8.0


def list_expressed(expressed: Tensor) -> tuple[Tensor, Tensor]:
    """List the expressed genes of each cell.

    Parameters
    ----------
    expressed
        (B, G) boolean.

    Returns
    -------
    genes : Tensor, (B, Q)
        Ascending positions, then zeros.
    is_token : Tensor, (B, Q)
        Boolean: which of ``genes`` are expressed genes.
    """
    n_tokens = expressed.sum(1)
    cell, gene = expressed.nonzero(as_tuple=True)
    place = torch.arange(len(gene), device=gene.device) - (n_tokens.cumsum(0) - n_tokens)[cell]
    # One place at least, also if there are no cells or none has counts.
    n_places = max(1, int(n_tokens.max())) if len(n_tokens) else 1
    is_token = torch.arange(n_places, device=gene.device) < n_tokens[:, None]
    genes = gene.new_zeros(is_token.shape)
    genes[cell, place] = gene
    return genes, is_token


def log_normalise(counts: Tensor, total: Tensor, depth: Tensor) -> Tensor:
    """Scale counts (B, Q) to a common depth and take the logarithm of one plus them.

    Parameters
    ----------
    counts
        Not negative.
    total
        (B,) counts of all genes of the cell.
    depth
        One number.
    """
    return torch.log1p(counts * (depth / total.clamp(min=1))[:, None])


class Values(nn.Module):
    """Embedding of values: linear interpolation between learned vectors (soft bins)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_knots = config.n_knots
        # Both values, then: hidden, RNA and promoters not measured, and both depths.
        self.embedding = nn.Linear(2 * config.n_knots + 5, config.width, bias=False)

    def interpolate(self, values: Tensor) -> Tensor:
        """Compute the weights of the two nearest knots: (B, Q) to (B, Q, knots)."""
        knots = torch.arange(self.n_knots, device=values.device, dtype=values.dtype)
        place = values.clamp(max=HIGHEST) * ((self.n_knots - 1) / HIGHEST)
        return (1 - (place.unsqueeze(-1) - knots).abs()).clamp(min=0)

    def forward(
        self, logs: list[Tensor], totals: list[Tensor], measured: list[Tensor], hidden: Tensor
    ) -> Tensor:
        """Embed values.

        Parameters
        ----------
        logs
            (B, Q) log-normalised counts of RNA and of promoters.
        totals, measured
            (B,) counts of each modality, and whether it was measured.
        hidden
            (B, Q) boolean: tokens whose values are hidden.

        Returns
        -------
        Tensor
            (B, Q, D).
        """
        shape = hidden.shape
        parts = [
            self.interpolate(log) * (known[:, None] & ~hidden).unsqueeze(-1)
            for log, known in zip(logs, measured, strict=True)
        ]
        flags = [hidden, *(~known[:, None].expand(shape) for known in measured)]
        depths = [torch.log1p(total)[:, None].expand(shape) / SCALE_OF_DEPTH for total in totals]
        rest = torch.stack([*(flag.to(logs[0].dtype) for flag in flags), *depths], -1)
        embedded: Tensor = self.embedding(torch.cat([*parts, rest], -1))
        return embedded


class LatentAttention(nn.Module):
    """Attention of tokens to latents, projections of the tokens of the first ``n_sources`` genes.

    A gene that is not expressed adds nothing to the latents.
    """

    def __init__(self, config: ModelConfig, n_sources: int) -> None:
        super().__init__()
        self.n_sources = n_sources
        self.n_heads = config.n_heads
        head_width = config.width // config.n_heads
        self.query = Linear(config.width, config.width, bias=False)
        self.compress = nn.Linear(n_sources, min(config.n_latents, n_sources), bias=False)
        self.key_value = Linear(config.width, head_width, bias=False)
        # The number of tokens differs among cells.
        self.latent_norm = nn.LayerNorm(head_width, elementwise_affine=False)
        self.output = Linear(config.width, config.width)

    def latents(self, tokens: Tokens) -> Tensor:
        """Project normalised tokens to latents (B, L, D/H)."""
        narrow = self.key_value(tokens.values) * tokens.weight.unsqueeze(-1).to(tokens.values.dtype)
        n_cells, _, width = narrow.shape
        # By gene; other genes than sources, and places without token, go to a last row.
        assert tokens.genes is not None
        is_source = (tokens.genes < self.n_sources) & (tokens.weight > 0)
        genes = torch.where(is_source, tokens.genes, self.n_sources)
        cells = torch.arange(n_cells, device=genes.device)[:, None]
        dense = narrow.new_zeros(self.n_sources + 1, n_cells, width)
        dense = dense.index_put((genes, cells), narrow)
        # One product for all cells.
        columns = dense[: self.n_sources].flatten(1)
        latents = (self.compress.weight.to(columns.dtype) @ columns).unflatten(1, (n_cells, width))
        # Not in bfloat16.
        full = torch.promote_types(latents.dtype, torch.float32)
        normal: Tensor = self.latent_norm(latents.transpose(0, 1).to(full))
        return normal.to(columns.dtype)

    def queries(self, tokens: Tokens) -> Tensor:
        """Project normalised tokens to queries (B, Q, H, D/H)."""
        return self.query(tokens.values).unflatten(-1, (self.n_heads, -1))

    def forward(self, tokens: Tokens) -> Tensor:
        """Map normalised tokens to their updates (B, Q, D)."""
        attended = attend(self.queries(tokens), self.latents(tokens))
        update: Tensor = self.output(attended.flatten(-2))
        return update


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

    def forward(self, tokens: Tokens) -> Tokens:
        """Map tokens to tokens."""
        values = tokens.values
        normal = tokens._replace(values=self.attention_norm(values))
        values = values + self.dropout(self.attention(normal))
        hidden = functional.gelu(self.ffn_in(self.ffn_norm(values)))
        return tokens._replace(values=values + self.dropout(self.ffn_out(hidden)))


class Bottleneck(nn.Module):
    """The cell vector, and the profile of both modalities that it predicts.

    The vector is the sum of a projection of pooled tokens and of a projection of principal
    components of the values. It starts as the first components; these are not trained.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        n_pooled = config.n_pools * config.width
        self.pool = Pool(config.n_genes, config.n_pools)
        self.norm = nn.LayerNorm(n_pooled)
        self.narrow = nn.Linear(n_pooled, config.cell_width)
        self.linear = nn.Linear(config.n_components, config.cell_width)
        # Mean and standard deviation of the values, and weights of the components: a half of scaled
        # and clipped values, the other half of unscaled ones.
        self.centre: Tensor
        self.deviation: Tensor
        self.components: Tensor
        self.register_buffer("centre", torch.zeros(2 * config.n_genes))
        self.register_buffer("deviation", torch.ones(2 * config.n_genes))
        self.register_buffer("components", torch.zeros(config.n_components, 2 * config.n_genes))
        self.cell_norm = nn.LayerNorm(config.cell_width, elementwise_affine=False)
        self.rna = nn.Linear(config.cell_width, config.n_genes)
        self.promoter = nn.Linear(config.cell_width, config.n_genes)
        # In pretraining alone: of each batch, what is added to the logs of RNA, then of promoters.
        self.batch_embedding: nn.Embedding | None = None

    def project(self, logs: Tensor, known: Tensor) -> Tensor:
        """Compute the components of cells (B, C).

        Parameters
        ----------
        logs, known
            (B, 2 G) log-normalised counts of RNA, then of promoters, and which of them are read.
        """
        centred = (logs - self.centre) * known
        scaled = (centred / self.deviation).clamp(-CLIPPED, CLIPPED)
        of_scaled, of_unscaled = self.components.chunk(2)
        parts = functional.linear(scaled, of_scaled), functional.linear(centred, of_unscaled)
        return torch.cat(parts, dim=1)

    def forward(self, tokens: Tokens, components: Tensor) -> Tensor:
        """Compute the cell vectors (B, Z), each of mean 0 and variance 1.

        Parameters
        ----------
        tokens
            Of the last layer.
        components
            (B, C) of :meth:`project`.
        """
        cells = self.narrow(self.norm(self.pool(tokens))) + self.linear(components)
        normal: Tensor = self.cell_norm(cells)
        return normal

    def decode(self, cells: Tensor, batches: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Predict the log of each gene's share of the counts: (B, Z) to (B, G) per modality.

        Parameters
        ----------
        cells
            (B, Z) cell vectors.
        batches
            (B,) number of each cell's batch, between :meth:`add_batches` and :meth:`merge_batches`.
        """
        rna, promoter = self.rna(cells), self.promoter(cells)
        if batches is not None:
            if self.batch_embedding is None:
                raise ValueError("the decoder has no batches")
            shift_of_rna, shift_of_promoter = self.batch_embedding(batches).chunk(2, dim=1)
            rna, promoter = rna + shift_of_rna, promoter + shift_of_promoter
        return rna.log_softmax(1), promoter.log_softmax(1)

    def add_batches(self, n_batches: int) -> None:
        """Let the decoder learn a shift of all genes for each batch, zero at first."""
        zeros = self.rna.weight.new_zeros(n_batches, 2 * len(self.rna.bias))
        self.batch_embedding = nn.Embedding.from_pretrained(zeros, freeze=False)

    @torch.no_grad()
    def merge_batches(self, n_counts: Tensor) -> None:
        """Add the mean shift of the batches to the decoder, which forgets the single ones.

        Parameters
        ----------
        n_counts
            (2, batches) counts of RNA and of promoters of each batch's training cells, by which
            the mean is weighted.
        """
        if self.batch_embedding is None:
            return
        weights = n_counts / n_counts.sum(1, keepdim=True).clamp(min=1)
        shifts = self.batch_embedding.weight.unflatten(1, (2, -1))
        for i, decoder in enumerate((self.rna, self.promoter)):
            decoder.bias += weights[i].to(shifts) @ shifts[:, i]
        self.batch_embedding = None

    @torch.no_grad()
    def start_from(self, mean_logs: Tensor) -> None:
        """Predict the mean profile at first: (2, G) logs of the genes' shares of the counts."""
        for decoder, logs in zip((self.rna, self.promoter), mean_logs, strict=True):
            nn.init.zeros_(decoder.weight)
            decoder.bias.copy_(logs)

    @torch.no_grad()
    def start_from_components(self, centre: Tensor, deviation: Tensor, components: Tensor) -> None:
        """Start with the first principal components of each kind as the cell vector.

        Parameters
        ----------
        centre, deviation
            (2 G,) mean and standard deviation of the log-normalised counts.
        components
            (2, components, 2 G) weights of scaled and of unscaled values, at most as many as there
            is place for; the others are zero.
        """
        self.centre.copy_(centre)
        self.deviation.copy_(deviation)
        nn.init.zeros_(self.components)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.linear.weight)
        of_kind = self.components.unflatten(0, (len(components), -1))
        of_kind[:, : components.shape[1]] = components
        start = self.linear.weight.T.unflatten(0, (len(components), -1))
        n_first = min(start.shape[1], start.shape[2] // len(components))
        for i in range(len(components)):
            start[i, :n_first, i * n_first : (i + 1) * n_first] = torch.eye(n_first)


class ScDynOmics(nn.Module):
    """The encoder, the bottleneck, and the decoders of hidden values.

    Parameters
    ----------
    config
        The architecture.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        # To which the counts of RNA and of promoters are scaled: medians of the training cells.
        self.depths: Tensor
        self.register_buffer("depths", torch.full((2,), 1000.0))
        self.gene_embedding = nn.Embedding(config.n_genes, config.width)
        self.values = Values(config)
        self.layers = nn.ModuleList(
            Layer(config, config.n_tfs if i % 2 == 0 else config.n_genes)
            for i in range(config.n_layers)
        )
        self.final_norm = nn.LayerNorm(config.width)
        self.bottleneck = Bottleneck(config)
        self.rna_decoder = nn.Linear(config.width, config.n_knots)
        self.promoter_decoder = nn.Linear(config.width, config.n_knots)
        self.initialise()

    def initialise(self) -> None:
        """Initialise all parameters with torch's default generator, without components."""
        nn.init.zeros_(self.bottleneck.components)
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                nn.init.constant_(parameter, 1.0 if name.endswith("norm.weight") else 0.0)
            elif name.startswith("bottleneck.pool"):
                nn.init.normal_(parameter, std=self.config.n_genes**-0.5)
            elif "embedding" in name:
                nn.init.normal_(parameter, std=self.config.width**-0.5)
            elif name.endswith(("output.weight", "ffn_out.weight")):
                # Scaled as in GPT-2, so that the variance of the sum over two residual branches per
                # layer does not grow with depth.
                scale = (2 * self.config.n_layers) ** -0.5
                nn.init.normal_(parameter, std=scale * parameter.shape[1] ** -0.5)
            else:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)

    def embed_tokens(self, rna: Tensor, promoter: Tensor, hidden: Tensor | None = None) -> Tokens:
        """Make the tokens of cells.

        Parameters
        ----------
        rna, promoter
            (B, G) counts; negative in a cell in which the modality was not measured. Real numbers
            are possible: a gene with less than one count in all has a token of that weight.
        hidden
            (B, G) boolean: genes whose values are hidden; they have a token, expressed or not.
        """
        measured = [counts[:, 0] >= 0 for counts in (rna, promoter)]
        both = [counts.clamp(min=0) for counts in (rna, promoter)]
        expressed = (both[0] > 0) | (both[1] > 0)
        if hidden is not None:
            expressed = expressed | hidden
        genes, is_token = list_expressed(expressed)
        kind = self.gene_embedding.weight.dtype
        counts = [part.gather(1, genes).to(kind) for part in both]
        weight = (counts[0] + counts[1]).clamp(max=1) * is_token
        if hidden is None:
            hidden = torch.zeros_like(is_token)
        else:
            hidden = hidden.gather(1, genes) & is_token
            weight = weight.masked_fill(hidden, 1)
        totals = [part.sum(1).to(kind) for part in both]
        logs = [
            log_normalise(*of_modality)
            for of_modality in zip(counts, totals, self.depths, strict=True)
        ]
        values = self.values(logs, totals, measured, hidden) + self.gene_embedding(genes)
        return Tokens(values, genes, weight)

    def forward(self, rna: Tensor, promoter: Tensor, hidden: Tensor | None = None) -> Tokens:
        """Compute the representations of the tokens; see :meth:`embed_tokens`."""
        tokens = self.embed_tokens(rna, promoter, hidden)
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens._replace(values=self.final_norm(tokens.values))

    def normalise(self, rna: Tensor, promoter: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise the counts of all genes.

        Parameters
        ----------
        rna, promoter
            See :meth:`embed_tokens`.

        Returns
        -------
        logs, known : Tensor, (B, 2 G)
            Log-normalised counts of RNA, then of promoters, and which were measured.
        """
        logs = []
        for counts, depth in zip((rna, promoter), self.depths, strict=True):
            measured = counts.clamp(min=0).to(depth.dtype)
            logs.append(log_normalise(measured, measured.sum(1), depth))
        return torch.cat(logs, 1), torch.cat([rna, promoter], 1) >= 0

    def represent(
        self, rna: Tensor, promoter: Tensor, hidden: Tensor | None = None
    ) -> tuple[Tokens, Tensor, Tensor]:
        """Represent cells and their tokens.

        Parameters
        ----------
        rna, promoter, hidden
            See :meth:`embed_tokens`.

        Returns
        -------
        tokens : Tokens
            Of the expressed and the hidden genes.
        cells : Tensor, (B, Z)
            The cell vectors.
        components : Tensor, (B, C)
            The principal components.
        """
        tokens = self(rna, promoter, hidden)
        logs, known = self.normalise(rna, promoter)
        if hidden is not None:
            known = known & ~torch.cat([hidden, hidden], 1)
        components = self.bottleneck.project(logs, known)
        return tokens, self.bottleneck(tokens, components), components

    def compute_vectors(self, rna: Tensor, promoter: Tensor, components: Tensor) -> Tensor:
        """Compute cell vectors (B, Z) as :meth:`represent` does, of a few cells at once.

        Cells that are computed at once take as long as the one with the most tokens, so that those
        of similar numbers of tokens are.
        """
        n_tokens = ((rna > 0) | (promoter > 0)).sum(1)
        order = n_tokens.argsort(stable=True)
        parts = [
            self.bottleneck(self(rna[cells], promoter[cells]), components[cells])
            for cells in order.split(AT_ONCE_ON_GPU if rna.is_cuda else AT_ONCE)
        ]
        return torch.cat(parts)[order.argsort()]

    def describe(self, rna: Tensor, promoter: Tensor) -> CellFeatures:
        """Compute what a head reads."""
        logs, measured = self.normalise(rna, promoter)
        components = self.bottleneck.project(logs, measured)
        cells = self.compute_vectors(rna, promoter, components)
        return CellFeatures(torch.cat([cells, components], 1), logs, measured)

    def make_values(self, rna: Tensor, promoter: Tensor) -> tuple[Tensor, Tensor]:
        """Convert counts (B, G) each to values (B, G, 1) each, between which a path is a line."""
        return rna.float().unsqueeze(-1), promoter.float().unsqueeze(-1)

    def describe_values(
        self, values: tuple[Tensor, Tensor], rna: Tensor, promoter: Tensor
    ) -> CellFeatures:
        """Describe cells of given values, between those of :meth:`make_values`.

        The counts ``rna`` and ``promoter`` of the other end are not needed here.
        """
        return self.describe(values[0].squeeze(-1), values[1].squeeze(-1))

    @property
    def embedding_width(self) -> int:
        """Numbers of a cell's embedding."""
        return self.config.cell_width

    def embed_cells(self, rna: Tensor, promoter: Tensor) -> Tensor:
        """Embed cells: the cell vectors, (B, Z)."""
        components = self.bottleneck.project(*self.normalise(rna, promoter))
        return self.compute_vectors(rna, promoter, components)

    def last_full_layer(self) -> int:
        """Return the position of the last Full layer, or 0 if there is only one layer."""
        return max(0, len(self.layers) - 1 - len(self.layers) % 2)

    def attend_to_latents(self, rna: Tensor, promoter: Tensor) -> Tensor:
        """Average the attention to the latents over the tokens of each cell: (B, L)."""
        tokens = self.embed_tokens(rna, promoter)
        last = self.last_full_layer()
        for layer in self.layers[:last]:
            tokens = layer(tokens)
        layer = self.layers[last]
        normal = tokens._replace(values=layer.attention_norm(tokens.values))
        queries, latents = layer.attention.queries(normal), layer.attention.latents(normal)
        return average_attention(queries, latents, tokens.weight > 0)

    def anchor_latents(self, regulons: Tensor) -> None:
        """Initialise latents of the Full layers as regulons; see :func:`anchor`."""
        for layer in self.layers:
            if layer.attention.n_sources == self.config.n_genes:
                anchor(layer.attention.compress, regulons)

    def decode(self, representations: Tensor) -> tuple[Tensor, Tensor]:
        """Predict hidden values: representations (..., D) to logits (..., knots) per modality."""
        return self.rna_decoder(representations), self.promoter_decoder(representations)
