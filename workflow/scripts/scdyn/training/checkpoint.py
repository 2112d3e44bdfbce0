"""Checkpoints of a training run, from which it resumes after an interruption."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scdyn.io.files import Json, atomic, write_json
from scdyn.log import logger

# A second checkpoint is kept in case the last one is damaged.
N_KEPT = 2


class Checkpoint:
    """Checkpoints of a run: weights, optimiser, step, history.

    Each is a folder ``step-N``, written atomically; the last two are kept.

    Parameters
    ----------
    folder
        Folder of the checkpoints of this run.
    identity
        Everything that determines the run's result; a run does not resume from a checkpoint with
        another identity.
    """

    def __init__(self, folder: Path, identity: Json) -> None:
        self.folder = Path(folder)
        self.identity = json.loads(json.dumps(identity))

    def _states(self) -> list[Path]:
        """List the checkpoints, newest first."""
        return sorted(self.folder.glob("step-*"), reverse=True)

    def save(self, module: nn.Module, optimizer: torch.optim.Optimizer, state: Json) -> None:
        """Write the trained weights, the optimiser's tensors and ``state``.

        Parameters
        ----------
        module, optimizer
            Module and optimiser of the run.
        state
            JSON values, including ``step``.
        """
        trained = {
            f"model.{n}": p.detach() for n, p in module.named_parameters() if p.requires_grad
        }
        for i, moments in optimizer.state_dict()["state"].items():
            trained |= {f"optimizer.{i}.{key}": value for key, value in moments.items()}
        with atomic(self.folder / f"step-{state['step']:09d}") as temporary:
            temporary.mkdir()
            save_file(trained, temporary / "state.safetensors")
            write_json(temporary / "state.json", {"identity": self.identity, **state})
        for old in self._states()[N_KEPT:]:
            shutil.rmtree(old)

    def restore(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> Json | None:
        """Load the newest checkpoint of this run.

        Parameters
        ----------
        module, optimizer
            Changed in place.

        Returns
        -------
        dict or None
            The saved ``state``; None if there is no checkpoint to resume from.
        """
        for folder in self._states():
            try:
                state = json.loads((folder / "state.json").read_text())
                tensors = load_file(folder / "state.safetensors")
            except (OSError, ValueError, SafetensorError) as error:
                logger.info("skipping checkpoint %s, which cannot be read (%s)", folder, error)
                continue
            if state.pop("identity") != self.identity:
                logger.info("%s has other settings or data: training from the start", folder)
                return None
            _load(module, optimizer, tensors)
            logger.info("resuming from step %d", state["step"])
            return state
        return None

    def remove(self) -> None:
        """Remove the checkpoints."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _load(module: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load the tensors of a checkpoint into module and optimiser, in place."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(tensors[f"model.{name}"])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, i, key = name.split(".")
            moments.setdefault(int(i), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
