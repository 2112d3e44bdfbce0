"""One measurement of this package: ``python ours.py WHAT SIZE FOLDER DEVICE``."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from sizes import (
    EXPRESSED_SHARE,
    LOADER_BATCH,
    MASK_SHARE,
    N_BINS,
    N_CLASSES,
    N_HEADS,
    N_STEPS,
    SHARE_OF_ONES,
    SIZES,
    WIDTH,
)
from worker import serve

from scdyn.data import loader
from scdyn.data.corpus import Corpus
from scdyn.explain import attribution
from scdyn.model import adapters, classifier
from scdyn.model.architecture import ModelConfig
from scdyn.model.paper import PaperModel
from scdyn.model.transformer import ScDynOmics
from scdyn.settings import HeadSettings, PretrainingSettings
from scdyn.training import devices, loop, objectives
from scdyn.training.masked import draw_noise, masked_losses


def make(size, architecture="paper"):
    """Make a model, the paper's as the peer's, and a batch of counts, which are also its bins."""
    s = dict(SIZES[size])
    batch = s.pop("batch")
    torch.manual_seed(0)
    config = ModelConfig(
        width=WIDTH, n_heads=N_HEADS, n_bins=N_BINS, dropout=0.0, architecture=architecture, **s
    )
    shape = (2, batch, s["n_genes"])
    counts = torch.empty(shape).geometric_(SHARE_OF_ONES).clamp(max=N_BINS)
    counts = ((torch.rand(shape) < EXPRESSED_SHARE) * counts).to(torch.int16)
    if architecture == "paper":
        return PaperModel(config, np.ones((2, config.n_genes))), counts.int()
    return ScDynOmics(config), counts


def make_store(counts):
    return loader.MemoryStore(*(sparse.csr_matrix(part.numpy()) for part in counts))


def training_step(size, device, compiled="auto"):
    """Return a function that runs one step, the number of cells per step, and the model."""
    model, bins = make(size)
    model.to(device)
    config = loop.TrainingConfig(learning_rate=1e-4, compiled=compiled)
    optimizer = loop.make_optimizer(model, config)
    loop.configure_encoders(model, config)
    seeds = iter(range(10**6))

    def step():
        rna, promoter = bins.to(device)
        noise = draw_noise(next(seeds), len(rna), rna)
        losses = masked_losses(model, rna, promoter, MASK_SHARE, noise)
        loss = (losses[0].mean() + losses[1].mean()) / 2
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step, bins.shape[1], model


def train(size, _, device):
    return training_step(size, device)[:2]


def train_default(size, _, device):
    """Train the default architecture on the same counts, as the training loop does.

    The cells are one group, which every other step compares.
    """
    model, counts = make(size, "expressed")
    model.to(device)
    n_cells = counts.shape[1]
    rows, store = np.arange(n_cells), make_store(counts)
    task = objectives.Pretraining(
        model, store, rows, rows, PretrainingSettings(width=WIDTH, n_heads=N_HEADS),
        objectives.sum_counts(store, rows),
    )  # fmt: skip
    config = loop.TrainingConfig(learning_rate=1e-4, batch_size=n_cells)
    run = loop.Training(model, task, n_cells, config)
    epochs = iter(range(10**6))

    def step():
        parts = loop.plan_epoch(next(epochs), n_cells, config, task.depths, task.group_size)
        counts = next(iter(task.load([parts[0].positions])))
        for seed in range(2):
            run.take_step(replace(parts[0], seed=seed), *counts).item()

    return step, 2 * n_cells


def infer(size, _, device):
    model, bins = make(size)
    model.to(device).eval()

    def forward():
        rna, promoter = bins.to(device)
        with torch.no_grad():
            logits, _ = model.decode(model(rna, promoter))
        logits.sum().item()

    return forward, bins.shape[1]


def explain(size, _, device):
    model, bins = make(size)
    head = classifier.make_head(model.config, N_CLASSES, HeadSettings())
    classes = [str(i) for i in range(N_CLASSES)]
    adapted = adapters.adapt(model, "lora", 8)
    task = classifier.Classifier(adapted, head, classes).merge().eval().to(device)
    store, cell = make_store(bins), np.array([0])
    return lambda: attribution.integrated_gradients(task, store, cell, 0, N_STEPS), 1


def load(_, folder, device):
    """Load the batches of a shuffled epoch, as in training."""
    store = Corpus(Path(folder) / "corpus").store
    seeds = iter(range(10**6))

    def epoch():
        order = loader.block_shuffle(
            np.arange(len(store)), loop.BLOCK, loop.BUFFER_BLOCKS, next(seeds)
        )
        for _ in loader.Loader(store, loader.cut_rows(order, LOADER_BATCH), device):
            pass

    return epoch, len(store)


if __name__ == "__main__":
    what, size, folder, device = sys.argv[1:]
    if device == "cpu":
        devices.keep_memory()
    measured = {
        "train": train, "train_default": train_default, "infer": infer, "explain": explain,
        "load": load,
    }[what]  # fmt: skip
    serve(*measured(size, folder, device), device)
