"""Architecture of the model and its number of operations, without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from scdyn.errors import InputError

# Ratio of operations, backward to forward pass: for matrix products, and for fused attention, which
# recomputes the scores (five products instead of two).
BACKWARD, BACKWARD_OF_ATTENTION = 2.0, 2.5


@dataclass(frozen=True)
class Operations:
    """Numbers of operations by kind; a processor has another rate for each kind.

    Attributes
    ----------
    products
        Floating-point operations of products with weights, two per multiply-add.
    attention
        Floating-point operations of the two products of attention.
    elements
        Values that are read or written in between: by norms, activations and sums.
    """

    products: float
    attention: float
    elements: float

    def times(self, n: float) -> Operations:
        """Multiply all numbers by ``n``."""
        return Operations(n * self.products, n * self.attention, n * self.elements)


@dataclass(frozen=True)
class ModelConfig:
    """Hyperparameters of the architecture.

    Attributes
    ----------
    n_genes, n_tfs
        Genes of the vocabulary; the first ``n_tfs`` of them are the TFs.
    architecture
        ``expressed`` (:mod:`scdyn.model.transformer`) or ``paper`` (:mod:`scdyn.model.paper`).
    n_bins
        Of ``paper``: highest bin. Ids 1 to ``n_bins`` are bins of counts above zero, 0 is zero;
        ``mask_id`` and ``not_measured_id`` follow.
    width, n_layers, n_heads, ffn_width
        Token width, layers (TF and Full in turn, TF first), query heads, width of the feed-forward
        layer.
    n_latents
        Latents that keys and values are projected to; in a TF layer at most as many as TFs.
    dropout
        Dropout after attention and after the feed-forward layer.
    n_knots, n_pools, cell_width, n_components
        Of ``expressed``: vectors between which values are interpolated, pools of the tokens,
        numbers of a cell vector, and principal components, an even number.
    """

    n_genes: int
    n_tfs: int
    architecture: str = "expressed"
    n_bins: int = 14
    width: int = 96
    n_layers: int = 12
    n_heads: int = 12
    n_latents: int = 500
    ffn_width: int = 768
    dropout: float = 0.1
    n_knots: int = 16
    n_pools: int = 64
    cell_width: int = 64
    n_components: int = 100

    def __post_init__(self) -> None:
        if self.width % self.n_heads:
            raise InputError(
                "MODEL",
                f"model: width {self.width} is not a multiple of n_heads {self.n_heads}; "
                "choose width = n_heads x head width.",
            )
        if self.n_components % 2:
            raise InputError(
                "MODEL",
                f"model: n_components is {self.n_components}; it must be even, half of scaled and "
                "half of unscaled values.",
            )
        if not 0 < self.n_tfs <= self.n_genes:
            raise InputError(
                "MODEL",
                f"model: {self.n_tfs} TFs among {self.n_genes} genes; a TF layer needs at least "
                "one TF, so check the TF list against the gene annotation.",
            )

    @property
    def n_features(self) -> int:
        """Of ``expressed``: numbers of a cell vector and of the components."""
        return self.cell_width + self.n_components

    @property
    def mask_id(self) -> int:
        """Id of a masked value."""
        return self.n_bins + 1

    @property
    def not_measured_id(self) -> int:
        """Id of a value that was not measured."""
        return self.n_bins + 2

    @classmethod
    def full_size(cls) -> ModelConfig:
        """Return the paper's architecture: 22,000 genes, 1,500 TFs, about 75 M parameters."""
        return cls(n_genes=22_000, n_tfs=1_500, architecture="paper")

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> ModelConfig:
        """Build from a mapping.

        Raises
        ------
        InputError
            If a key is not an attribute.
        """
        unknown = sorted(set(content) - {field.name for field in fields(cls)})
        if unknown:
            raise InputError("MODEL", f"model config: unknown key '{unknown[0]}'.")
        return cls(**content)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain values."""
        return asdict(self)

    def count_operations(self, n_queries: int | None = None) -> Operations:
        """Count the operations of a forward pass per cell, including the predictions.

        Parameters
        ----------
        n_queries
            Of ``expressed``: number of expressed genes. Of ``paper``: number of genes to predict,
            for which the last layer is run. All genes if None.
        """
        n_queries = self.n_genes if n_queries is None else n_queries
        n_tokens = self.n_genes if self.architecture == "paper" else n_queries
        products = attention = elements = 0
        head_width = self.width // self.n_heads
        for i in range(self.n_layers):
            n_sources = self.n_genes if i % 2 else self.n_tfs
            n_latents = min(self.n_latents, n_sources)
            n_inputs = n_tokens
            if self.architecture == "paper":
                n_inputs = n_sources
                n_tokens = n_queries if i == self.n_layers - 1 else self.n_genes
            per_token = 2 * self.width**2 + 2 * self.width * self.ffn_width
            products += n_tokens * per_token + n_inputs * self.width * head_width
            products += n_sources * n_latents * head_width
            attention += 4 * n_tokens * n_latents * self.width
            elements += n_tokens * (8 * self.width + 2 * self.ffn_width)
        if self.architecture == "paper":
            products += 2 * n_queries * self.width * (self.n_bins + 1)
        else:
            n_values = 2 * self.n_knots + 5
            products += n_tokens * self.width * (n_values + self.n_pools)
            products += self.n_pools * self.width * self.cell_width
            products += 2 * self.cell_width * self.n_genes
            products += self._count_projection() + self.n_components * self.cell_width
            elements += n_tokens * (n_values + self.n_pools) + 2 * self.n_genes
        return Operations(2 * products, attention, elements)

    def _count_projection(self) -> int:
        """Count the multiply-adds of the projection to components, which is not trained."""
        return 2 * self.n_components * self.n_genes if self.architecture == "expressed" else 0

    def count_training_operations(self, n_queries: int | None = None) -> Operations:
        """Count the operations of forward and backward pass; see :meth:`count_operations`."""
        forward = self.count_operations(n_queries)
        return Operations(
            (1 + BACKWARD) * forward.products - BACKWARD * 2 * self._count_projection(),
            (1 + BACKWARD_OF_ATTENTION) * forward.attention,
            (1 + BACKWARD) * forward.elements,
        )
