"""The state of a training run, from which a killed run goes on."""

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

# One would do; a second is there in case a disk loses the last.
N_KEPT = 2


class Checkpoint:
    """The states of a run in a folder of its own: weights, optimiser, place, history.

    Each state is a folder ``step-N`` that appears whole or not at all; the last two are kept.

    Parameters
    ----------
    folder
        Where they are kept.
    identity
        Everything that decides the run's result; a checkpoint of another identity is
        not gone on from.
    """

    def __init__(self, folder: Path, identity: Json) -> None:
        self.folder = Path(folder)
        self.identity = json.loads(json.dumps(identity))

    def _states(self) -> list[Path]:
        """List what is kept, newest first."""
        return sorted(self.folder.glob("step-*"), reverse=True)

    def save(self, module: nn.Module, optimizer: torch.optim.Optimizer, state: Json) -> None:
        """Write weights that are trained, the optimiser's tensors and ``state``.

        Parameters
        ----------
        module, optimizer
            What is trained, and how far it is.
        state
            Plain values, among them ``step``.
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
        """Load the newest state that :meth:`save` wrote for this run.

        Parameters
        ----------
        module, optimizer
            Changed in place.

        Returns
        -------
        dict or None
            The ``state`` saved; None if there is none to go on from.
        """
        for folder in self._states():
            try:
                state = json.loads((folder / "state.json").read_text())
                tensors = load_file(folder / "state.safetensors")
            except (OSError, ValueError, SafetensorError) as error:
                logger.info("%s cannot be read (%s) and is passed over", folder, error)
                continue
            if state.pop("identity") != self.identity:
                logger.info("%s is of other settings or data: starting from the beginning", folder)
                return None
            _load(module, optimizer, tensors)
            logger.info("going on from step %d", state["step"])
            return state
        return None

    def remove(self) -> None:
        """Remove what was saved."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _load(module: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put saved tensors back where :meth:`Checkpoint.save` took them from."""
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
