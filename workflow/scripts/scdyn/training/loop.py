"""The training loop of pretraining and fine-tuning, which resumes from checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Protocol, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from scdyn.data.loader import block_shuffle, halve_batch
from scdyn.errors import InputError, Interrupted
from scdyn.model.layers import set_precision
from scdyn.model.paper import PaperModel
from scdyn.settings import TrainingSettings
from scdyn.training import distributed
from scdyn.training.checkpoint import Checkpoint
from scdyn.training.interruption import Interruption
from scdyn.training.progress import Progress

T = TypeVar("T", np.ndarray, Tensor)
Prepared = TypeVar("Prepared")
Found = TypeVar("Found")

CHECKPOINT_SECONDS = 60.0
# Blocks of cells and buffers of blocks for scdyn.data.loader.block_shuffle.
BLOCK = 64
BUFFER_BLOCKS = 256
# Cells on a CPU at once, by measurement: more do not fit into its cache.
MOST_ON_CPU = 16


class TrainingConfig(TrainingSettings):
    """Training settings of one run, with those that are not in the config."""

    clip: Annotated[float, Field(gt=0)] = 1.0
    """Norm at which gradients are clipped."""
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of the steps over which the learning rate rises from zero."""
    encoder_rate: Annotated[float, Field(gt=0)] = 1.0
    """Learning rate of the encoder within a classifier, relative to that of the head."""
    seed: int = 0
    """Seed of initialisation, order, masks and dropout."""


def learning_rate(step: int, n_steps: int, config: TrainingConfig) -> float:
    """Return the learning rate of a step: linear warm-up, then cosine decay to zero."""
    n_warmup = max(1, round(config.warmup * n_steps))
    if step < n_warmup:
        return config.learning_rate * (step + 1) / n_warmup
    progress = (step - n_warmup) / max(1, n_steps - n_warmup) * config.cycles % 1
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def step_seed(*place: int) -> int:
    """Derive the seed of masks and dropout of a step.

    A resumed run therefore has the same random numbers as an uninterrupted one, and masks do not
    depend on the number of GPUs.
    """
    return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1)


def seed_dropout(seed: int, device: torch.device) -> None:
    """Seed the generators of the CPU and of a device.

    On a machine without a GPU, ``torch.manual_seed`` keeps each call for GPUs to come, so that
    memory grows with every step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def decays(name: str, parameter: Tensor) -> bool:
    """Tell whether weight decay applies: to matrices, not to embeddings, norms and biases."""
    return parameter.ndim > 1 and "embedding" not in name


def make_optimizer(module: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """Return AdamW over the parameters of a module that require gradients.

    Groups have a ``rate``, by which the learning rate is multiplied.
    """
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            rate = config.encoder_rate if name.startswith("encoder.") else 1.0
            decay = config.weight_decay if decays(name, parameter) else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": groups[rate, decay], "weight_decay": decay, "rate": rate}
            for rate, decay in sorted(groups)
        ],
        lr=config.learning_rate,
        fused=True,
    )


def configure_encoders(module: nn.Module, config: TrainingConfig) -> None:
    """Set the precision of the encoders in a module and compile their layers, in place."""
    on_gpu = next(module.parameters()).is_cuda
    for part in module.modules():
        if isinstance(part, PaperModel):
            if on_gpu if config.compiled == "auto" else config.compiled:
                part.compile_layers()
    set_precision(module, config.precision)


@dataclass(frozen=True)
class Part:
    """Some cells of a step.

    Attributes
    ----------
    positions
        (n,) positions of the cells.
    groups
        (n,) ascending group of each cell within the step; those of a group are compared.
    places, n_in_step
        (n,) indices of the cells within the step, and number of cells in the step. Each part draws
        the random numbers of the whole step and uses its own, so that masks do not depend on the
        size of the parts.
    seed
        Seed of the step.
    """

    positions: np.ndarray
    groups: np.ndarray
    places: np.ndarray
    n_in_step: int
    seed: int

    def seed_cells(self) -> list[int]:
        """Derive a seed of each cell from that of the step."""
        return [step_seed(self.seed, int(position)) for position in self.positions]

    def take_from(self, drawn: T) -> T:
        """Select this part's values from those drawn for all cells of the step."""
        return drawn[self.places]

    def select(self, chosen: np.ndarray) -> Part:
        """Select some of the cells."""
        kept = {name: getattr(self, name)[chosen] for name in ("positions", "groups", "places")}
        return replace(self, **kept)


def plan_epoch(
    epoch: int, n_cells: int, config: TrainingConfig, depths: np.ndarray, group_size: int
) -> list[Part]:
    """Split an epoch into steps, of which this process takes a part.

    The cells of a step are sorted by depth and divided into groups. A micro-batch has as many
    tokens per cell as its longest cell, so that neighbours in this order are computed together.

    Parameters
    ----------
    epoch
        Number of the epoch; determines the order, with the seed.
    n_cells
        Number of training cells; a last incomplete step is left out.
    config
        See :class:`TrainingConfig`.
    depths
        (cells,) total counts.
    group_size
        Most cells of a group, whose cells stay together.

    Returns
    -------
    list of Part
        The cells of this process per step.

    Raises
    ------
    InputError
        If a step has fewer groups than there are processes.
    """
    batch_size = min(config.batch_size, n_cells)
    order = block_shuffle(np.arange(n_cells), BLOCK, BUFFER_BLOCKS, [config.seed, epoch])
    n_groups, n_processes = math.ceil(batch_size / group_size), distributed.n_processes()
    if n_processes > n_groups:
        raise InputError(
            "TRAINING",
            f"training: a batch of {batch_size} cells cannot be split over {n_processes} GPUs; "
            "raise batch_size.",
        )
    groups = np.arange(batch_size) * n_groups // batch_size
    own = groups % n_processes == distributed.rank()
    parts = []
    for i, step in enumerate(order[: n_cells // batch_size * batch_size].reshape(-1, batch_size)):
        places = np.argsort(depths[step], kind="stable")[own]
        seed = step_seed(config.seed, epoch * (n_cells // batch_size) + i, 0)
        parts.append(Part(step[places], groups[own], places, batch_size, seed))
    return parts


def split_part(
    part: Part, cells: Sequence[Tensor], n_groups: int
) -> Iterator[tuple[Part, list[Tensor]]]:
    """Split cells into micro-batches of consecutive groups.

    Parameters
    ----------
    part, cells
        The cells, and what is known of them, such as their counts: (n, ...) each.
    n_groups
        Most groups of a micro-batch.
    """
    micro_batch = np.unique(part.groups, return_inverse=True)[1] // n_groups
    for i in range(micro_batch[-1] + 1):
        chosen = np.flatnonzero(micro_batch == i)
        yield part.select(chosen), [values[chosen] for values in cells]


class Loading(Protocol):
    """Batches of cells, and the total time that a loop has waited for them."""

    @property
    def waited_seconds(self) -> float: ...

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]: ...


class Objective(Protocol[Prepared]):
    """What a training minimises: a sum over the parts of a step, whatever their sizes.

    Attributes
    ----------
    depths
        (cells,) total counts of the training cells.
    group_size
        Cells that are compared, and are therefore in the same part; 1 if none are.
    """

    @property
    def depths(self) -> np.ndarray: ...

    @property
    def group_size(self) -> int: ...

    def load(self, parts: list[np.ndarray]) -> Loading:
        """Read the cells at the positions of each part, such as their counts, to the device."""

    def prepare(self, part: Part, *cells: Tensor) -> Prepared:
        """Prepare the cells of a part, (n, ...) each, with all random numbers."""

    def weigh(self, part: Part, cells: Prepared) -> Tensor:
        """Compute the part's contribution to the denominator of each mean in the loss, (means,)."""

    def compute_loss(self, part: Part, cells: Prepared, totals: Tensor) -> Tensor:
        """Compute the part's share of the loss; ``totals`` are the weights of the whole step."""


class Training:
    """A training run and its state.

    Parameters
    ----------
    module
        The parameters that require gradients are fitted, in place.
    objective
        Reads the cells and computes the loss.
    n_cells
        Number of training cells; each epoch visits all of them, except a last incomplete batch.
    config
        See :class:`TrainingConfig`.
    evaluate
        Called after each epoch, in evaluation mode and without gradients; returns scores.
    checkpoint
        Checkpoint to resume from; written every minute and after each epoch.
    """

    def __init__(
        self,
        module: nn.Module,
        objective: Objective[Any],
        n_cells: int,
        config: TrainingConfig,
        evaluate: Callable[[], dict[str, float]] = dict,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.module, self.objective, self.evaluate = module, objective, evaluate
        self.n_cells, self.config, self.checkpoint = n_cells, config, checkpoint
        self.device = next(module.parameters()).device
        self.optimizer = make_optimizer(module, config)
        configure_encoders(module, config)
        self.batch_size = min(config.batch_size, n_cells)
        self.per_epoch = n_cells // self.batch_size
        self.n_steps = self.per_epoch * config.epochs
        self.is_first = distributed.rank() == 0
        # Most cells on a device at once; halved when a GPU runs out of memory.
        share = math.ceil(self.batch_size / distributed.n_processes())
        most = share if self.device.type == "cuda" else MOST_ON_CPU
        self.micro_batch = min(config.micro_batch or most, share)
        # State of the run in a checkpoint, besides the tensors.
        self.step = 0
        self.losses: list[Tensor] = []
        self.history: list[dict[str, float]] = []

    def run(self) -> list[dict[str, float]]:
        """Train from the checkpoint, or from the start, to the end.

        Returns
        -------
        list of dict
            One record per epoch: ``epoch``, ``step``, ``loss`` (mean of its steps), ``seconds``,
            ``cells_per_second`` and the scores of ``evaluate``. The module is left in evaluation
            mode.

        Raises
        ------
        InputError
            If the loss is not finite, a batch has fewer cells than there are GPUs, or a GPU's
            memory does not suffice for one cell.
        Interrupted
            After SIGTERM or SIGINT; the state was saved.
        """
        state = self.checkpoint.restore(self.module, self.optimizer) if self.checkpoint else None
        state = state or {"step": 0, "losses": [], "seconds": 0.0, "history": []}
        self.step, self.history = state["step"], state["history"]
        self.losses = list(torch.tensor(state["losses"], device=self.device))
        folder = self.checkpoint.folder if self.checkpoint and self.is_first else None
        self.progress = Progress(self.n_steps, self.batch_size, state, folder, self.device)
        self.saved = time.monotonic()
        with Interruption() as interruption:
            while self.step < self.n_steps:
                self.run_epoch(interruption)
        self.module.eval()
        return self.history

    def run_epoch(self, interruption: Interruption) -> None:
        """Take the remaining steps of an epoch; return early if a GPU runs out of memory."""
        epoch, place = divmod(self.step, self.per_epoch)
        objective = self.objective
        steps = plan_epoch(
            epoch, self.n_cells, self.config, objective.depths, objective.group_size
        )[place:]
        loading = objective.load([part.positions for part in steps])
        waited = self.progress.waited
        self.module.train()
        for part, cells in zip(steps, loading, strict=True):
            loss = self.take_step(part, *cells)
            if loss is None:
                return
            self.losses.append(loss)
            self.step += 1
            self.progress.waited = waited + loading.waited_seconds
            if self.is_first:
                self.progress.step(self.step, self.losses[-1])
            if self.step % self.per_epoch == 0:
                self.close_epoch(epoch + 1)
                self.save()
            elif time.monotonic() - self.saved > CHECKPOINT_SECONDS:
                self.save()
            if distributed.any_process(interruption.requested, self.device):
                self.save()
                raise Interrupted(
                    f"stopped by a signal after step {self.step} of {self.n_steps}; run again to "
                    "resume from there"
                )

    def take_step(self, part: Part, *cells: Tensor) -> Tensor | None:
        """Take one step of the optimiser and return its loss; None if a GPU ran out of memory."""
        ready = self.attempt(lambda: self.prepare(part, cells))
        if ready is None:
            return None
        prepared, weights = ready
        totals = distributed.sum_values(weights)
        total = self.attempt(lambda: self.add_gradients(prepared, totals))
        if total is None:
            return None
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        distributed.sum_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * learning_rate(self.step, self.n_steps, self.config)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        # A gradient that is not finite makes the loss NaN, which is checked before saving.
        return distributed.sum_values(total) + 0 * norm

    def attempt(self, compute: Callable[[], Found]) -> Found | None:
        """Compute a part of a step; None, in all processes, if a GPU of any ran out of memory."""
        try:
            found = compute()
        except torch.OutOfMemoryError:
            found = None
        if distributed.any_process(found is None, self.device):
            self.halve()
            return None
        return found

    def prepare(self, part: Part, cells: Sequence[Tensor]) -> tuple[list[tuple[Part, Any]], Tensor]:
        """Prepare the micro-batches; return them, and the sum of their weights."""
        n_groups = max(1, self.micro_batch // self.objective.group_size)
        prepared = [
            (own, self.objective.prepare(own, *values))
            for own, values in split_part(part, cells, n_groups)
        ]
        weights = [self.objective.weigh(*each) for each in prepared]
        return prepared, torch.stack(weights).sum(0)

    def add_gradients(self, prepared: list[tuple[Part, Any]], totals: Tensor) -> Tensor:
        """Sum the gradients over the micro-batches; return this process' share of the loss."""
        total = torch.zeros((), device=self.device)
        for i, each in enumerate(prepared):
            place = distributed.rank() + i * distributed.n_processes()
            seed_dropout(step_seed(self.config.seed, self.step, place), self.device)
            loss = self.objective.compute_loss(*each, totals)
            loss.backward()
            total += loss.detach()
        return total

    def halve(self) -> None:
        """Halve the number of cells on a device at once."""
        self.optimizer.zero_grad(set_to_none=True)
        self.micro_batch = halve_batch(self.micro_batch, self.objective.group_size)

    def finite_losses(self) -> list[float]:
        """Return the losses of the epoch's steps.

        Raises
        ------
        InputError
            If a loss is not finite.
        """
        losses = torch.stack(self.losses).tolist() if self.losses else []
        for i, loss in enumerate(losses):
            if not math.isfinite(loss):
                step = self.step - len(losses) + i
                raise InputError(
                    "TRAINING",
                    f"training: the loss is {loss} in epoch {step // self.per_epoch + 1}, step "
                    f"{step + 1}; lower learning_rate.",
                )
        return losses

    def close_epoch(self, epoch: int) -> None:
        """Evaluate, add the epoch's record to the history, and clear the losses of its steps."""
        loss = torch.tensor(self.finite_losses()).mean().item()
        self.losses = []
        seconds = self.progress.seconds()
        before = self.history[-1]["seconds"] if self.history else 0.0
        record = {
            "epoch": epoch,
            "step": self.step,
            "loss": loss,
            "seconds": round(seconds, 3),
            "cells_per_second": round(
                self.per_epoch * self.batch_size / max(seconds - before, 1e-9), 2
            ),
        }
        if self.is_first:
            self.module.eval()
            with torch.no_grad():
                record |= self.evaluate()
            self.module.train()
            self.progress.epoch(record)
        distributed.wait()
        self.history.append(record)

    def save(self) -> None:
        """Write a checkpoint, if configured, after checking that all losses are finite."""
        self.saved = time.monotonic()
        losses = self.finite_losses()
        if self.checkpoint and self.is_first:
            state = {
                "step": self.step,
                "losses": losses,
                "seconds": self.progress.seconds(),
                "history": self.history,
            }
            self.checkpoint.save(self.module, self.optimizer, state)
