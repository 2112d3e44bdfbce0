"""The objective of the paper (``architecture: paper``): mask genes and predict their bins."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from scdyn.data.loader import NOT_MEASURED, Loader, Store, densify
from scdyn.data.tokens import MODALITIES
from scdyn.model.architecture import ModelConfig
from scdyn.model.paper import PaperModel
from scdyn.training.loop import Part, step_seed

# Held-out cells scored per batch, and held-out cells whose masks have one seed.
SCORED_AT_ONCE = 32
SEEDED_TOGETHER = 32


def find_nonzero(rna: Tensor, promoter: Tensor, config: ModelConfig) -> Tensor:
    """Tell which genes have a bin above zero in either modality: bins (B, G) to boolean (B, G)."""
    return torch.logical_or(*((b > 0) & (b != config.not_measured_id) for b in (rna, promoter)))


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
    rna: Tensor, promoter: Tensor, share: float, config: ModelConfig, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mask a share of the non-zero genes per cell, in all measured modalities.

    Parameters
    ----------
    rna, promoter
        (B, G) bins. A gene is non-zero if it has counts in either modality.
    share
        Share of the non-zero genes to mask, rounded to whole genes, at least one per cell with
        counts (the paper: 0.15).
    config
        Of the model.
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
    expressed = find_nonzero(rna, promoter, config)
    n_hidden = count_hidden(expressed, share)
    # The smallest noise values select a random subset of the non-zero genes.
    genes = noise.masked_fill(~expressed, 2.0).topk(int(n_hidden.max()), largest=False).indices
    hidden = torch.arange(genes.shape[1], device=genes.device) < n_hidden[:, None]
    masked = []
    for bins in (rna, promoter):
        ids = bins.gather(1, genes)
        measured = ids != config.not_measured_id
        ids = ids.masked_fill(hidden & measured, config.mask_id)
        masked.append(bins.scatter(1, genes, ids))
    return *masked, genes, hidden


def masked_losses(
    model: PaperModel, rna: Tensor, promoter: Tensor, share: float, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the cross-entropy of the bins of masked genes.

    Parameters
    ----------
    rna, promoter
        (B, G) bins on the model's device.
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
        rna, promoter, share, model.config, noise
    )
    logits = model.decode(model(masked_rna, masked_promoter, genes)[hidden])
    losses, bins = [], []
    for predicted, part in zip(logits, (rna, promoter), strict=True):
        observed = part.gather(1, genes)[hidden].long()
        measured = observed != model.config.not_measured_id
        bins.append(observed[measured])
        losses.append(functional.cross_entropy(predicted[measured], bins[-1], reduction="none"))
    return *losses, *bins


def full_losses(model: PaperModel, rna: Tensor, promoter: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean cross-entropy of the bins of all genes without masking: (B,) per modality.

    NaN in cells in which the modality was not measured.
    """
    logits = model.decode(model(rna, promoter))
    means = []
    unknown_id = model.config.not_measured_id
    for predicted, part in zip(logits, (rna, promoter), strict=True):
        losses = functional.cross_entropy(
            predicted.transpose(1, 2), part.long(), reduction="none", ignore_index=unknown_id
        )
        unknown = part[:, 0] == unknown_id
        means.append(losses.mean(1).masked_fill(unknown, torch.nan))
    return means[0], means[1]


class MaskedPretraining:
    """Loss of masked pretraining on training cells, and scores of held-out cells.

    Parameters
    ----------
    model
        Model, on its device.
    store
        The cells.
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
        model: PaperModel,
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
        self.depths, self.group_size = store.totals(training_rows).sum(0), 1

    def load(self, parts: list[np.ndarray]) -> Loader:
        """Return a loader of the training cells at the positions of each part."""
        return Loader(self.store, [self.training_rows[part] for part in parts], self.device)

    def prepare(self, part: Part, rna: Tensor, promoter: Tensor) -> tuple[Tensor, Tensor]:
        """Bin the counts of a part's cells, without the promoters of a random share of them."""
        if self.promoter_dropout:
            drawn = part.take_from(np.random.default_rng(part.seed).random(part.n_in_step))
            chosen = torch.from_numpy(drawn < self.promoter_dropout).to(promoter.device)
            promoter = promoter.masked_fill(chosen[:, None], NOT_MEASURED)
        return self.model.bin(rna, promoter)

    def weigh(self, part: Part, bins: tuple[Tensor, Tensor]) -> Tensor:
        """Count the masked genes of a part in RNA and promoters: (2,)."""
        config = self.model.config
        n_hidden = count_hidden(find_nonzero(*bins, config), self.mask_share)
        known = [of_modality[:, 0] != config.not_measured_id for of_modality in bins]
        return torch.stack([(n_hidden * measured).sum() for measured in known])

    def compute_loss(self, part: Part, bins: tuple[Tensor, Tensor], totals: Tensor) -> Tensor:
        """Compute a part's share of the loss: mean over modalities of the loss per masked gene.

        Parameters
        ----------
        part, bins
            Cells and their bins (B, G).
        totals
            (2,) masked genes of the whole step, as :meth:`weigh` counts them. A modality without
            masked genes is left out of the mean.
        """
        noise = part.take_from(draw_noise(part.seed, part.n_in_step, bins[0]))
        losses = masked_losses(self.model, *bins, self.mask_share, noise)[:2]
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
            rna, promoter = self.model.bin(*densify(self.store, rows, self.device))
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
