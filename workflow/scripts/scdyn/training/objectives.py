"""Objectives of pretraining: whole-cell decoding of thinned counts, and hidden values.

The random numbers of a cell depend on its seed alone, and each objective is a sum divided by a
number for the whole step, so that neither the size of the micro-batches nor the number of processes
changes the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from scdyn.data.corpus import cut_rows
from scdyn.data.loader import NOT_MEASURED, Loader, Store
from scdyn.data.tokens import MODALITIES
from scdyn.model.layers import Tokens
from scdyn.model.transformer import HIGHEST, ScDynOmics, log_normalise
from scdyn.settings import COMPARED, PretrainingSettings
from scdyn.training.loop import Part, step_seed

# Held-out cells scored per batch.
SCORED_AT_ONCE = 32
# Cells whose counts are summed per batch.
SUMMED_AT_ONCE = 512
# Of the consistency objective (Chen et al. 2020, SimCLR).
TEMPERATURE = 0.2


@dataclass(frozen=True)
class Example:
    """Cells whose counts are split into those that the model reads and those that it predicts.

    Attributes
    ----------
    rna, promoter
        (B, G) counts that the model reads; negative where a modality was not measured.
    rest
        (B, G) counts of RNA and of promoters that were taken out; negative where not measured.
    hidden
        (B, G) boolean: genes whose values are hidden; None: none.
    noise
        (B, Z) noise that is added to the cell vectors before they predict; None: none.
    batches
        (B,) number of the batch of each cell, which the decoder is given; None: it is not.
    compared
        (B,) boolean: cells whose two parts are compared; None: no cells.
    """

    rna: Tensor
    promoter: Tensor
    rest: tuple[Tensor, Tensor]
    hidden: Tensor | None = None
    noise: Tensor | None = None
    batches: Tensor | None = None
    compared: Tensor | None = None


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


def draw_share(bounds: Sequence[float], *seed: int) -> float:
    """Draw the share of the counts that is kept, between two bounds."""
    low, high = bounds
    return float(np.random.default_rng(seed).uniform(low, high))


def thin_cells(
    rna: Tensor, promoter: Tensor, seeds: Sequence[int], bounds: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Thin cells, each by a share that is drawn between two bounds.

    Parameters
    ----------
    rna, promoter
        (B, G) counts.
    seeds
        One per cell.
    bounds
        Lowest and highest share of the counts that is kept.
    """
    shares = [draw_share(bounds, seed, 2) for seed in seeds]
    return keep_shares(rna, promoter, seeds, shares)


def keep_shares(
    rna: Tensor, promoter: Tensor, seeds: Sequence[int], shares: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Thin cells, each by its seed to its share of the counts; see :func:`thin_cells`."""
    parts = []
    for *cell, seed, share in zip(rna, promoter, seeds, shares, strict=True):
        generator = torch.Generator(rna.device).manual_seed(seed)
        probability = torch.tensor([share], device=rna.device)
        parts.append([thin(counts, probability, generator) for counts in cell])
    kept_rna, kept_promoter = (torch.stack(of_cells) for of_cells in zip(*parts, strict=True))
    return kept_rna, kept_promoter


def draw_by_cell(
    like: Tensor, width: int, seeds: Sequence[int], draw: Callable[..., Tensor]
) -> Tensor:
    """Draw random numbers of each cell by its seed: (cells, width), on the device of a tensor.

    They are not those by which the cell is thinned.
    """
    device = like.device
    rows = []
    for seed in seeds:
        generator = torch.Generator(device).manual_seed(step_seed(seed, 1, width))
        rows.append(draw(width, generator=generator, device=device))
    return torch.stack(rows)


def hide_values(
    rna: Tensor, promoter: Tensor, seeds: Sequence[int], share: float, zeros: float
) -> Tensor:
    """Draw the genes of each cell whose values are hidden.

    Parameters
    ----------
    rna, promoter
        (B, G) counts.
    seeds
        One per cell.
    share
        Share of the expressed genes.
    zeros
        Number of other genes per expressed one.

    Returns
    -------
    Tensor, (B, G)
        Boolean.
    """
    expressed = (rna > 0) | (promoter > 0)
    noise = draw_by_cell(rna, rna.shape[1], seeds, torch.rand)
    n_expressed = expressed.sum(1, keepdim=True)
    of_others = share * zeros * n_expressed / (rna.shape[1] - n_expressed).clamp(min=1)
    return noise < torch.where(expressed, share, of_others)


def score_profile(logs: Tensor, rest: Tensor) -> Tensor:
    """Sum the negative log-likelihoods of counts, by the logs of the genes' shares: (B,)."""
    return -(logs * rest).sum(1)


def score_weighted(logs: Tensor, rest: Tensor, weights: Tensor) -> Tensor:
    """Sum the weighted negative log-likelihoods of Poisson counts, but for constants: (B,).

    The expected counts are the genes' shares times the cell's counts. With equal weights this is
    :func:`score_profile`.

    Parameters
    ----------
    logs
        (B, G) logs of the genes' shares.
    rest
        (B, G) counts.
    weights
        (G,) of the genes.
    """
    # Less the counts, which are constant, so that both terms sum to zero if the weights are equal.
    excess = rest.sum(1, keepdim=True) * logs.exp() - rest
    return (weights * (excess - rest * logs)).sum(1)


def weigh_genes(profile: Tensor, power: float) -> Tensor:
    """Weigh genes by their mean count to the power of minus ``power``.

    Parameters
    ----------
    profile
        (2, G) counts.
    power
        From 0 to 1.

    Returns
    -------
    Tensor, (2, G)
        Weights whose mean over the counts is one.
    """
    shares = log_shares(profile).exp()
    weights = shares**-power
    return weights / (weights * shares).sum(1, keepdim=True)


def compare_views(cells: Tensor, others: Tensor, groups: Tensor) -> Tensor:
    """Compute how well a cell is found by the vector of its other counts, within its group.

    Parameters
    ----------
    cells, others
        (B, Z) cell vectors of two parts of the counts.
    groups
        (B,) group of each cell.

    Returns
    -------
    Tensor, (B,)
        Cross-entropy over the cells of the group, mean of both directions (NT-Xent without
        comparisons within a view; Chen et al. 2020, arXiv:2002.05709).
    """
    first, second = (functional.normalize(part.float(), dim=1) for part in (cells, others))
    logits = first @ second.T / TEMPERATURE
    logits = logits.masked_fill(groups[:, None] != groups, -torch.inf)
    own = torch.arange(len(cells), device=cells.device)
    losses = [functional.cross_entropy(x, own, reduction="none") for x in (logits, logits.T)]
    return torch.stack(losses).mean(0)


def sum_counts(store: Store, rows: np.ndarray) -> Tensor:
    """Sum the counts of each gene over cells: (2, G) of RNA and promoters, in float64."""
    total = torch.zeros(len(MODALITIES), store.n_genes, dtype=torch.float64)
    for cells in Loader(store, cut_rows(rows, SUMMED_AT_ONCE)):
        for of_modality, counts in zip(total, cells, strict=True):
            of_modality += counts.clamp(min=0).sum(0)
    return total


def log_shares(profile: Tensor) -> Tensor:
    """Take the logs of the genes' shares of the counts (2, G), with a pseudocount of a half."""
    counts = profile + 0.5
    return (counts / counts.sum(1, keepdim=True)).log().float()


def find_comparable(example: Example) -> Tensor:
    """Find the cells with counts in both parts, those that are read and the others: (B,)."""
    parts = [(example.rna, example.promoter), example.rest]
    both = [torch.logical_or(*((part > 0).any(1) for part in counts)) for counts in parts]
    return both[0] & both[1]


class Pretraining:
    """Loss of pretraining on training cells, and scores of held-out cells.

    A cell's counts are thinned. The cell vector of what is left predicts the counts that were
    taken out, of all genes of both modalities: Poisson likelihood of given depth, with weights of
    genes, and with noise, so that directions that predict little get little variance. The vector
    is to be more like that of the counts that were taken out than like those of other cells of
    similar depth. And tokens whose values are hidden predict them.

    Parameters
    ----------
    model
        Model, on its device.
    store
        The cells.
    training_rows, held_out
        Rows of the training cells and of the held-out cells.
    settings
        Objectives and shares.
    profile
        (2, G) counts of each gene in training cells, from :func:`sum_counts`; its shares are what
        a predictor that ignores the cell predicts.
    batches
        Number of the batch of each training cell and of each held-out cell, which the decoder is
        given; None: it is not.
    """

    def __init__(
        self,
        model: ScDynOmics,
        store: Store,
        training_rows: np.ndarray,
        held_out: np.ndarray,
        settings: PretrainingSettings,
        profile: Tensor,
        batches: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        self.batch_codes = None if batches is None else [*map(torch.from_numpy, batches)]
        self.model, self.store, self.settings = model, store, settings
        self.training_rows, self.held_out = training_rows, held_out
        self.device = next(model.parameters()).device
        self.mean_logs = log_shares(profile)
        self.gene_weights = weigh_genes(profile, settings.gene_power).to(self.device)
        self.depths = store.totals(training_rows).sum(0)
        self.group_size = COMPARED if settings.consistency else 1

    def count_by_batch(self) -> Tensor:
        """Sum the counts of the training cells of each batch: (2, batches), RNA and promoters."""
        if self.batch_codes is None:
            return torch.zeros(len(MODALITIES), 0)
        totals = self.store.totals(self.training_rows)
        codes = self.batch_codes[0].numpy()
        n_batches = int(max(of.max() for of in self.batch_codes)) + 1
        counts = [np.bincount(codes, weights=of, minlength=n_batches) for of in totals]
        return torch.from_numpy(np.stack(counts))

    def load(self, parts: list[np.ndarray]) -> Loader:
        """Return a loader of the training cells at the positions of each part."""
        return Loader(self.store, [self.training_rows[part] for part in parts], self.device)

    def make_example(
        self,
        rna: Tensor,
        promoter: Tensor,
        seeds: Sequence[int],
        shares: Sequence[float],
        promoter_dropout: float = 0.0,
    ) -> Example:
        """Split the counts of cells (B, G), by one seed and one share to keep per cell."""
        settings = self.settings
        kept = list(keep_shares(rna, promoter, seeds, shares))
        if promoter_dropout:
            drawn = [np.random.default_rng(seed).random() for seed in seeds]
            dropped = torch.tensor(drawn, device=rna.device) < promoter_dropout
            kept[1] = kept[1].masked_fill(dropped[:, None], NOT_MEASURED)
        rest = [
            torch.where(before < 0, before, before - after.clamp(min=0))
            for before, after in zip((rna, promoter), kept, strict=True)
        ]
        hidden = None
        if settings.hidden_values:
            hidden = hide_values(
                kept[0], kept[1], seeds, settings.mask_share, settings.hidden_zeros
            )
        return Example(kept[0], kept[1], (rest[0], rest[1]), hidden)

    def prepare(self, part: Part, rna: Tensor, promoter: Tensor) -> Example:
        """Split the counts of a part's cells, and draw the noise of their vectors."""
        seeds = part.seed_cells()
        # One share for the cells that are compared: they have similar depths, which thus cannot
        # tell them apart, and similar numbers of tokens.
        bounds = self.settings.thinning
        shares = [draw_share(bounds, part.seed, int(group)) for group in part.groups]
        example = self.make_example(rna, promoter, seeds, shares, self.settings.promoter_dropout)
        if self.settings.cell_noise:
            noise = draw_by_cell(rna, self.model.config.cell_width, seeds, torch.randn)
            example = replace(example, noise=noise * self.settings.cell_noise)
        if self.batch_codes is not None:
            batches = self.batch_codes[0][part.positions].to(self.device)
            example = replace(example, batches=batches)
        if self.settings.consistency:
            # Half of the groups, in turn, and so that two processes have as many: 0, 3, 4, 7, ...
            turns = part.groups + part.groups // 2 + part.seed
            chosen = torch.from_numpy(turns % 2 == 0).to(self.device)
            example = replace(example, compared=chosen & find_comparable(example))
        return example

    def weigh(self, part: Part, example: Example) -> Tensor:
        """Count what a part predicts: counts and hidden values by modality, and cells: (5,)."""
        n_counts = [rest.clamp(min=0).sum() for rest in example.rest]
        n_hidden = [torch.zeros_like(n_counts[0])] * len(MODALITIES)
        if example.hidden is not None:
            n_hidden = [
                (example.hidden & (counts >= 0)).sum() for counts in (example.rna, example.promoter)
            ]
        n_cells = torch.zeros_like(n_counts[0])
        if example.compared is not None:
            n_cells = example.compared.sum()
        return torch.stack([*n_counts, *n_hidden, n_cells]).float()

    def compute_loss(self, part: Part, example: Example, totals: Tensor) -> Tensor:
        """Compute a part's share of the loss.

        Parameters
        ----------
        part, example
            The cells.
        totals
            (5,) of the whole step, as :meth:`weigh` counts them.
        """
        settings = self.settings
        tokens, cells, logs = self.predict(example)
        n_counts, n_hidden, n_cells = totals.clamp(min=1).split((2, 2, 1))
        sums = [
            score_weighted(of_modality, rest.clamp(min=0), weights).sum()
            for of_modality, rest, weights in zip(
                logs, example.rest, self.gene_weights, strict=True
            )
        ]
        loss = settings.whole_cell * (torch.stack(sums) / n_counts).sum()
        if example.hidden is not None:
            sums = [losses.sum() for losses in self.score_values(example, tokens)]
            mean = (torch.stack(sums) / n_hidden).sum() / (totals[2:4] > 0).sum().clamp(min=1)
            loss = loss + settings.hidden_values * mean
        chosen = example.compared
        if chosen is not None and chosen.any():
            others = self.model.embed_cells(*(rest[chosen] for rest in example.rest))
            groups = torch.from_numpy(part.groups).to(chosen.device)[chosen]
            alike = compare_views(cells[chosen], others, groups).sum() / n_cells[0]
            loss = loss + settings.consistency * alike
        return loss

    def predict(self, example: Example) -> tuple[Tokens | None, Tensor, tuple[Tensor, Tensor]]:
        """Compute cell vectors (B, Z) and the logs of the genes' shares, (B, G) each.

        The tokens, which come first, are None if no values are hidden.
        """
        tokens = None
        if example.hidden is None:
            cells = self.model.embed_cells(example.rna, example.promoter)
        else:
            tokens, cells, _ = self.model.represent(example.rna, example.promoter, example.hidden)
        noisy = cells if example.noise is None else cells + example.noise
        return tokens, cells, self.model.bottleneck.decode(noisy, example.batches)

    def score_values(self, example: Example, tokens: Tokens | None) -> list[Tensor]:
        """Compute the cross-entropies of hidden values: (values,) per modality; none if no hidden.

        Parameters
        ----------
        example, tokens
            The cells, and their tokens by :meth:`predict`.
        """
        if example.hidden is None or tokens is None:
            return []
        counts = (example.rna, example.promoter)
        is_hidden = example.hidden.gather(1, tokens.genes) & (tokens.weight > 0)
        predicted = self.model.decode(tokens.values[is_hidden])
        values = []
        for logits, of_modality, depth in zip(predicted, counts, self.model.depths, strict=True):
            seen = of_modality.gather(1, tokens.genes)
            known = (seen >= 0)[is_hidden]
            total = of_modality.clamp(min=0).sum(1)
            logs_seen = log_normalise(seen.clamp(min=0).float(), total, depth)
            place = logs_seen[is_hidden].clamp(max=HIGHEST) * ((logits.shape[1] - 1) / HIGHEST)
            target = place.ceil().long()
            values.append(functional.cross_entropy(logits[known], target[known], reduction="none"))
        return values

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Score the held-out cells, always thinned and hidden in the same way.

        Returns
        -------
        dict
            In nats: ``cell_loss``, mean over modalities of the loss per count that was taken out,
            and for each modality such as ``rna_cell_loss``, unless it was measured in no cell;
            ``mean_...``, the same of the mean profile of the training cells; and
            ``rna_hidden_loss`` and ``promoter_hidden_loss`` per hidden value.
        """
        sums = torch.zeros(len(MODALITIES), 5, dtype=torch.float64)
        n_done = 0
        for rows in cut_rows(self.held_out, SCORED_AT_ONCE):
            (rna, promoter), *_ = Loader(self.store, [rows], self.device)
            seeds = [step_seed(self.settings.seed, int(row)) for row in rows]
            shares = [draw_share(self.settings.thinning, seed, 2) for seed in seeds]
            example = self.make_example(rna, promoter, seeds, shares)
            if self.batch_codes is not None:
                batches = self.batch_codes[1][n_done : n_done + len(rows)].to(self.device)
                example = replace(example, batches=batches)
            n_done += len(rows)
            tokens, _, logs = self.predict(example)
            values = self.score_values(example, tokens)
            for j, rest in enumerate(part.clamp(min=0) for part in example.rest):
                sums[j, 0] += score_profile(logs[j], rest).sum().cpu()
                sums[j, 1] += rest.sum().cpu()
                sums[j, 4] += score_profile(self.mean_logs[j].to(rest.device), rest).sum().cpu()
                if values:
                    sums[j, 2] += values[j].sum().cpu()
                    sums[j, 3] += len(values[j])
        scores = {}
        for values_of, name in zip(sums.tolist(), MODALITIES, strict=True):
            cell, n_counts, hidden, n_hidden, mean = values_of
            if n_counts:
                scores[f"{name}_cell_loss"] = cell / n_counts
                scores[f"mean_{name}_cell_loss"] = mean / n_counts
            if n_hidden:
                scores[f"{name}_hidden_loss"] = hidden / n_hidden
        for prefix in ("", "mean_"):
            found = [scores.get(f"{prefix}{name}_cell_loss", np.nan) for name in MODALITIES]
            scores[f"{prefix}cell_loss"] = float(np.nanmean(found))
        return scores
