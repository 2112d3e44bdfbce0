"""Masked pretraining: hide genes, predict their bins, and say what a gene alone would predict."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from scdyn import __version__
from scdyn.files import atomic, sha256, write_json
from scdyn.log import logger
from scdyn.model import ModelConfig, ScDynOmics, mask_genes
from scdyn.tokens import TokenStore
from scdyn.training import (
    Checkpoint,
    TrainingConfig,
    choose_device,
    step_seed,
    to_device,
    train,
)


def masked_losses(
    model: ScDynOmics, rna: Tensor, promoter: Tensor, share: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the bins of hidden genes.

    Parameters
    ----------
    rna, promoter
        (B, G) uint8 bins on the model's device.
    share
        Share of the non-zero genes to hide.
    seed
        Of the mask.

    Returns
    -------
    tuple of Tensor
        (hidden genes,) losses in nats of the RNA bin and of the promoter bin.
    """
    generator = torch.Generator(rna.device).manual_seed(seed)
    masked_rna, masked_promoter, genes, hidden = mask_genes(
        rna, promoter, share, model.config.mask_id, generator
    )
    logits = model.decode(model(masked_rna, masked_promoter, genes)[hidden])
    return tuple(
        functional.cross_entropy(predicted, bins.gather(1, genes)[hidden].long(), reduction="none")
        for predicted, bins in zip(logits, (rna, promoter), strict=True)
    )


def gene_frequencies(
    bins: sparse.csr_matrix, expressed: sparse.csr_matrix, n_bins: int
) -> np.ndarray:
    """How often each gene has each bin, in cells where either modality saw it.

    Parameters
    ----------
    bins
        (cells, genes) of one modality.
    expressed
        (cells, genes) boolean: either modality is non-zero.
    n_bins
        Highest bin.

    Returns
    -------
    ndarray, (genes, n_bins + 1)
        Frequencies, one added to each count so that none is zero.
    """
    counts = np.ones((bins.shape[1], n_bins + 1))
    np.add.at(counts, (bins.indices, bins.data), 1)
    counts[:, 0] += expressed.getnnz(0) - bins.getnnz(0)
    return counts / counts.sum(1, keepdims=True)


def mode_predictor(frequencies: np.ndarray) -> np.ndarray:
    """Predict each gene's commonest bin with its frequency, and all other bins alike.

    It is the best predictor that knows no more than the gene's mode and how often it is right.
    """
    mode = frequencies.argmax(1)
    right = frequencies.max(1, keepdims=True)
    predicted = np.repeat((1 - right) / (frequencies.shape[1] - 1), frequencies.shape[1], axis=1)
    predicted[np.arange(len(mode)), mode] = right[:, 0]
    return predicted


class MaskedPretraining:
    """Masked pretraining of a model on some cells, scored on others.

    Parameters
    ----------
    model
        On the device to train on.
    training, validation
        RNA and promoter bins, each (cells, genes).
    mask_share
        Share of the non-zero genes that is hidden.
    seed
        Of the masks of the validation cells, which are the same each time.
    """

    def __init__(
        self,
        model: ScDynOmics,
        training: tuple[sparse.csr_matrix, sparse.csr_matrix],
        validation: tuple[sparse.csr_matrix, sparse.csr_matrix],
        mask_share: float,
        seed: int,
    ) -> None:
        self.model = model
        self.training = training
        self.validation = validation
        self.mask_share = mask_share
        self.seed = seed
        self.device = next(model.parameters()).device
        expressed = (training[0] > 0) + (training[1] > 0)
        self.frequencies = [
            gene_frequencies(bins, expressed, model.config.n_bins) for bins in training
        ]

    def loss_of(self, rows: np.ndarray, seed: int) -> Tensor:
        """Mean loss of both modalities over the hidden genes of a batch."""
        rna, promoter = (to_device(bins[rows], self.device) for bins in self.training)
        rna_losses, promoter_losses = masked_losses(
            self.model, rna, promoter, self.mask_share, seed
        )
        return (rna_losses.mean() + promoter_losses.mean()) / 2

    @torch.no_grad()
    def evaluate(self, batch_size: int = 64) -> dict[str, float]:
        """Score the validation cells, always with the same masks.

        Returns
        -------
        dict
            ``masked_loss`` (mean of the modalities), ``rna_masked_loss`` and
            ``promoter_masked_loss``, in nats a hidden gene.
        """
        losses: list[list[Tensor]] = [[], []]
        for start in range(0, self.validation[0].shape[0], batch_size):
            rna, promoter = (
                to_device(bins[start : start + batch_size], self.device) for bins in self.validation
            )
            parts = masked_losses(
                self.model, rna, promoter, self.mask_share, step_seed(self.seed, start)
            )
            for collected, part in zip(losses, parts, strict=True):
                collected.append(part)
        means = [torch.cat(collected).mean().item() for collected in losses]
        return {
            "masked_loss": sum(means) / 2,
            "rna_masked_loss": means[0],
            "promoter_masked_loss": means[1],
        }

    def trivial_losses(self) -> dict[str, float]:
        """Score two predictors that know the gene and not the cell, on the validation cells.

        Returns
        -------
        dict
            ``mode_loss`` and ``frequency_loss``: mean over the modalities and all non-zero
            genes of the cross-entropy of :func:`mode_predictor` and of the genes' frequencies.
        """
        expressed = ((self.validation[0] > 0) + (self.validation[1] > 0)).tocoo()
        totals = {"mode_loss": 0.0, "frequency_loss": 0.0}
        for bins, frequencies in zip(self.validation, self.frequencies, strict=True):
            observed = np.asarray(bins[expressed.row, expressed.col]).ravel()
            for name, predicted in [
                ("mode_loss", mode_predictor(frequencies)),
                ("frequency_loss", frequencies),
            ]:
                totals[name] -= float(np.log(predicted[expressed.col, observed]).mean()) / 2
        return totals


def pretrain(
    store: TokenStore,
    rows: np.ndarray,
    regulons: np.ndarray,
    settings: dict[str, Any],
    folder: Path,
    checkpoints: Path,
) -> None:
    """Pretrain a model on some cells of a corpus, as a block of the config says.

    Parameters
    ----------
    store
        Tokens of the corpus.
    rows
        Positions of the cells to use; a seeded share is held out for validation.
    regulons
        (regulons, genes) weights, for ``projection_init: regulon``.
    settings
        One entry of the config's ``models``.
    folder
        Receives ``model.safetensors``, ``config.json``, ``metrics.jsonl`` and ``scores.json``.
    checkpoints
        Where a killed run goes on from; removed when the run is done.
    """
    seed = settings["seed"]
    config = TrainingConfig(seed=seed, **settings["training"])
    architecture = ModelConfig.from_dict(
        {key: settings[key] for key in ("width", "n_layers", "n_heads", "n_latents", "ffn_width")}
        | {"dropout": settings["dropout"]}
        | {key: store.meta[key] for key in ("n_genes", "n_tfs", "n_bins")}
    )
    torch.manual_seed(seed)
    model = ScDynOmics(architecture)
    if settings["projection_init"] == "regulon":
        model.anchor_latents(torch.from_numpy(regulons))
    model.to(choose_device())
    order = np.random.default_rng(seed).permutation(rows)
    n_validation = max(1, round(settings["validation_share"] * len(rows)))
    held_out, learned = np.sort(order[:n_validation]), np.sort(order[n_validation:])
    logger.info(
        "%.2f M parameters; %d cells to learn from, %d to validate on",
        sum(p.numel() for p in model.parameters()) / 1e6,
        len(learned),
        len(held_out),
    )
    task = MaskedPretraining(
        model, store.read(learned), store.read(held_out), settings["mask_share"], seed
    )
    identity = {
        "model": architecture.to_dict(),
        "training": asdict(config),
        "tokens": store.meta,
        "settings": settings,
    }
    checkpoint = Checkpoint(checkpoints, identity)
    history = train(model, task.loss_of, len(learned), config, task.evaluate, checkpoint)
    scores = {**task.evaluate(), **task.trivial_losses()}
    logger.info("held-out cells: %s", "  ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    with atomic(folder / "metrics.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(record) + "\n" for record in history))
    write_json(folder / "scores.json", scores)
    description = {
        "training": asdict(config),
        "settings": settings,
        "tokens": store.meta,
        "versions": {"torch": torch.__version__, "scdyn": __version__},
    }
    with atomic(folder / "model.safetensors") as temporary:
        save_file({name: p.detach().cpu() for name, p in model.state_dict().items()}, temporary)
    weights = sha256(folder / "model.safetensors")
    content = {"model": architecture.to_dict(), "model_sha256": weights, **description}
    write_json(folder / "config.json", content)
    checkpoint.remove()
