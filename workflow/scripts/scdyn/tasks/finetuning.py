"""Fine-tuning of a pretrained model: one run per variant, seed and fold."""

from __future__ import annotations

import math
import os
import resource
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from scdyn.data.loader import Loader, Store
from scdyn.data.tokens import TokenStore
from scdyn.errors import InputError
from scdyn.io.artefacts import write_parquet
from scdyn.io.files import atomic, sha256
from scdyn.log import logger
from scdyn.model.adapters import Encoder, adapt, reinitialise
from scdyn.model.classifier import Classifier, make_head, run_classifier, run_head
from scdyn.model.pretrained import load_model
from scdyn.model.transformer import ScDynOmics
from scdyn.settings import FineTuningSettings, VariantSettings, find_method
from scdyn.tasks import metrics
from scdyn.tasks.encoding import EncodedCells, encode, encode_cells, is_encoded_once
from scdyn.tasks.ensemble import VALIDATION
from scdyn.tasks.familiarity import fit_familiarity
from scdyn.tasks.markers import choose_markers, read_markers
from scdyn.tasks.predictions import insert_familiarity, tabulate_calibrated_predictions
from scdyn.tasks.splits import require_other_classes, split_cells
from scdyn.tasks.weights import weigh_classes
from scdyn.training.checkpoint import Checkpoint
from scdyn.training.devices import choose_device
from scdyn.training.loop import Loading, Part, Training, TrainingConfig
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
    features: np.ndarray | None = None,
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
        Adapter, modalities, the head, its marker genes, and weights of classes.
    config
        See :class:`~scdyn.training.loop.TrainingConfig`.
    checkpoint
        Checkpoint to resume from.
    features
        (cells, views, F) of the training cells, by :func:`scdyn.tasks.encoding.encode`, if the
        encoder is not trained; they are computed if None.

    Returns
    -------
    classifier : Classifier
        In evaluation mode.
    history : list of dict
        As :meth:`scdyn.training.loop.Training.run` returns it.
    """
    device = next(model.parameters()).device
    classes, targets = np.unique(labels, return_inverse=True)
    markers = None
    if isinstance(model, ScDynOmics):
        markers = choose_markers(
            model, store, rows, targets, settings.n_markers, settings.modalities
        )
    torch.manual_seed(config.seed)
    encoder = adapt(model, settings.trained, settings.rank)
    head = make_head(model.config, len(classes), settings, markers)
    classifier = Classifier(encoder, head, classes.tolist(), settings.modalities).to(device)
    weights = torch.tensor(
        weigh_classes(targets, settings.class_weights), dtype=torch.float32, device=device
    )
    module: nn.Module = classifier
    objective: Classification
    n_cells = len(rows)
    if is_encoded_once(model, settings):
        if features is None:
            features = encode(model, store, rows, settings)
        genes = read_markers(classifier.encoder, store, rows, head.markers, settings.modalities)
        # All cells of a step at once: they are small.
        batch_size = min(config.batch_size, len(rows))
        config = config.model_copy(update={"batch_size": batch_size, "micro_batch": batch_size})
        places = repeat_cells(len(rows), config, settings.head_steps)
        n_cells = len(places)
        module = head
        objective = FeatureClassification(
            classifier, torch.from_numpy(targets[places]).to(device), weights, settings.penalty,
            torch.from_numpy(features), torch.from_numpy(genes), places,
        )  # fmt: skip
    else:
        objective = CountClassification(
            classifier, torch.from_numpy(targets).to(device), weights, settings.penalty,
            store, rows, settings.thinning,
        )  # fmt: skip
    run = Training(module, objective, n_cells, config, checkpoint=checkpoint)
    history = run.run()
    classifier.eval()
    return classifier, history


def require_modality(store: TokenStore, training: pd.DataFrame, modalities: str) -> None:
    """Refuse to train by promoters alone on cells without them."""
    if modalities != "promoter":
        return
    measured = store.promoter_measured(store.find_rows(training["cell"]))
    if not measured.all():
        raise InputError(
            "PROMOTERS",
            f"modalities: promoter, but {(~measured).sum()} of {len(measured)} training cells have "
            "no promoter counts; select others by train, or leave this model out.",
        )


def repeat_cells(n_cells: int, config: TrainingConfig, n_steps: int) -> np.ndarray:
    """List the cells of an epoch: all, or, if they are too few for ``n_steps``, repeated.

    Parameters
    ----------
    n_cells
        Number of training cells.
    config
        Its batches have at most as many cells.
    n_steps
        Fewest steps of all epochs.
    """
    n_needed = math.ceil(n_steps / config.epochs) * config.batch_size
    shuffled = np.random.default_rng(config.seed).permutation(n_cells)
    return np.arange(n_cells) if n_cells >= n_needed else np.resize(shuffled, n_needed)


def append_markers(
    features: np.ndarray, classifier: Classifier, store: Store, rows: np.ndarray
) -> np.ndarray:
    """Append marker genes, of all counts, to the features of cells.

    Parameters
    ----------
    features
        (cells, F).
    classifier
        With an encoder that is not trained.
    store, rows
        The cells.
    """
    markers = read_markers(
        classifier.encoder, store, rows, classifier.head.markers, classifier.modalities
    )
    return np.concatenate([features, markers], 1)


@dataclass(frozen=True)
class Classification(ABC):
    """Weighted cross-entropy of the classes of cells, and a penalty of the head's weights.

    Attributes
    ----------
    classifier
        The model.
    targets, weights
        (cells,) class of the training cells and (classes,) weight.
    penalty
        Half the weight of the sum of the head's squared weights.
    """

    classifier: Classifier
    targets: Tensor
    weights: Tensor
    penalty: float
    group_size: ClassVar[int] = 1

    @property
    @abstractmethod
    def depths(self) -> np.ndarray:
        """Total counts of the training cells."""

    @abstractmethod
    def load(self, parts: list[np.ndarray]) -> Loading:
        """Read the training cells of each part."""

    @abstractmethod
    def prepare(self, part: Part, *cells: Tensor) -> tuple[Tensor, ...]:
        """Prepare the cells of a part."""

    @abstractmethod
    def compute_logits(self, cells: tuple[Tensor, ...]) -> Tensor:
        """Compute the logits of cells: (B, classes)."""

    def weigh(self, part: Part, cells: tuple[Tensor, ...]) -> Tensor:
        """Sum the weights of a part's cells: (1,)."""
        return self.weights[self.targets[part.positions]].sum()[None]

    def compute_loss(self, part: Part, cells: tuple[Tensor, ...], totals: Tensor) -> Tensor:
        """Compute a part's share of the loss."""
        losses = functional.cross_entropy(
            self.compute_logits(cells), self.targets[part.positions], self.weights, reduction="sum"
        )
        squares = [p.square().sum() for p in self.classifier.head.parameters() if p.ndim > 1]
        penalty = self.penalty / 2 * torch.stack(squares).sum()
        return (losses + self.weigh(part, cells)[0] * penalty) / totals[0]


@dataclass(frozen=True)
class CountClassification(Classification):
    """Classification of cells by their counts, of which each step reads a new random share.

    Attributes
    ----------
    store, rows
        The training cells.
    thinning
        Lowest share of a cell's counts that is read.
    """

    store: Store
    rows: np.ndarray
    thinning: float

    @property
    def depths(self) -> np.ndarray:
        """Total counts of the training cells."""
        return self.store.totals(self.rows).sum(0)

    def load(self, parts: list[np.ndarray]) -> Loader:
        """Return a loader of the cells of each part."""
        return Loader(self.store, [self.rows[part] for part in parts], self.weights.device)

    def prepare(self, part: Part, *cells: Tensor) -> tuple[Tensor, ...]:
        """Thin the counts of a part's cells."""
        rna, promoter = cells
        if self.thinning == 1:
            return rna, promoter
        return thin_cells(rna, promoter, part.seed_cells(), (self.thinning, 1.0))

    def compute_logits(self, cells: tuple[Tensor, ...]) -> Tensor:
        """Compute the logits of cells from their counts."""
        logits: Tensor = self.classifier(*cells)
        return logits


@dataclass(frozen=True)
class FeatureClassification(Classification):
    """Classification of cells that were encoded once, by one of their views in each step.

    Attributes
    ----------
    features, markers
        (cells, views, F) of the training cells, and (cells, M) of their marker genes.
    places
        Index of the training cell at each position of an epoch.
    """

    features: Tensor
    markers: Tensor
    places: np.ndarray

    @property
    def depths(self) -> np.ndarray:
        """Zeros, because these cells need no order."""
        return np.zeros(len(self.places))

    def load(self, parts: list[np.ndarray]) -> LoadedBatches:
        """Return the features and marker genes of the cells of each part."""
        cells = [self.places[part] for part in parts]
        return LoadedBatches((self.features, self.markers), cells, self.weights.device)

    def prepare(self, part: Part, *cells: Tensor) -> tuple[Tensor, ...]:
        """Draw a view of each cell, and append its marker genes, which are of all counts."""
        features, markers = cells
        n_cells, n_views, _ = features.shape
        drawn = np.random.default_rng(part.seed).integers(n_views, size=part.n_in_step)
        view = features[np.arange(n_cells), part.take_from(drawn)]
        return (torch.cat([view, markers], 1),)

    def compute_logits(self, cells: tuple[Tensor, ...]) -> Tensor:
        """Compute the logits of cells from their features."""
        logits: Tensor = self.classifier.head.compute_logits(*cells)
        return logits


@dataclass(frozen=True)
class LoadedBatches:
    """Batches of cells in memory, for which a loop does not wait."""

    values: tuple[Tensor, ...]
    parts: list[np.ndarray]
    device: torch.device
    waited_seconds: float = 0.0

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """Yield the values of each part, on the device."""
        for part in self.parts:
            yield tuple(values[part].to(self.device) for values in self.values)


def configure_training(
    model: Encoder, settings: FineTuningSettings, seed: int, share: float = 1.0
) -> TrainingConfig:
    """Return the training settings of a run, with a share of the labels."""
    epochs = settings.head_epochs
    if not is_encoded_once(model, settings):
        epochs = scale_epochs(settings.training.epochs, share)
    changes = {"epochs": epochs, "seed": seed}
    # One that starts at random has as far to go as the head.
    rate = settings.encoder_rate if settings.pretrained else 1.0
    return TrainingConfig(**settings.training.model_dump() | changes, encoder_rate=rate)


def scale_epochs(epochs: int, share: float) -> int:
    """Scale the number of epochs by the inverse square root of the share of labels.

    The same number of epochs would be too few steps for few labels; the same number of steps would
    cost as much as all labels.
    """
    return round(epochs * share**-0.5)


# Probabilities at temperature 1, and energies, of cells by their names.
Predict: TypeAlias = Callable[[pd.Series], tuple[np.ndarray, np.ndarray]]


def make_predict(
    classifier: Classifier, store: TokenStore, encoded: EncodedCells | None
) -> Predict:
    """Return a function that predicts cells of the store, of which some are encoded."""

    def predict(cells: pd.Series) -> tuple[np.ndarray, np.ndarray]:
        rows = store.find_rows(cells)
        if encoded is None:
            return run_classifier(classifier, store, rows)
        inputs = append_markers(encoded.read(cells, 0), classifier, store, rows)
        return run_head(classifier.head, inputs)

    return predict


def calibrate(classifier: Classifier, predict: Predict, validation: pd.DataFrame) -> pd.DataFrame:
    """Fit the temperature and the familiarity to validation cells, in place.

    Parameters
    ----------
    classifier
        Trained.
    predict
        Its predictions.
    validation
        ``cell`` and ``label``, as :func:`scdyn.tasks.splits.split_cells` returns it.

    Returns
    -------
    DataFrame
        ``cell``, ``label``, ``energy`` and ``p_<class>`` (calibrated) of the validation cells, by
        which :func:`scdyn.tasks.ensemble.calibrate_ensemble` calibrates the mean of several runs.
    """
    p, energies = predict(validation["cell"])
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
    encoded: EncodedCells | None = None,
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
    encoded
        All cells of the split, if the encoder is not trained; they are encoded if None.
    """
    model = load_model(model_folder, store.meta)
    if not is_encoded_once(model, settings):
        encoded = None
    elif encoded is None:
        encoded = encode_cells(store, splits["cell"], settings, model_folder)
    started = time.perf_counter()
    # A head is small.
    device = choose_device() if encoded is None else torch.device("cpu")
    if not settings.pretrained:
        model = reinitialise(model, seed)
    training, validation, predicted = split_cells(
        splits, fold, settings.labels, settings.without, seed
    )
    require_other_classes(training, settings.without)
    require_modality(store, training, settings.modalities)
    share = 1.0
    if settings.labels < 1:  # at least two cells per class are kept
        share = len(training) / len(split_cells(splits, fold, without=settings.without)[0])
    config = configure_training(model, settings, seed, share)
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
    features = None if encoded is None else encoded.read(training["cell"])
    classifier, history = fit_classifier(
        model.to(device), store, rows, labels, settings, config, checkpoint, features
    )
    n_trained = sum(p.numel() for p in classifier.parameters() if p.requires_grad)
    predict = make_predict(classifier, store, encoded)
    validated = calibrate(classifier, predict, validation)
    seconds = time.perf_counter() - started
    if encoded is not None:
        # As if they had been encoded for this run alone.
        seconds += encoded.seconds * (len(training) + len(validation))
    with atomic(folder) as temporary:
        temporary.mkdir()
        cost = {
            "n_trained_parameters": n_trained,
            "n_training_cells": len(training),
            "seconds": round(seconds, 2),
            "peak_memory_gib": round(peak_memory_gib(device), 3),
        }
        classifier.save(
            temporary, settings, {**description, "training": config.model_dump(), **cost}
        )
        classifier.merge()
        table = predict_cells(classifier, predict, predicted, run)
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
    predict: Predict,
    cells: pd.DataFrame,
    run: Mapping[str, Any],
) -> pd.DataFrame:
    """Predict cells: calibrated predictions, with ``energy`` and ``familiarity``."""
    if classifier.familiar is None:
        raise ValueError("the classifier is not calibrated")
    p, energies = predict(cells["cell"])
    table = tabulate_calibrated_predictions(
        cells, run, classifier.classes, p, classifier.temperature
    )
    insert_familiarity(table, classifier.familiar, energies)
    return table
