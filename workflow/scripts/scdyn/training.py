"""One training loop, which goes on where it was killed."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy import sparse
from torch import Tensor, nn

from scdyn.files import atomic, write_json
from scdyn.log import logger

CHECKPOINT_SECONDS = 60.0
PROGRESS_SECONDS = 10.0


@dataclass(frozen=True)
class TrainingConfig:
    """How parameters are fitted.

    Attributes
    ----------
    epochs, batch_size
        Passes over the cells, cells a step.
    learning_rate, weight_decay, clip
        Of AdamW; matrices alone are decayed; norm at which gradients are clipped.
    warmup
        Share of the steps over which the rate rises from zero; a cosine takes it back.
    seed
        Of initialisation, order, masks and dropout.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.01
    clip: float = 1.0
    warmup: float = 0.05
    seed: int = 0


def choose_device() -> torch.device:
    """Return the GPU where there is one, else the CPU, and say which."""
    if torch.cuda.is_available():
        logger.info("running on GPU %s", torch.cuda.get_device_name())
        return torch.device("cuda")
    logger.info("no GPU found: running on the CPU with %d threads", torch.get_num_threads())
    return torch.device("cpu")


def to_device(bins: sparse.csr_matrix, device: torch.device) -> Tensor:
    """Densify bins (cells, genes) as uint8 on the device."""
    return torch.from_numpy(bins.toarray()).to(device)


def learning_rate(step: int, n_steps: int, config: TrainingConfig) -> float:
    """Rate of a step: linear warm-up, then half a cosine to zero."""
    n_warmup = max(1, round(config.warmup * n_steps))
    if step < n_warmup:
        return config.learning_rate * (step + 1) / n_warmup
    progress = (step - n_warmup) / max(1, n_steps - n_warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def step_seed(seed: int, step: int) -> int:
    """Seed of one step's masks and dropout, so that a resumed run draws what it would have."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


class Checkpoint:
    """The state of a run in a folder of its own: weights, optimiser, place, history.

    Parameters
    ----------
    folder
        Where it is kept.
    identity
        Everything that decides the run's result; a checkpoint of another identity is
        not gone on from.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder = folder
        self.identity = json.loads(json.dumps(identity))

    def save(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
    ) -> None:
        """Write weights that are trained, the optimiser's tensors and ``state``."""
        trained = {
            f"model.{n}": p.detach() for n, p in module.named_parameters() if p.requires_grad
        }
        for i, moments in optimizer.state_dict()["state"].items():
            trained |= {f"optimizer.{i}.{key}": value for key, value in moments.items()}
        with atomic(self.folder) as temporary:
            temporary.mkdir()
            save_file(trained, temporary / "state.safetensors")
            write_json(temporary / "state.json", {"identity": self.identity, **state})

    def restore(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Load what :meth:`save` wrote and return its ``state``; None if there is none to use."""
        if not (self.folder / "state.json").exists():
            return None
        state = json.loads((self.folder / "state.json").read_text())
        if state.pop("identity") != self.identity:
            logger.info(
                "the checkpoint in %s is of other settings or data: starting anew", self.folder
            )
            return None
        tensors = load_file(self.folder / "state.safetensors")
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(tensors[f"model.{name}"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, i, key = name.split(".")
                moments.setdefault(int(i), {})[key] = tensor
        content = optimizer.state_dict()
        optimizer.load_state_dict({"state": moments, "param_groups": content["param_groups"]})
        logger.info("going on from step %d", state["step"])
        return state

    def remove(self) -> None:
        """Remove what was saved."""
        shutil.rmtree(self.folder, ignore_errors=True)


def train(
    module: nn.Module,
    loss_of: Callable[[np.ndarray, int], Tensor],
    n_cells: int,
    config: TrainingConfig,
    evaluate: Callable[[], dict[str, float]],
    checkpoint: Checkpoint | None = None,
) -> list[dict[str, float]]:
    """Fit the parameters of ``module`` that require gradients.

    Parameters
    ----------
    module
        Changed in place; left in evaluation mode.
    loss_of
        Called with the rows of a batch, (batch_size,), and the step's seed; returns a scalar.
    n_cells
        Rows to draw from; each epoch visits all of them, save a last incomplete batch.
    config
        See :class:`TrainingConfig`.
    evaluate
        Called after each epoch, in evaluation mode and without gradients.
    checkpoint
        Where to go on from and to save to, every minute and after each epoch.

    Returns
    -------
    list of dict
        A record an epoch: ``epoch``, ``step``, ``loss`` (mean of its steps), ``seconds``,
        ``cells_per_second`` and what ``evaluate`` returned.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    matrices = [p for n, p in module.named_parameters() if p.requires_grad and decays(n, p)]
    chosen = {id(p) for p in matrices}
    rest = [p for p in parameters if id(p) not in chosen]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    batch_size = min(config.batch_size, n_cells)
    per_epoch = n_cells // batch_size
    n_steps = per_epoch * config.epochs
    state = {"step": 0, "losses": [], "seconds": 0.0, "history": []}
    if checkpoint:
        state = checkpoint.restore(module, optimizer) or state

    begun = saved = shown = time.monotonic() - state["seconds"]
    first_step = state["step"]
    resumed_at = time.monotonic()
    while state["step"] < n_steps:
        step = state["step"]
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng([config.seed, epoch]).permutation(n_cells)
        rows = order[place * batch_size : (place + 1) * batch_size]
        module.train()
        seed = step_seed(config.seed, step)
        torch.manual_seed(seed)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, n_steps, config)
        loss = loss_of(rows, seed)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        state["losses"].append(loss.item())
        state["step"] = step + 1

        now = time.monotonic()
        state["seconds"] = now - begun
        if now - shown > PROGRESS_SECONDS:
            shown = now
            rate = (state["step"] - first_step) / (now - resumed_at)
            logger.info(
                "step %d/%d  loss %.4f  %.0f cells/s  %.0f s to go",
                state["step"],
                n_steps,
                loss.item(),
                rate * batch_size,
                (n_steps - state["step"]) / rate,
            )
        end_of_epoch = state["step"] % per_epoch == 0
        if end_of_epoch:
            state["history"].append(
                close_epoch(module, evaluate, state, epoch + 1, per_epoch * batch_size)
            )
        if checkpoint and (end_of_epoch or now - saved > CHECKPOINT_SECONDS):
            saved = now
            checkpoint.save(module, optimizer, state)
    module.eval()
    return state["history"]


def decays(name: str, parameter: Tensor) -> bool:
    """Tell whether weight decay applies: to matrices, not to embeddings, norms and biases."""
    return parameter.ndim > 1 and "embedding" not in name


def close_epoch(
    module: nn.Module,
    evaluate: Callable[[], dict[str, float]],
    state: dict[str, Any],
    epoch: int,
    n_cells: int,
) -> dict[str, float]:
    """Evaluate after an epoch and return its record; the losses of its steps are used up."""
    module.eval()
    with torch.no_grad():
        scores = evaluate()
    before = state["history"][-1]["seconds"] if state["history"] else 0.0
    record = {
        "epoch": epoch,
        "step": state["step"],
        "loss": float(np.mean(state["losses"])),
        "seconds": round(state["seconds"], 3),
        "cells_per_second": round(n_cells / max(state["seconds"] - before, 1e-9), 2),
        **scores,
    }
    state["losses"] = []
    logger.info(
        "epoch %d: %s", epoch, "  ".join(f"{key} {value:.4g}" for key, value in record.items())
    )
    return record
