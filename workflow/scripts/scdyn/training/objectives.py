"""Objectives of pretraining: whole-cell decoding of thinned counts, and hidden values.

The random numbers of a cell depend on its seed alone, and each objective is a sum divided by a
number for the whole step, so that neither the size of the micro-batches nor the number of processes
changes the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from scdyn.data.loader import expressed_genes, is_measured
from scdyn.model.transformer import ScDynOmics
from scdyn.settings import ObjectiveSettings


@dataclass(frozen=True)
class Example:
    """Cells whose counts are split into those that the model reads and those that it predicts.

    Attributes
    ----------
    rna, promoter
        (B, G) counts that the model reads; negative where a modality was not measured.
    rest
        (B, G) counts of RNA and of promoters that were taken out; zero where not measured.
    hidden
        (B, G) boolean: genes whose values are hidden; None: none.
    """

    rna: Tensor
    promoter: Tensor
    rest: tuple[Tensor, Tensor]
    hidden: Tensor | None


def thin(counts: Tensor, share: Tensor, generator: torch.Generator) -> Tensor:
    """Keep each count of a cell with a probability.

    Of Poisson counts, those kept and those taken out are independent.

    Parameters
    ----------
    counts
        (G,) counts; negative ones are returned as they are.
    share
        (1,) probability.
    generator
        Of the random numbers, on the device of the counts.
    """
    genes = (counts > 0).nonzero()[:, 0]
    found = counts[genes]
    kept = torch.binomial(found.float(), share.expand(len(found)), generator=generator)
    return counts.index_put((genes,), kept.to(counts.dtype))


def make_example(
    rna: Tensor, promoter: Tensor, seeds: Sequence[int], settings: ObjectiveSettings
) -> Example:
    """Thin the counts of cells, and hide values of what is left.

    Parameters
    ----------
    rna, promoter
        (B, G) counts.
    seeds
        One per cell.
    settings
        The shares.
    """
    parts: list[tuple[Tensor, ...]] = []
    low, high = settings.thinning
    for cell, seed in zip(zip(rna, promoter, strict=True), seeds, strict=True):
        generator = torch.Generator(rna.device).manual_seed(seed)
        drawn = torch.rand(2, generator=generator, device=rna.device)
        kept = [thin(counts, low + (high - low) * drawn[:1], generator) for counts in cell]
        if settings.promoter_dropout and drawn[1] < settings.promoter_dropout:
            kept[1] = torch.full_like(kept[1], -1)
        parts.append((*kept, *_hide(*kept, settings, generator)))
    seen = [torch.stack(of_cells) for of_cells in zip(*parts, strict=True)]
    rest = tuple(
        (before - after.clamp(min=0)).clamp(min=0)
        for before, after in zip((rna, promoter), seen[:2], strict=True)
    )
    return Example(seen[0], seen[1], (rest[0], rest[1]), seen[2] if len(seen) > 2 else None)


def _hide(
    rna: Tensor, promoter: Tensor, settings: ObjectiveSettings, generator: torch.Generator
) -> list[Tensor]:
    """Draw the genes of a cell whose values are hidden: expressed ones, and as many others."""
    if not settings.hidden_values:
        return []
    expressed = (rna > 0) | (promoter > 0)
    noise = torch.rand(len(rna), generator=generator, device=rna.device)
    n_expressed = expressed.sum()
    of_others = settings.hidden_zeros * n_expressed / (len(rna) - n_expressed).clamp(min=1)
    return [noise < torch.where(expressed, settings.mask_share, settings.mask_share * of_others)]
