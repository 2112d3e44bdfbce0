"""Settings of a pretrained model: architecture, training cells and training."""

from __future__ import annotations

import math
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
    Text,
    dump_given,
    refuse,
)

# Values of a size for keys that are not given: architecture, pretraining, and fine-tuning of the
# tasks that use the model. "full" is the default.
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
        "pretraining": {"epochs": 5, "batch_size": 64, "learning_rate": 0.002},
        "fine_tuning": {"epochs": 8, "batch_size": 32, "learning_rate": 0.001},
    },
    "medium": {
        "model": {
            "width": 64,
            "n_layers": 6,
            "n_heads": 4,
            "n_latents": 256,
            "ffn_width": 256,
            "dropout": 0.0,
        },
        "pretraining": {"epochs": 5, "batch_size": 64, "learning_rate": 0.001},
        "fine_tuning": {"epochs": 8, "batch_size": 32, "learning_rate": 0.001},
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
# Values of a task's keys that are not given, if its model is the paper's, which is fine-tuned on
# all counts.
OF_PAPER: dict[str, Any] = {
    "adapter": "lora",
    "penalty": 0.0,
    "thinning": 1.0,
    "encoder_rate": 1.0,
}
BY_SIZE = Field(json_schema_extra={"by": "size"})


class TrainingSettings(Settings):
    """Training. The defaults are those of pretraining at full size."""

    epochs: Annotated[Count, BY_SIZE] = FULL["pretraining"]["epochs"]
    """Passes over the training cells. Use more for a few hundred cells, fewer for many cells."""
    batch_size: Annotated[Count, BY_SIZE] = FULL["pretraining"]["batch_size"]
    """Cells per step."""
    learning_rate: Annotated[Positive, BY_SIZE] = FULL["pretraining"]["learning_rate"]
    """Highest learning rate of AdamW, reached after warm-up."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of the weight matrices."""
    cycles: Count = 1
    """Number of cosine cycles of the learning rate; 1 - no restart."""
    micro_batch: Annotated[Count | None, HARDWARE] = None
    """Most cells on a device at once; gradients of a step are summed over micro-batches. Cells that
    consistency compares stay together, 16. null - on a GPU all cells of a step, on a CPU 16."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of matrix products. auto - bfloat16 on a GPU, float32 on the CPU."""
    compiled: Annotated[Literal["auto", True, False], HARDWARE] = "auto"
    """Compile the layers by torch.compile. auto - only on a GPU. For paper only."""


def fill_in_training(content: Any, values: Mapping[str, Any], training: Mapping[str, Any]) -> Any:
    """Fill in keys of a block, and of its block ``training``, that are not given."""
    if not isinstance(content, Mapping):
        return content
    own = dump_given(content.get("training", {}))
    own = {**training, **own} if isinstance(own, Mapping) else own
    return {**values, **content, "training": own}


# Cells of a group, which the consistency objective compares with each other.
COMPARED = 16
# Keys without effect if the architecture is paper, and if it is not.
NOT_FOR_PAPER = (
    "thinning", "whole_cell", "gene_power", "cell_noise", "consistency", "batch_key",
    "hidden_values", "hidden_zeros", "n_pools", "cell_width",
)  # fmt: skip
FOR_PAPER_ONLY = ("n_bins",)

# Lowest and highest share of counts.
Thinning = Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=2, max_length=2)]


class PretrainingSettings(Settings):
    """Architecture and pretraining of a model."""

    size: Annotated[Literal["small", "medium", "full"], Field(exclude=True)] = "full"
    """Preset of architecture and training, for this model and the tasks that fine-tune it (see
    sizes). small - runs on a laptop; medium; full - the paper's, needs a GPU. Keys that are given
    have precedence over the preset."""
    seed: Seed = 1
    """Seed of the weights, of what is hidden, and of the order of the cells."""
    architecture: Literal["expressed", "paper"] = "expressed"
    """expressed - one token per expressed gene, and a cell vector that predicts the counts of all
    genes; paper - that of Yu et al., one token per gene, trained by masked values alone."""
    thinning: Thinning = [0.3, 0.9]
    """Lowest and highest share of a cell's counts that is read in a training step; the cell vector
    predicts the others. Not for paper."""
    whole_cell: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the whole-cell objective in the loss. Not for paper."""
    gene_power: Share = 0.5
    """Weight of a gene in the whole-cell objective: its mean count to the power of minus this. 0 -
    by its counts; near 1 - genes nearly alike. Not for paper."""
    cell_noise: Annotated[float, Field(ge=0)] = 1.0
    """Standard deviation of the noise that is added to a cell vector before it predicts, in
    training; the vector's numbers have a variance of 1. Not for paper."""
    consistency: Annotated[float, Field(ge=0)] = 0.05
    """Weight of the consistency objective in the loss: the cell vector of the counts that are read
    and that of the others are more alike than those of two cells. Not for paper."""
    batch_key: Text | None = None
    """Column of the sample sheet or the metadata with the batch of each cell, such as sample or
    donor. The decoder of whole cells is given the batch in pretraining, so that the embedding holds
    less of it. Each cell needs a value. Do not name a condition that you study: its differences are
    removed, too. A column of the metadata makes pretraining run again if the metadata change. Not
    for paper."""
    hidden_values: Annotated[float, Field(ge=0)] = 0.0
    """Weight of predicting hidden values in the loss. Not for paper."""
    hidden_zeros: Annotated[float, Field(ge=0)] = 1.0
    """Number of genes without counts among the hidden ones, per gene with counts. Not for paper."""
    mask_share: Share = 0.15
    """Share of the expressed genes per cell whose values are hidden, for hidden_values and for
    paper."""
    n_bins: Annotated[int, Field(ge=1, le=252)] = 14
    """Highest bin of a value; log1p of a million is 13.8. For paper only."""
    promoter_dropout: Share = 0.0
    """Share of the training cells, sampled in each step, whose promoters are read as not measured,
    so that the model can be used on cells with RNA only."""
    validation_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the cells that is held out of training, to measure the losses."""
    projection_init: Literal["regulon", "random"] = "regulon"
    """Initial weights of the Full layers' gene-to-latent projection."""
    gpus: Annotated[Count, HARDWARE] = 1
    """Most GPUs per node that train together."""
    nodes: Annotated[Count, HARDWARE] = 1
    """Nodes of a cluster that train together, with gpus each; more than 1 needs Slurm."""
    width: Annotated[Count, BY_SIZE] = FULL["model"]["width"]
    """Token width."""
    n_layers: Annotated[Count, BY_SIZE] = FULL["model"]["n_layers"]
    """Number of layers, TF and Full in turn."""
    n_heads: Annotated[Count, BY_SIZE] = FULL["model"]["n_heads"]
    """Number of query heads."""
    n_latents: Annotated[Count, BY_SIZE] = FULL["model"]["n_latents"]
    """Number of latents that keys and values are projected to."""
    ffn_width: Annotated[Count, BY_SIZE] = FULL["model"]["ffn_width"]
    """Width of the feed-forward layers."""
    dropout: Annotated[Share, BY_SIZE] = FULL["model"]["dropout"]
    """Dropout of the encoder during training."""
    n_pools: Count = 64
    """Number of trained weighted sums over the expressed genes from which the cell vector is
    computed. Not for paper."""
    cell_width: Annotated[int, Field(ge=2)] = 64
    """Numbers of a cell vector, the embedding. Not for paper."""
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    """Pretraining (see training)."""

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
                f" is {self.width}, which is not a multiple of n_heads, {self.n_heads}; give both, "
                "or a size.",
            )
        low, high = self.thinning
        if low > high:
            raise refuse("", "thinning", f" is [{low}, {high}]; the lower share comes first.")
        of_paper = self.architecture == "paper"
        for key in NOT_FOR_PAPER if of_paper else FOR_PAPER_ONLY:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise refuse(
                    "", key, f" has no effect with architecture: {self.architecture}; leave it out."
                )
        if of_paper:
            return self
        if not (self.whole_cell or self.consistency or (self.hidden_values and self.mask_share)):
            raise refuse(
                "",
                "whole_cell",
                ", consistency and hidden_values are 0, so that nothing is learned.",
            )
        n_gpus = self.gpus * self.nodes
        if self.consistency and n_gpus > math.ceil(self.training.batch_size / COMPARED):
            raise refuse(
                "",
                "training.batch_size",
                f" is {self.training.batch_size}; {n_gpus} GPUs need {n_gpus * COMPARED}, because "
                f"cells are compared in groups of {COMPARED} (consistency).",
            )
        if self.training.compiled is True:
            raise refuse("", "training.compiled", ": true has no effect unless architecture: paper")
        return self

    def architecture_settings(self) -> dict[str, int | float | str]:
        """Return the hyperparameters of the architecture."""
        names = ("architecture", "n_bins", "n_pools", "cell_width", *FULL["model"])
        return {name: getattr(self, name) for name in names}


class ModelSettings(PretrainingSettings):
    """A pretrained model."""

    corpus: Name
    """Corpus of the training cells."""
    cells: Selection = {}
    """Training cells; all cells of the corpus if not given."""
