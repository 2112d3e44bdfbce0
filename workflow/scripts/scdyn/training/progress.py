"""Progress of a training run: log, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scdyn.io.files import atomic
from scdyn.log import PROGRESS_SECONDS, format_duration, format_estimate, logger
from scdyn.training.cost import LONG_SECONDS, REMEDY

# Steps timed for the estimate of the run's time, after the first one, which is slower.
PILOT_STEPS = 3


class Progress:
    """Reports progress to the log, to ``metrics.jsonl``, and to TensorBoard if installed.

    Parameters
    ----------
    n_steps, batch_size
        Number of steps of the run, and cells per step.
    state
        State of the run, as in its checkpoint.
    folder
        Folder of ``metrics.jsonl``; ``tensorboard`` is written to its parent. None writes neither.
    device
        Device of the run.

    Attributes
    ----------
    waited : float
        Seconds that training has waited for data, set by the caller.
    """

    def __init__(
        self,
        n_steps: int,
        batch_size: int,
        state: dict[str, Any],
        folder: Path | None,
        device: torch.device,
    ) -> None:
        self.n_steps, self.batch_size, self.device = n_steps, batch_size, device
        self.first_step, self.begun = state["step"], time.monotonic()
        self.before, self.shown = state["seconds"], self.begun
        self.waited = 0.0
        self.folder, self.records = folder, list(state["history"])
        self.board = None
        if folder:
            write_records(folder / "metrics.jsonl", self.records)
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                pass
            else:
                # Not in the folder of the checkpoints, which is removed after the run.
                place = str(folder.parent / "tensorboard")
                self.board = SummaryWriter(place, purge_step=state["step"])

    def seconds(self) -> float:
        """Return the run's duration, including the time before it was interrupted."""
        return self.before + time.monotonic() - self.begun

    def step(self, step: int, loss: Tensor) -> None:
        """Log progress every :data:`PROGRESS_SECONDS`: loss, cells/s, time left, waiting for data.

        After the first few steps, the estimated time of the run is logged.
        """
        self.log_pilot(step, loss)
        now = time.monotonic()
        if now - self.shown < PROGRESS_SECONDS:
            return
        self.shown = now
        rate = (step - self.first_step) / (now - self.begun)
        share = self.waited / (now - self.begun)
        late = f"  {share:.0%} of the time waiting for data" if share > 0.05 else ""
        logger.info(
            "step %d/%d  loss %.4f  %.3g cells/s  %s left%s",
            step,
            self.n_steps,
            loss.item(),
            rate * self.batch_size,
            format_duration((self.n_steps - step) / rate),
            late,
        )
        self.scalars({"loss": loss.item(), "cells_per_second": rate * self.batch_size}, step)

    def log_pilot(self, step: int, loss: Tensor) -> None:
        """Log, after a few steps, the estimated time of the run, with a remedy if it is long."""
        n_taken, n_left = step - self.first_step, self.n_steps - step
        if n_taken not in (1, 1 + PILOT_STEPS) or n_left < PILOT_STEPS:
            return
        loss.item()  # wait for the GPU
        now = time.monotonic()
        if n_taken == 1:
            self.warm = now
            return
        seconds = n_left * (now - self.warm) / PILOT_STEPS
        on_cpu = self.device.type == "cpu"
        where = (
            f"the CPU with {torch.get_num_threads()} threads"
            if on_cpu
            else torch.cuda.get_device_name(self.device)
        )
        remedy = f"; {REMEDY}" if on_cpu and seconds > LONG_SECONDS else ""
        logger.info(
            "after a pilot of %d steps: the remaining %d steps will take about %s on %s%s",
            *(PILOT_STEPS, n_left, format_estimate(seconds), where, remedy),
        )

    def epoch(self, record: dict[str, float]) -> None:
        """Log and write the record of an epoch."""
        text = "  ".join(f"{key} {value:.4g}" for key, value in record.items() if key != "epoch")
        logger.info("epoch %d: %s", record["epoch"], text)
        self.records.append(record)
        if self.folder:
            write_records(self.folder / "metrics.jsonl", self.records)
        self.scalars({f"epoch/{key}": value for key, value in record.items()}, int(record["step"]))

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Send values to TensorBoard, if installed."""
        if self.board:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)
            self.board.flush()


def write_records(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Write records as JSON lines, atomically."""
    with atomic(path) as temporary:
        temporary.write_text("".join(json.dumps(record) + "\n" for record in records))
