"""Masked pretraining: mask genes and predict their bins."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from scdyn.data.loader import Loader, Store, densify, expressed_genes, is_measured
from scdyn.data.tokens import MODALITIES, NOT_MEASURED, TokenStore
from scdyn.io.artefacts import STAMP, make_stamp
from scdyn.io.files import Json, atomic, sha256, write_json, write_table
from scdyn.log import logger
from scdyn.model.architecture import ModelConfig
from scdyn.model.embedding import Projection, fit_projection
from scdyn.model.transformer import ScDynOmics
from scdyn.settings import PretrainingSettings
from scdyn.training import distributed
from scdyn.training.checkpoint import Checkpoint
from scdyn.training.devices import choose_device
from scdyn.training.loop import Part, Training, TrainingConfig, step_seed
from scdyn.training.predictors import trivial_losses
from scdyn.training.progress import write_records

# Most cells that are held out, of a corpus however large.
MOST_HELD_OUT = 10_000
# Most training cells from which the projection of the embedding is fitted.
MOST_PROJECTED = 4_000
# Held-out cells scored per batch, and held-out cells whose masks have one seed.
SCORED_AT_ONCE = 32
SEEDED_TOGETHER = 32


def count_hidden(expressed: Tensor, share: float) -> Tensor:
    """Count the genes per cell that :func:`mask_genes` masks: expressed (B, G) to (B,)."""
    n_expressed = expressed.sum(1)
    return (n_expressed * share).round().long().clamp(min=1).minimum(n_expressed)


def draw_noise(seed: int, n_cells: int, like: Tensor) -> Tensor:
    """Draw uniform random numbers (cells, G) for the masks of some cells.

    They differ between CPU and GPU.
    """
    generator = torch.Generator(like.device).manual_seed(seed)
    return torch.rand((n_cells, like.shape[1]), generator=generator, device=like.device)


def mask_genes(
    rna: Tensor, promoter: Tensor, share: float, mask_id: int, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mask a share of the non-zero genes per cell, in all measured modalities.

    Parameters
    ----------
    rna, promoter
        (B, G) bins. A gene is non-zero if it has counts in either modality.
    share
        Share of the non-zero genes to mask, rounded to whole genes, at least one per cell with
        counts (the paper: 0.15).
    mask_id
        Id of a masked value.
    noise
        (B, G) uniform random numbers below one, on the device of ``rna``.

    Returns
    -------
    masked_rna, masked_promoter : Tensor
        Bins with the masked values replaced by ``mask_id``.
    genes : Tensor
        (B, Q) positions of the masked genes, where Q is the largest number per cell; cells with
        fewer are filled up with other genes.
    hidden : Tensor
        (B, Q) boolean: which of ``genes`` are masked.
    """
    expressed = expressed_genes(rna, promoter)
    n_hidden = count_hidden(expressed, share)
    # The smallest noise values select a random subset of the non-zero genes.
    genes = noise.masked_fill(~expressed, 2.0).topk(int(n_hidden.max()), largest=False).indices
    hidden = torch.arange(genes.shape[1], device=genes.device) < n_hidden[:, None]
    masked = []
    for bins in (rna, promoter):
        measured = is_measured(bins)[:, None]
        ids = bins.gather(1, genes).masked_fill_(hidden & measured, mask_id)
        masked.append(bins.scatter(1, genes, ids))
    return *masked, genes, hidden


def masked_losses(
    model: ScDynOmics, rna: Tensor, promoter: Tensor, share: float, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the cross-entropy of the bins of masked genes.

    Parameters
    ----------
    rna, promoter
        (B, G) uint8 bins on the model's device.
    share
        Share of the non-zero genes to mask.
    noise
        (B, G), as :func:`draw_noise`; determines the masked genes.

    Returns
    -------
    rna_losses, promoter_losses : Tensor, (masked genes in cells with the modality measured,)
        In nats.
    rna_bins, promoter_bins : Tensor
        The bins that were masked.
    """
    masked_rna, masked_promoter, genes, hidden = mask_genes(
        rna, promoter, share, model.config.mask_id, noise
    )
    logits = model.decode(model(masked_rna, masked_promoter, genes)[hidden])
    losses, bins = [], []
    for predicted, part in zip(logits, (rna, promoter), strict=True):
        observed = part.gather(1, genes)[hidden].long()
        measured = observed != NOT_MEASURED
        bins.append(observed[measured])
        losses.append(functional.cross_entropy(predicted[measured], bins[-1], reduction="none"))
    return *losses, *bins


def full_losses(model: ScDynOmics, rna: Tensor, promoter: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean cross-entropy of the bins of all genes without masking: (B,) per modality.

    NaN in cells in which the modality was not measured.
    """
    logits = model.decode(model(rna, promoter))
    means = []
    for predicted, part in zip(logits, (rna, promoter), strict=True):
        losses = functional.cross_entropy(
            predicted.transpose(1, 2), part.long(), reduction="none", ignore_index=NOT_MEASURED
        )
        means.append(losses.mean(1).masked_fill(~is_measured(part), torch.nan))
    return means[0], means[1]


class MaskedPretraining:
    """Loss of masked pretraining on training cells, and scores of held-out cells.

    Parameters
    ----------
    model
        Model, on its device.
    store
        Bins.
    training_rows, held_out
        Rows of the training cells and of the held-out cells.
    mask_share
        Share of the non-zero genes that is masked.
    seed
        Seed of the masks of the held-out cells, which are the same in each evaluation.
    promoter_dropout
        Share of the training cells, sampled in each step, whose promoters are read as not measured,
        so that the model can be used on cells without promoters.
    """

    def __init__(
        self,
        model: ScDynOmics,
        store: Store,
        training_rows: np.ndarray,
        held_out: np.ndarray,
        mask_share: float,
        seed: int,
        promoter_dropout: float = 0.0,
    ) -> None:
        self.model, self.store = model, store
        self.training_rows, self.held_out = training_rows, held_out
        self.mask_share, self.seed, self.promoter_dropout = mask_share, seed, promoter_dropout
        self.device = next(model.parameters()).device

    def load(self, parts: list[np.ndarray]) -> Loader:
        """Return a loader of the training cells at the positions of each part."""
        return Loader(self.store, [self.training_rows[part] for part in parts], self.device)

    def drop_promoters(self, part: Part, promoter: Tensor) -> Tensor:
        """Set the promoter bins (B, G) of a random share of the cells to "not measured"."""
        if not self.promoter_dropout:
            return promoter
        drawn = part.take_from(np.random.default_rng(part.seed).random(part.n_in_step))
        chosen = torch.from_numpy(drawn < self.promoter_dropout).to(promoter.device)
        return promoter.masked_fill(chosen[:, None], NOT_MEASURED)

    def weigh(self, part: Part, rna: Tensor, promoter: Tensor) -> Tensor:
        """Count the masked genes of a part in RNA and promoters: (2,)."""
        promoter = self.drop_promoters(part, promoter)
        n_hidden = count_hidden(expressed_genes(rna, promoter), self.mask_share)
        return torch.stack([(n_hidden * is_measured(bins)).sum() for bins in (rna, promoter)])

    def compute_loss(self, part: Part, rna: Tensor, promoter: Tensor, totals: Tensor) -> Tensor:
        """Compute a part's share of the loss: mean over modalities of the loss per masked gene.

        Parameters
        ----------
        part, rna, promoter
            Cells and their bins (B, G).
        totals
            (2,) masked genes of the whole step, as :meth:`weigh` counts them. A modality without
            masked genes is left out of the mean.
        """
        promoter = self.drop_promoters(part, promoter)
        noise = part.take_from(draw_noise(part.seed, part.n_in_step, rna))
        losses = masked_losses(self.model, rna, promoter, self.mask_share, noise)[:2]
        sums = torch.stack([of_modality.sum() for of_modality in losses])
        return (sums / totals.clamp(min=1)).sum() / (totals > 0).sum().clamp(min=1)

    def draw_held_out_noise(self, start: int, stop: int, like: Tensor) -> Tensor:
        """Draw the noise for the masks of some held-out cells, independently of batch borders."""
        n_cells, blocks = len(self.held_out), []
        for first in range(start // SEEDED_TOGETHER * SEEDED_TOGETHER, stop, SEEDED_TOGETHER):
            n_drawn = min(SEEDED_TOGETHER, n_cells - first)
            blocks.append(draw_noise(step_seed(self.seed, first), n_drawn, like))
        return torch.cat(blocks)[start % SEEDED_TOGETHER :][: stop - start]

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Score the held-out cells, always with the same masks.

        Returns
        -------
        dict
            Losses in nats per gene: ``masked_loss``, mean over modalities for masked genes;
            ``full_loss``, for all genes without masking; per modality such as
            ``rna_masked_loss``, ``rna_zero_loss`` and ``rna_nonzero_loss`` (masked genes whose
            bin is zero or non-zero), unless it was measured in no cell.
        """
        # Sums and numbers of the losses: (modalities, zero or non-zero bins).
        totals, n_seen = (
            torch.zeros(len(MODALITIES), 2, dtype=torch.float64, device=self.device)
            for _ in range(2)
        )
        full = []
        for start in range(0, len(self.held_out), SCORED_AT_ONCE):
            rows = self.held_out[start : start + SCORED_AT_ONCE]
            rna, promoter = densify(self.store, rows, self.device)
            noise = self.draw_held_out_noise(start, start + len(rows), rna)
            *parts, rna_bins, promoter_bins = masked_losses(
                self.model, rna, promoter, self.mask_share, noise
            )
            for j, (loss, bins) in enumerate(zip(parts, (rna_bins, promoter_bins), strict=True)):
                seen = (bins > 0).long()
                totals[j].index_add_(0, seen, loss.double())
                n_seen[j] += seen.bincount(minlength=2)
            full.append(torch.stack(full_losses(self.model, rna, promoter)).nanmean(0))
        scores = {"full_loss": torch.cat(full).mean().item()}
        for j, name in enumerate(MODALITIES):
            if n_seen[j].sum():
                scores[f"{name}_masked_loss"] = (totals[j].sum() / n_seen[j].sum()).item()
            for k, kind in enumerate(("zero", "nonzero")):
                if n_seen[j, k]:
                    scores[f"{name}_{kind}_loss"] = (totals[j, k] / n_seen[j, k]).item()
        means = [scores.get(f"{name}_masked_loss", np.nan) for name in MODALITIES]
        scores["masked_loss"] = float(np.nanmean(means))
        return scores


def pretrain(
    store: TokenStore,
    rows: np.ndarray,
    settings: PretrainingSettings,
    folder: Path,
    checkpoints: Path,
) -> None:
    """Pretrain a model on cells of a corpus.

    Parameters
    ----------
    store
        The corpus, its vocabulary, which is written with the model so that it can read other cells,
        and the regulons, for ``projection_init: regulon``.
    rows
        Rows of the cells to use; a random share, of at most :data:`MOST_HELD_OUT` cells, is held
        out for validation.
    settings
        Architecture, masking and training.
    folder
        ``model.safetensors``, ``embedding.safetensors``, ``config.json``, ``vocabulary.tsv``,
        ``metrics.jsonl`` and ``scores.json`` are written to it.
    checkpoints
        Folder of the checkpoints, from which an interrupted run resumes; removed at the end.
    """
    seed = settings.seed
    config = TrainingConfig(seed=seed, **settings.training.model_dump())
    architecture = ModelConfig.from_dict(
        {
            **settings.architecture(),
            **{key: store.meta[key] for key in ("n_genes", "n_tfs", "n_bins")},
        }
    )
    torch.manual_seed(seed)
    model = ScDynOmics(architecture)
    names = []
    if settings.projection_init == "regulon":
        model.anchor_latents(torch.tensor(store.regulons.to_numpy()))
        names = list(store.regulons.index)
    model.to(choose_device())
    order = np.random.default_rng(seed).permutation(rows)
    n_validation = max(1, min(MOST_HELD_OUT, round(settings.validation_share * len(rows))))
    held_out, training_rows = np.sort(order[:n_validation]), np.sort(order[n_validation:])
    logger.info(
        "%.2f M parameters; %d training cells, %d held-out cells",
        sum(p.numel() for p in model.parameters()) / 1e6,
        len(training_rows),
        len(held_out),
    )
    task = MaskedPretraining(
        model, store, training_rows, held_out, settings.mask_share, seed, settings.promoter_dropout
    )
    # Without settings of hardware, so that a run can resume on other hardware.
    identity = {
        "model": architecture.to_dict(),
        "tokens": store.meta,
        "settings": settings.without_hardware(),
        "cells": hashlib.sha256(rows.tobytes()).hexdigest(),
    }
    checkpoint = Checkpoint(checkpoints, identity)
    run = Training(
        model,
        task.compute_loss,
        task.weigh,
        task.load,
        len(training_rows),
        config,
        task.evaluate,
        checkpoint,
    )
    history = run.run()
    if distributed.rank() == 0:
        description = {
            "training": config.model_dump(),
            "settings": settings.model_dump(),
            "tokens": store.meta,
            "latents": name_latents(model, names),
            "n_training_cells_without_promoters": int(
                (~store.promoter_measured(training_rows)).sum()
            ),
        }
        trivial = trivial_losses(
            store, training_rows, held_out, architecture.n_genes, architecture.n_bins
        )
        # As it will be loaded: not compiled, and in the default precision.
        plain = ScDynOmics(architecture).to(task.device).eval()
        plain.load_state_dict(model.state_dict())
        drawn = np.sort(order[n_validation:][:MOST_PROJECTED])
        projection = fit_projection(plain, store, drawn)
        save_model(folder, model, projection, store.vocabulary, history, trivial, description)
        checkpoint.remove()


def name_latents(model: ScDynOmics, regulons: list[str]) -> list[str]:
    """Name the latents of the last Full layer: by their initial regulon, or by number."""
    n_latents = model.layers[model.last_full_layer()].attention.compress.out_features
    return [*regulons, *(f"latent_{i}" for i in range(len(regulons), n_latents))][:n_latents]


def save_model(
    folder: Path,
    model: ScDynOmics,
    projection: Projection,
    vocabulary: pd.DataFrame,
    history: list[dict[str, float]],
    trivial: dict[str, float],
    description: Json,
) -> None:
    """Write the files of a pretrained model; ``config.json``, with hashes of the tensors, last.

    Parameters
    ----------
    folder
        Folder of the files.
    model, projection
        The model, and the projection of its embedding.
    vocabulary
        Genes of the model, in its order.
    history
        Records of the epochs; the scores of the last one are written to ``scores.json``.
    trivial
        Scores of the trivial predictors, for ``scores.json``.
    description
        Settings and data of the run, for ``config.json``.
    """
    device = next(model.parameters()).device
    records = {"epoch", "step", "loss", "seconds", "cells_per_second"}
    scores = {key: value for key, value in history[-1].items() if key not in records} | trivial
    logger.info("held-out cells: %s", "  ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    write_records(folder / "metrics.jsonl", history)
    write_json(folder / "scores.json", scores)
    write_table(folder / "vocabulary.tsv", vocabulary)
    tensors = {
        "model": {name: p.detach().cpu() for name, p in model.state_dict().items()},
        "embedding": projection._asdict(),
    }
    for name, content in tensors.items():
        with atomic(folder / f"{name}.safetensors") as temporary:
            save_file(content, temporary)
    config = {
        "model": model.config.to_dict(),
        **{f"{name}_sha256": sha256(folder / f"{name}.safetensors") for name in tensors},
        "torch": torch.__version__,
        STAMP: make_stamp(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU",
        **description,
    }
    write_json(folder / "config.json", config)
