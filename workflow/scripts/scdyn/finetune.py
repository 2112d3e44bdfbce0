"""Adapting a pretrained model to a question: LoRA modules by peft and a head of our own."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from scdyn import evaluation
from scdyn.checkpoint import Checkpoint
from scdyn.errors import InputError
from scdyn.files import atomic, sha256, write_json, write_table
from scdyn.loader import Loader, MemoryStore, batches, expressed_genes, is_measured
from scdyn.log import logger
from scdyn.model import ModelConfig, ScDynOmics
from scdyn.progress import write_records
from scdyn.tokens import NOT_MEASURED, TokenStore
from scdyn.training import Training, TrainingConfig, choose_device

# Attention and feed-forward of every layer, as in the paper.
ADAPTED = ["query", "key_value", "output", "ffn_in", "ffn_out"]


@dataclass(frozen=True)
class HeadConfig:
    """The classifier on top.

    Attributes
    ----------
    n_pools
        Learned weighted sums over a cell's expressed genes.
    hidden
        Width of the MLP's hidden layer.
    dropout
        Before each of its layers.
    """

    n_pools: int = 64
    hidden: int = 128
    dropout: float = 0.2


class Head(nn.Module):
    """Pooled gene representations to class logits.

    The pools are weighted sums over genes whose weights are learned, so that a head can
    listen to the genes its question turns on. They see a cell's expressed genes alone, and
    each relative to what it is in the cell without counts: the many silent genes, nearly the
    same in every cell, would drown the few that differ (ours; the paper pools all).
    """

    def __init__(self, n_genes: int, width: int, n_classes: int, config: HeadConfig) -> None:
        super().__init__()
        self.pool = nn.Linear(n_genes, config.n_pools, bias=False)
        self.norm = nn.LayerNorm(config.n_pools * width)
        self.hidden = nn.Linear(config.n_pools * width, config.hidden)
        self.output = nn.Linear(config.hidden, n_classes)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.pool.weight, std=n_genes**-0.5)

    def forward(self, representations: Tensor, zero_cell: Tensor, expressed: Tensor) -> Tensor:
        """Map cells to logits.

        Parameters
        ----------
        representations
            (B, G, D) of the cells' genes.
        zero_cell
            (1, G, D), or one a cell, of the cell in which every value is zero.
        expressed
            (B, G) boolean: which genes are pooled.

        Returns
        -------
        Tensor
            (B, classes).
        """
        changes = (representations - zero_cell) * expressed.unsqueeze(-1)
        pooled = self.pool(changes.transpose(1, 2)).flatten(1)
        hidden = functional.gelu(self.hidden(self.dropout(self.norm(pooled))))
        return self.output(self.dropout(hidden))


def load_model(folder: str | Path, tokens: dict[str, Any] | None = None) -> ScDynOmics:
    """Load a pretrained model from ``model.safetensors`` and ``config.json``, on the CPU.

    Parameters
    ----------
    folder
        A model's folder.
    tokens
        ``meta`` of the tokens that it is to read.

    Raises
    ------
    InputError
        If a file is missing, the weights are not those of the config, or the tokens stand on
        another vocabulary.
    """
    folder = Path(folder)
    try:
        content = json.loads((folder / "config.json").read_text())
        config = ModelConfig.from_dict(content["model"])
        weights = load_file(folder / "model.safetensors")
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{folder}: holds no model that can be read ({error}).") from error
    if tokens and tokens["vocabulary_sha256"] != content["tokens"]["vocabulary_sha256"]:
        raise InputError(
            f"{folder}: was trained on another vocabulary than these tokens'; pretrain anew."
        )
    model = ScDynOmics(config)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{folder}: weights and config.json do not fit ({error}).") from error
    return model.eval()


def adapt(model: ScDynOmics, rank: int, dropout: float = 0.0) -> PeftModel:
    """Wrap a model with LoRA modules (Hu et al. 2021); its own parameters are frozen.

    The modules start at zero, so the wrapped model equals the given one.

    Parameters
    ----------
    model
        Changed in place by peft.
    rank
        Rank of each module; they are scaled by two (alpha = 2 x rank).
    dropout
        Before each module.
    """
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=dropout, target_modules=ADAPTED)
    return get_peft_model(model, config)


def cells_without_counts(n_genes: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Bins (2, G) of RNA and of promoters, all zero; in the second cell promoters not measured."""
    rna, promoter = torch.zeros(2, 2, n_genes, dtype=torch.uint8, device=device)
    promoter[1] = NOT_MEASURED
    return rna, promoter


def of_their_kind(zero_cells: Tensor, promoter_measured: Tensor) -> Tensor:
    """Choose for each cell (B,) which of the two :func:`cells_without_counts` it is held against.

    Parameters
    ----------
    zero_cells
        (2, ...) something of these two.
    promoter_measured
        (B,) boolean.

    Returns
    -------
    Tensor
        (1, ...) if it is the same for all cells, (B, ...) else.
    """
    if promoter_measured.all():
        return zero_cells[:1]
    return zero_cells[(~promoter_measured).long()]


class Classifier(nn.Module):
    """An adapted encoder with its head and the names of its classes."""

    def __init__(self, encoder: PeftModel | ScDynOmics, head: Head, classes: list[str]) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.classes = classes

    def forward(self, rna: Tensor, promoter: Tensor) -> Tensor:
        """Map bins (B, G) each to logits (B, classes)."""
        measured = is_measured(promoter)
        # The cells without counts ride along as the first of the batch.
        n_zero = 1 if measured.all() else 2
        zeros = cells_without_counts(rna.shape[1], rna.device)
        bins = (
            torch.cat([zero[:n_zero], part])
            for zero, part in zip(zeros, (rna, promoter), strict=True)
        )
        representations = self.encoder(*bins)
        zero_cell = of_their_kind(representations[:n_zero], measured)
        return self.head(representations[n_zero:], zero_cell, expressed_genes(rna, promoter))

    def merge(self) -> Classifier:
        """Add the adapters to the weights: the same calls, at the speed of the plain model.

        In place; what is merged can be neither trained on nor saved.
        """
        self.encoder = self.encoder.merge_and_unload()
        return self

    def save(self, folder: Path, description: dict[str, Any]) -> None:
        """Write peft's files, ``head.safetensors`` and ``task.json`` into an existing folder."""
        self.encoder.save_pretrained(str(folder))
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
        save_file(
            {n: p.detach().cpu() for n, p in self.head.state_dict().items()},
            folder / "head.safetensors",
        )
        write_json(folder / "task.json", {"classes": self.classes, **description})


def load_classifier(folder: str | Path, model_folder: str | Path) -> Classifier:
    """Load what :meth:`Classifier.save` wrote, merged into its pretrained model, on the CPU.

    Raises
    ------
    InputError
        If the model is not the one the adapter was trained on.
    """
    folder, model_folder = Path(folder), Path(model_folder)
    task = json.loads((folder / "task.json").read_text())
    if sha256(model_folder / "model.safetensors") != task["model_sha256"]:
        raise InputError(
            f"{folder}: was trained on another model than {model_folder}; fine-tune anew."
        )
    model = load_model(model_folder)
    head = Head(
        model.config.n_genes, model.config.width, len(task["classes"]), HeadConfig(**task["head"])
    )
    head.load_state_dict(load_file(folder / "head.safetensors"))
    encoder = PeftModel.from_pretrained(model, str(folder))
    return Classifier(encoder, head, task["classes"]).merge().eval()


def fit_classifier(
    model: ScDynOmics,
    store: TokenStore | MemoryStore,
    rows: np.ndarray,
    labels: np.ndarray,
    rank: int,
    head_config: HeadConfig,
    config: TrainingConfig,
    checkpoint: Checkpoint | None = None,
) -> tuple[Classifier, list[dict[str, float]]]:
    """Fine-tune a model to call labels.

    Classes weigh alike in the loss to the power of a half: the rare ones are heard
    without the common ones being drowned.

    Parameters
    ----------
    model
        Pretrained, on the device to train on; wrapped in place.
    store, rows
        The training cells.
    labels
        (cells,) class names.
    rank, head_config, config
        See :func:`adapt`, :class:`HeadConfig`, :class:`~scdyn.training.TrainingConfig`.
    checkpoint
        Where to go on from.

    Returns
    -------
    classifier : Classifier
        In evaluation mode.
    history : list of dict
        As :meth:`scdyn.training.Training.run` returns it.
    """
    device = next(model.parameters()).device
    classes, targets = np.unique(labels, return_inverse=True)
    torch.manual_seed(config.seed)
    encoder = adapt(model, rank)
    head = Head(model.config.n_genes, model.config.width, len(classes), head_config)
    classifier = Classifier(encoder, head, classes.tolist()).to(device)
    weights = np.bincount(targets) ** -0.5
    weights = torch.tensor(weights / weights[targets].mean(), dtype=torch.float32, device=device)
    targets = torch.from_numpy(targets).to(device)

    def loss_of(positions: np.ndarray, rna: Tensor, promoter: Tensor, _: int) -> Tensor:
        logits = classifier(rna, promoter)
        return functional.cross_entropy(logits, targets[positions], weights)

    def load(parts: list[np.ndarray]) -> Loader:
        return Loader(store, [rows[part] for part in parts], device)

    run = Training(classifier, loss_of, load, len(rows), config, checkpoint=checkpoint)
    return classifier, run.run()


@torch.no_grad()
def predict(
    classifier: Classifier,
    store: TokenStore | MemoryStore,
    rows: np.ndarray,
    batch_size: int = 64,
) -> np.ndarray:
    """Class probabilities of cells.

    Parameters
    ----------
    classifier
        In evaluation mode.
    store, rows
        The cells.
    batch_size
        Cells at once.

    Returns
    -------
    ndarray, (cells, classes)
    """
    device = next(classifier.parameters()).device
    parts = [np.zeros((0, len(classifier.classes)))]
    for rna, promoter in Loader(store, batches(rows, batch_size), device):
        logits = classifier(rna.to(device), promoter.to(device))
        parts.append(logits.double().softmax(1).cpu().numpy())
    return np.concatenate(parts)


def finetune_fold(
    store: TokenStore,
    splits: pd.DataFrame,
    fold: str,
    settings: dict[str, Any],
    model_folder: Path,
    folder: Path,
    checkpoints: Path,
) -> None:
    """Fine-tune on the cells of all other folds and call this fold's, as the config says.

    Parameters
    ----------
    store
        Tokens of the corpus.
    splits
        As :func:`scdyn.evaluation.make_splits` made them.
    fold
        The fold that is tested.
    settings
        One entry of the config's ``tasks``.
    model_folder
        The pretrained model.
    folder
        Receives the adapter, the head, ``task.json``, ``predictions.tsv`` and
        ``metrics.jsonl``, all or none.
    checkpoints
        Where a killed run goes on from; removed when the run is done.
    """
    config = TrainingConfig(seed=settings["seed"], **settings["training"])
    head = HeadConfig(settings["n_pools"], settings["hidden"], settings["dropout"])
    model = load_model(model_folder, store.meta).to(choose_device())
    learned, called = evaluation.parts(splits, fold)
    rows = store.rows_of(learned["cell"])
    description = {
        "model_sha256": sha256(model_folder / "model.safetensors"),
        "fold": fold,
        "rank": settings["rank"],
        "head": asdict(head),
        "training": asdict(config),
    }
    checkpoint = Checkpoint(checkpoints, {**description, "cells": list(learned["cell"])})
    labels = learned["label"].to_numpy()
    classifier, history = fit_classifier(
        model, store, rows, labels, settings["rank"], head, config, checkpoint
    )
    n_trained = sum(p.numel() for p in classifier.parameters() if p.requires_grad)
    with atomic(folder) as temporary:
        temporary.mkdir()
        classifier.save(temporary, {**description, "n_trained_parameters": n_trained})
        rows = store.rows_of(called["cell"])
        p = predict(classifier.merge(), store, rows)
        table = evaluation.predictions(called, fold, "scdynomics", classifier.classes, p)
        tested = table[table["part"] == "test"]
        scores = evaluation.score(tested["label"], tested["called"])
        logger.info("fold %s: %s", fold, "  ".join(f"{k} {v:.4f}" for k, v in scores.items()))
        write_table(temporary / "predictions.tsv", table)
        write_records(temporary / "metrics.jsonl", history)
    checkpoint.remove()
