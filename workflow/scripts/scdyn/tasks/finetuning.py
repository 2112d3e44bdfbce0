"""Adapting a pretrained model to a question, one run at a time: a variant, a seed, a fold."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from scdyn.data.loader import Loader, MemoryStore
from scdyn.data.tokens import TokenStore
from scdyn.io.files import atomic, sha256, write_table
from scdyn.log import logger
from scdyn.model.adapters import adapt, reinitialise
from scdyn.model.classifier import Classifier, Head, run_classifier
from scdyn.model.pretrained import load_model
from scdyn.model.transformer import ScDynOmics
from scdyn.settings import MAIN, FineTuningSettings, VariantSettings, is_compared
from scdyn.tasks import evaluation, metrics
from scdyn.tasks.familiarity import familiarity, fit_familiarity
from scdyn.tasks.splits import parts
from scdyn.training.checkpoint import Checkpoint
from scdyn.training.devices import choose_device
from scdyn.training.loop import Part, Training, TrainingConfig
from scdyn.training.progress import write_records


def fit_classifier(
    model: ScDynOmics,
    store: TokenStore | MemoryStore,
    rows: np.ndarray,
    labels: np.ndarray,
    settings: FineTuningSettings,
    config: TrainingConfig,
    checkpoint: Checkpoint | None = None,
) -> tuple[Classifier, list[dict[str, float]]]:
    """Fine-tune a model to call labels.

    Classes weigh alike in the loss to the power of a half: the rare ones are heard
    without the common ones being drowned.

    Parameters
    ----------
    model
        On the device to train on; changed in place.
    store, rows
        The training cells.
    labels
        (cells,) class names.
    settings
        How the encoder is adapted, what it reads, and the head's sizes.
    config
        See :class:`~scdyn.training.loop.TrainingConfig`.
    checkpoint
        Where to go on from.

    Returns
    -------
    classifier : Classifier
        In evaluation mode.
    history : list of dict
        As :meth:`scdyn.training.loop.Training.run` returns it.
    """
    device = next(model.parameters()).device
    classes, targets = np.unique(labels, return_inverse=True)
    torch.manual_seed(config.seed)
    encoder = adapt(model, settings.adapter, settings.rank)
    head = Head(model.config.n_genes, model.config.width, len(classes), settings)
    classifier = Classifier(encoder, head, classes.tolist(), settings.modalities).to(device)
    weights = np.bincount(targets) ** -0.5
    weights = torch.tensor(weights / weights[targets].mean(), dtype=torch.float32, device=device)
    targets = torch.from_numpy(targets).to(device)

    def weigh(part: Part, *_: Tensor) -> Tensor:
        return weights[targets[part.positions]].sum()[None]

    def compute_loss(part: Part, rna: Tensor, promoter: Tensor, totals: Tensor) -> Tensor:
        logits = classifier(rna, promoter)
        losses = functional.cross_entropy(logits, targets[part.positions], weights, reduction="sum")
        return losses / totals[0]

    def load(parts: list[np.ndarray]) -> Loader:
        return Loader(store, [rows[part] for part in parts], device)

    run = Training(classifier, compute_loss, weigh, load, len(rows), config, checkpoint=checkpoint)
    return classifier, run.run()


def epochs_for(epochs: int, share: float) -> int:
    """Passes over a share of the labels: fewer cells are seen more often, by the share's root.

    Equal passes would end before the few labels are learned, equal steps would cost as much
    as all labels do.
    """
    return round(epochs * share**-0.5)


def settle(
    classifier: Classifier,
    store: TokenStore,
    validation: pd.DataFrame,
) -> None:
    """Fit temperature and familiarity, in place, to cells that were not learned from.

    Parameters
    ----------
    classifier
        Trained.
    store
        Tokens.
    validation
        ``cell`` and ``label``, as :func:`scdyn.tasks.splits.parts` returns it.
    """
    p, energies = run_classifier(classifier, store, store.find_rows(validation["cell"]))
    labels = validation["label"].to_numpy()
    classifier.temperature = metrics.fit_temperature(labels, classifier.classes, p)
    classifier.familiar = fit_familiarity(energies)


def peak_memory_gib(device: torch.device) -> float:
    """Most memory that the process, or on a GPU its tensors, have taken."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def finetune_run(
    store: TokenStore,
    splits: pd.DataFrame,
    variant: str,
    seed: int,
    fold: str,
    settings: VariantSettings,
    model_folder: Path,
    folder: Path,
    checkpoints: Path,
) -> None:
    """Fine-tune one variant on the cells of all other folds and call this fold's.

    Parameters
    ----------
    store
        Tokens of the corpus.
    splits
        As :func:`scdyn.tasks.splits.read_splits` returns them.
    variant, seed, fold
        The variant's name, the seed of initialisation and order, the fold that is tested.
    settings
        Of the variant.
    model_folder
        The pretrained model.
    folder
        Receives the adapter, the head, ``task.json``, ``predictions.tsv`` and
        ``metrics.jsonl``, all or none.
    checkpoints
        Where a killed run goes on from; removed when the run is done.
    """
    begun = time.perf_counter()
    epochs = epochs_for(settings.training.epochs, settings.labels)
    config = TrainingConfig(**{**settings.training.model_dump(), "epochs": epochs, "seed": seed})
    device = choose_device()
    model = load_model(model_folder, store.meta)
    if not settings.pretrained:
        model = reinitialise(model, seed)
    learned, validation, called = parts(splits, fold, settings.labels, settings.without, seed)
    run: dict[str, Any] = {"method": variant if is_compared(variant) else MAIN}
    run |= {"variant": variant, "seed": seed, "fold": fold}
    description = {
        **run,
        "model_sha256": sha256(model_folder / "model.safetensors"),
        # From where this is written, so that a results folder can be moved as a whole.
        "model_folder": os.path.relpath(model_folder, folder),
    }
    seen = {"cells": list(learned["cell"]), "labels": list(learned["label"])}
    identity = {
        **settings.without_hardware(),
        **description,
        "training": config.without_hardware(),
        **seen,
    }
    checkpoint = Checkpoint(checkpoints, identity)
    rows, labels = store.find_rows(learned["cell"]), learned["label"].to_numpy()
    classifier, history = fit_classifier(
        model.to(device), store, rows, labels, settings, config, checkpoint
    )
    n_trained = sum(p.numel() for p in classifier.parameters() if p.requires_grad)
    settle(classifier, store, validation)
    with atomic(folder) as temporary:
        temporary.mkdir()
        cost = {
            "n_trained_parameters": n_trained,
            "n_learned_cells": len(learned),
            "seconds": round(time.perf_counter() - begun, 2),
            "peak_memory_gib": round(peak_memory_gib(device), 3),
        }
        classifier.save(
            temporary, settings, {**description, "training": config.model_dump(), **cost}
        )
        table = call(classifier.merge(), store, called, run)
        tested = table[table["part"] == "test"]
        scores = metrics.score(tested["label"].to_numpy(), tested["predicted"].to_numpy())
        words = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        logger.info("%s, seed %d, fold %s: %s", variant, seed, fold, words)
        write_table(temporary / "predictions.tsv", table)
        write_records(temporary / "metrics.jsonl", history)
    checkpoint.remove()


def call(
    classifier: Classifier,
    store: TokenStore,
    called: pd.DataFrame,
    run: Mapping[str, Any],
) -> pd.DataFrame:
    """Predict cells: :func:`scdyn.tasks.evaluation.calibrated_predictions`, and familiarity."""
    if classifier.familiar is None:
        raise ValueError("the classifier is not settled")
    p, energies = run_classifier(classifier, store, store.find_rows(called["cell"]))
    table = evaluation.calibrated_predictions(
        called, run, classifier.classes, p, classifier.temperature
    )
    familiar = familiarity(classifier.familiar, energies)
    table.insert(list(table).index("confidence_raw") + 1, "familiarity", familiar)
    return table
