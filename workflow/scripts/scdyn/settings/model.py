"""Settings of a pretrained model: its size, what it is pretrained on, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from scdyn.settings.base import (
    HARDWARE,
    Count,
    Name,
    Positive,
    Seed,
    Selection,
    Settings,
    Share,
    dump_given,
    refuse,
)

# What a size fills in, where the key itself is not given: architecture, pretraining, and the
# training of the tasks that fine-tune the model. "full" is the default.
SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "small": {
        "model": {
            "width": 32,
            "n_layers": 4,
            "n_heads": 2,
            "n_latents": 64,
            "ffn_width": 64,
            "dropout": 0.0,
        },
        "pretraining": {"epochs": 15, "batch_size": 16, "learning_rate": 0.001},
        "fine_tuning": {"epochs": 5, "batch_size": 16, "learning_rate": 0.001},
    },
    "medium": {
        "model": {
            "width": 64,
            "n_layers": 6,
            "n_heads": 4,
            "n_latents": 256,
            "ffn_width": 256,
            "dropout": 0.1,
        },
        "pretraining": {"epochs": 10, "batch_size": 32, "learning_rate": 0.0005},
        "fine_tuning": {"epochs": 5, "batch_size": 16, "learning_rate": 0.001},
    },
    "full": {
        "model": {
            "width": 96,
            "n_layers": 12,
            "n_heads": 12,
            "n_latents": 500,
            "ffn_width": 768,
            "dropout": 0.1,
        },
        "pretraining": {"epochs": 10, "batch_size": 64, "learning_rate": 0.0001},
        "fine_tuning": {"epochs": 5, "batch_size": 32, "learning_rate": 0.0005},
    },
}
FULL = SIZES["full"]
BY_SIZE = Field(json_schema_extra={"by": "size"})


class TrainingSettings(Settings):
    """How parameters are fitted. By itself it has the defaults of pretraining at full size."""

    epochs: Annotated[Count, BY_SIZE] = FULL["pretraining"]["epochs"]
    """Passes over the training cells. For a few hundred cells more, for many fewer."""
    batch_size: Annotated[Count, BY_SIZE] = FULL["pretraining"]["batch_size"]
    """Cells a step."""
    learning_rate: Annotated[Positive, BY_SIZE] = FULL["pretraining"]["learning_rate"]
    """Highest rate of AdamW, reached after warm-up."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of the matrices."""
    cycles: Count = 1
    """How often a cosine takes the rate to zero; 1 is no restart."""
    micro_batch: Annotated[Count | None, HARDWARE] = None
    """Most cells on a device at once; a step adds up gradients over parts. null - all."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of matrix products. auto - bfloat16 on a GPU, float32 on the CPU."""
    compiled: Annotated[Literal["auto", True, False], HARDWARE] = "auto"
    """Compile the layers by torch.compile. auto - on a GPU."""


def fill_in_training(content: Any, values: Mapping[str, Any], training: Mapping[str, Any]) -> Any:
    """Add values, and those of the block ``training``, below what a block's content says itself."""
    if not isinstance(content, Mapping):
        return content
    own = dump_given(content.get("training", {}))
    own = {**training, **own} if isinstance(own, Mapping) else own
    return {**values, **content, "training": own}


class PretrainingSettings(Settings):
    """A model's architecture and how it is pretrained."""

    size: Annotated[Literal["small", "medium", "full"], Field(exclude=True)] = "full"
    """Architecture and training at once, of this model and of the tasks that fine-tune it (see
    sizes). small - runs on a laptop; medium; full - the paper's, for a GPU. Keys that are given win
    over it."""
    seed: Seed = 1
    """Seed of the weights, the masks and the order of the cells."""
    mask_share: Share = 0.15
    """Share of a cell's non-zero genes that is hidden."""
    promoter_dropout: Share = 0.0
    """Share of the cells, drawn anew each time, whose promoters are read as not measured, so that
    the model can also read cells of RNA alone."""
    validation_share: Share = 0.1
    """Share of the cells the masked loss is measured on; they are not learned from."""
    projection_init: Literal["regulon", "random"] = "regulon"
    """Start of the Full layers' gene-to-latent projection."""
    gpus: Annotated[Count, HARDWARE] = 1
    """GPUs of a node that train together, where there are as many."""
    nodes: Annotated[Count, HARDWARE] = 1
    """Nodes of a cluster that train together, each with that many GPUs; more than 1 needs Slurm."""
    width: Annotated[Count, BY_SIZE] = FULL["model"]["width"]
    """Width of a token."""
    n_layers: Annotated[Count, BY_SIZE] = FULL["model"]["n_layers"]
    """Layers, TF and Full in turn."""
    n_heads: Annotated[Count, BY_SIZE] = FULL["model"]["n_heads"]
    """Query heads."""
    n_latents: Annotated[Count, BY_SIZE] = FULL["model"]["n_latents"]
    """Latents that keys and values are projected to."""
    ffn_width: Annotated[Count, BY_SIZE] = FULL["model"]["ffn_width"]
    """Width of the feed-forward layers."""
    dropout: Annotated[Share, BY_SIZE] = FULL["model"]["dropout"]
    """Dropout of the encoder while it learns."""
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    """How it is pretrained (see training)."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_size(cls, content: Any) -> Any:
        size = content.get("size", "full") if isinstance(content, Mapping) else None
        if not isinstance(size, str) or size not in SIZES:
            return content
        return fill_in_training(content, SIZES[size]["model"], SIZES[size]["pretraining"])

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.width % self.n_heads:
            raise refuse(
                "",
                "width",
                f" is {self.width}, which is no multiple of its {self.n_heads} n_heads; give both, "
                "or a size.",
            )
        return self

    def architecture(self) -> dict[str, int | float]:
        """Return the architecture's numbers, by name."""
        return {name: getattr(self, name) for name in FULL["model"]}


class ModelSettings(PretrainingSettings):
    """A pretrained model."""

    corpus: Name
    """Corpus that is learned from."""
    cells: Selection = {}
    """Cells to learn from; all of the corpus if not given."""
