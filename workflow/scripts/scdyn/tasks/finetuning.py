"""Fine-tuning of a pretrained model: one run per variant, seed and fold."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from scdyn.data.loader import Loader, Store
from scdyn.data.tokens import TokenStore
from scdyn.io.artefacts import write_parquet
from scdyn.io.files import atomic, sha256
from scdyn.log import logger
from scdyn.model.adapters import Encoder, adapt, reinitialise
from scdyn.model.classifier import Classifier, Head, run_classifier
from scdyn.model.pretrained import load_model
from scdyn.model.transformer import ScDynOmics
from scdyn.settings import FineTuningSettings, VariantSettings, find_method
from scdyn.tasks import metrics
from scdyn.tasks.ensemble import VALIDATION
from scdyn.tasks.familiarity import fit_familiarity
from scdyn.tasks.predictions import insert_familiarity, tabulate_calibrated_predictions
from scdyn.tasks.splits import split_cells
from scdyn.tasks.weights import weigh_classes
from scdyn.training.checkpoint import Checkpoint
from scdyn.training.devices import choose_device
from scdyn.training.loop import Part, Training, TrainingConfig
from scdyn.training.objectives import thin_cells
from scdyn.training.progress import write_records


def fit_classifier(
    model: Encoder,
    store: Store,
    rows: np.ndarray,
    labels: np.ndarray,
    settings: FineTuningSettings,
    config: TrainingConfig,
    checkpoint: Checkpoint | None = None,
) -> tuple[Classifier, list[dict[str, float]]]:
    """Fine-tune a model to predict labels.

    Parameters
    ----------
    model
        On the device to train on; changed in place.
    store, rows
        The training cells.
    labels
        (cells,) class names.
    settings
        Adapter, modalities, sizes of the head, and weights of classes.
    config
        See :class:`~scdyn.training.loop.TrainingConfig`.
    checkpoint
        Checkpoint to resume from.

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
    head = Head(model.config, len(classes), settings)
    if isinstance(model, ScDynOmics) and settings.n_pools == model.config.n_pools:
        head.pool.load_state_dict(model.bottleneck.pool.state_dict())
    classifier = Classifier(encoder, head, classes.tolist(), settings.modalities).to(device)
    weights = torch.tensor(
        weigh_classes(targets, settings.class_weights), dtype=torch.float32, device=device
    )
    targets = torch.from_numpy(targets).to(device)

    objective = Classification(classifier, store, rows, targets, weights, settings.thinning)
    run = Training(classifier, objective, len(rows), config, checkpoint=checkpoint)
    return classifier, run.run()


@dataclass(frozen=True)
class Classification:
    """Weighted cross-entropy of the classes of cells, whose counts are thinned.

    Attributes
    ----------
    classifier, store, rows
        The model, and the training cells.
    targets, weights
        (cells,) class and (classes,) weight.
    thinning
        Lowest share of a cell's counts that is read; the share is drawn anew in each step.
    """

    classifier: Classifier
    store: Store
    rows: np.ndarray
    targets: Tensor
    weights: Tensor
    thinning: float
    group_size: int = 1

    @property
    def depths(self) -> np.ndarray:
        """Total counts of the training cells."""
        return self.store.totals(self.rows).sum(0)

    def load(self, parts: list[np.ndarray]) -> Loader:
        """Return a loader of the cells of each part."""
        return Loader(self.store, [self.rows[part] for part in parts], self.weights.device)

    def prepare(self, part: Part, rna: Tensor, promoter: Tensor) -> tuple[Tensor, Tensor]:
        """Thin the counts of a part's cells."""
        if self.thinning == 1:
            return rna, promoter
        return thin_cells(rna, promoter, part.seed_cells(), (self.thinning, 1.0))

    def weigh(self, part: Part, cells: tuple[Tensor, Tensor]) -> Tensor:
        """Sum the weights of a part's cells: (1,)."""
        return self.weights[self.targets[part.positions]].sum()[None]

    def compute_loss(self, part: Part, cells: tuple[Tensor, Tensor], totals: Tensor) -> Tensor:
        """Compute a part's share of the loss."""
        losses = functional.cross_entropy(
            self.classifier(*cells), self.targets[part.positions], self.weights, reduction="sum"
        )
        return losses / totals[0]


def scale_epochs(epochs: int, share: float) -> int:
    """Scale the number of epochs by the inverse square root of the share of labels.

    The same number of epochs would be too few steps for few labels; the same number of steps would
    cost as much as all labels.
    """
    return round(epochs * share**-0.5)


def calibrate(
    classifier: Classifier,
    store: TokenStore,
    validation: pd.DataFrame,
) -> pd.DataFrame:
    """Fit the temperature and the familiarity to validation cells, in place.

    Parameters
    ----------
    classifier
        Trained.
    store
        Tokens.
    validation
        ``cell`` and ``label``, as :func:`scdyn.tasks.splits.split_cells` returns it.

    Returns
    -------
    DataFrame
        ``cell``, ``label``, ``energy`` and ``p_<class>`` (calibrated) of the validation cells, by
        which :func:`scdyn.tasks.ensemble.calibrate_ensemble` calibrates the mean of several runs.
    """
    p, energies = run_classifier(classifier, store, store.find_rows(validation["cell"]))
    labels = validation["label"].to_numpy()
    classifier.temperature = metrics.fit_temperature(labels, classifier.classes, p)
    classifier.familiar = fit_familiarity(energies)
    calibrated = metrics.apply_temperature(p, classifier.temperature)
    columns = {f"p_{name}": calibrated[:, j] for j, name in enumerate(classifier.classes)}
    numbers = pd.DataFrame({"energy": energies, **columns}, dtype=np.float32)
    names = validation[["cell", "label"]].reset_index(drop=True).astype({"label": "category"})
    return pd.concat([names, numbers], axis=1)


def peak_memory_gib(device: torch.device) -> float:
    """Return the peak memory of the process or, on a GPU, of its tensors."""
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
    """Fine-tune one variant on all other folds and predict the cells of this fold.

    Parameters
    ----------
    store
        Tokens of the corpus.
    splits
        As :func:`scdyn.tasks.splits.read_splits` returns them.
    variant, seed, fold
        The variant's name, the seed of initialisation and order, the fold of the test set.
    settings
        Of the variant.
    model_folder
        The pretrained model.
    folder
        Receives the adapter, the head, ``task.json``, ``validation.parquet``,
        ``predictions.parquet`` and ``metrics.jsonl``, atomically.
    checkpoints
        Folder of the checkpoint from which a killed run resumes; removed at the end.
    """
    started = time.perf_counter()
    epochs = scale_epochs(settings.training.epochs, settings.labels)
    config = TrainingConfig(
        **settings.training.model_dump() | {"epochs": epochs, "seed": seed},
        encoder_rate=settings.encoder_rate,
    )
    device = choose_device()
    model = load_model(model_folder, store.meta)
    if not settings.pretrained:
        model = reinitialise(model, seed)
    training, validation, predicted = split_cells(
        splits, fold, settings.labels, settings.without, seed
    )
    run: dict[str, Any] = {"method": find_method(variant)}
    run |= {"variant": variant, "seed": seed, "fold": fold}
    description = {
        **run,
        "model_sha256": sha256(model_folder / "model.safetensors"),
        # A relative path, so that the results folder can be moved as a whole.
        "model_folder": os.path.relpath(model_folder, folder),
    }
    examples = {"cells": list(training["cell"]), "labels": list(training["label"])}
    identity = {
        **settings.without_hardware(),
        **description,
        "training": config.without_hardware(),
        **examples,
    }
    checkpoint = Checkpoint(checkpoints, identity)
    rows, labels = store.find_rows(training["cell"]), training["label"].to_numpy()
    classifier, history = fit_classifier(
        model.to(device), store, rows, labels, settings, config, checkpoint
    )
    n_trained = sum(p.numel() for p in classifier.parameters() if p.requires_grad)
    validated = calibrate(classifier, store, validation)
    with atomic(folder) as temporary:
        temporary.mkdir()
        cost = {
            "n_trained_parameters": n_trained,
            "n_training_cells": len(training),
            "seconds": round(time.perf_counter() - started, 2),
            "peak_memory_gib": round(peak_memory_gib(device), 3),
        }
        classifier.save(
            temporary, settings, {**description, "training": config.model_dump(), **cost}
        )
        table = predict_cells(classifier.merge(), store, predicted, run)
        test = table[table["part"] == "test"]
        scores = metrics.score(test["label"].to_numpy(), test["predicted"].to_numpy())
        words = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        logger.info("%s, seed %d, fold %s: %s", variant, seed, fold, words)
        write_parquet(temporary / VALIDATION, validated)
        write_parquet(temporary / "predictions.parquet", table)
        write_records(temporary / "metrics.jsonl", history)
    checkpoint.remove()


def predict_cells(
    classifier: Classifier,
    store: TokenStore,
    cells: pd.DataFrame,
    run: Mapping[str, Any],
) -> pd.DataFrame:
    """Predict cells: calibrated predictions, with ``energy`` and ``familiarity``."""
    if classifier.familiar is None:
        raise ValueError("the classifier is not calibrated")
    p, energies = run_classifier(classifier, store, store.find_rows(cells["cell"]))
    table = tabulate_calibrated_predictions(
        cells, run, classifier.classes, p, classifier.temperature
    )
    insert_familiarity(table, classifier.familiar, energies)
    return table
