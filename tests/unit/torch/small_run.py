"""Train a small model and save its weights: ``python small_run.py FOLDER KEY=VALUE...``.

A program of its own, so that tests can kill it, or start it twice at once. KEY=VALUE are
settings of the training, ``architecture``, ``dropout``, ``n_layers``, ``n_processes``,
``checkpoint_seconds`` and ``pause`` (seconds that a batch takes longer), in JSON.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from scipy import sparse

from scdyn.data.loader import MemoryStore
from scdyn.model.architecture import ModelConfig
from scdyn.model.paper import PaperModel
from scdyn.model.transformer import ScDynOmics
from scdyn.settings import PretrainingSettings
from scdyn.training import distributed, loop, masked, objectives
from scdyn.training.checkpoint import Checkpoint

N_CELLS = 64


def small_store(n_genes):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 5, (2, N_CELLS, n_genes)) * (rng.random((2, N_CELLS, n_genes)) < 0.6)
    return MemoryStore(*(sparse.csr_matrix(part.astype(np.uint8)) for part in values))


def make_objective(config, store):
    """Make a new model with its objective."""
    torch.manual_seed(0)
    rows = np.arange(N_CELLS)
    if config.architecture == "paper":
        return masked.MaskedPretraining(PaperModel(config), store, rows, rows, 0.15, 0)
    settings = PretrainingSettings(seed=0, hidden_values=0.5, promoter_dropout=0.2)
    profile = objectives.sum_counts(store, rows)
    return objectives.Pretraining(ScDynOmics(config), store, rows, rows, settings, profile)


def train(folder, settings):
    loop.CHECKPOINT_SECONDS = settings.pop("checkpoint_seconds", 0.0)  # 0: after every step
    objectives.COMPARED = 2  # so that a step has groups for each process
    pause = settings.pop("pause", 0.0)
    torch.set_num_threads(1)
    config = ModelConfig(
        n_genes=40, n_tfs=9, n_bins=14, width=32, n_heads=4, n_latents=7, ffn_width=32, n_pools=6,
        cell_width=8, architecture=settings.pop("architecture", "expressed"),
        n_layers=settings.pop("n_layers", 2), dropout=settings.pop("dropout", 0.1),
    )  # fmt: skip
    task = make_objective(config, small_store(config.n_genes))
    if distributed.rank():  # what a process computes for itself may differ
        torch.nn.init.normal_(next(task.model.parameters()))
    distributed.copy_from_first(task.model)
    settings = {"epochs": 5, "batch_size": 8, "learning_rate": 1e-2} | settings
    compute_loss = task.compute_loss

    def compute_loss_later(*cells):
        if pause:
            time.sleep(pause)
            if run.step:  # which all processes have come to only after the first
                (folder / "started").touch()
        return compute_loss(*cells)

    task.compute_loss = compute_loss_later
    run = loop.Training(
        task.model,
        task,
        N_CELLS,
        loop.TrainingConfig(**settings),
        task.evaluate,
        Checkpoint(folder / "checkpoints", {}),
    )
    history = run.run()
    if distributed.rank() == 0:
        save_file(task.model.state_dict(), folder / "model.safetensors")
        (folder / "history.json").write_text(json.dumps(history))


if __name__ == "__main__":
    values = (argument.split("=", 1) for argument in sys.argv[2:])
    settings = {key: json.loads(value) for key, value in values}
    n_processes = settings.pop("n_processes", 1)
    distributed.launch(1, n_processes, 1)
    with distributed.process_group():
        train(Path(sys.argv[1]), settings)
