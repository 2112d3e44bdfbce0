"""Trivial predictors of bins, which depend on the gene only: baselines of a pretrained model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from scdyn.data.corpus import cut_rows
from scdyn.data.loader import Loader, Store, expressed_genes
from scdyn.data.tokens import MODALITIES
from scdyn.model.paper import PaperModel

# Most training cells whose bins are counted.
MOST_CELLS = 20_000
CELLS_AT_ONCE = 512


def iter_bins(
    model: PaperModel, store: Store, rows: np.ndarray
) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
    """Read the bins of :data:`CELLS_AT_ONCE` cells at a time.

    Yields
    ------
    list
        Per modality: genes and bins of the genes that are expressed in either modality, of the
        cells in which it was measured.
    """
    unknown = model.config.not_measured_id
    for rna, promoter in Loader(store, cut_rows(rows, CELLS_AT_ONCE), model.rates.device):
        expressed = expressed_genes(rna, promoter)
        genes = expressed.nonzero(as_tuple=True)[1]
        parts = []
        for bins in model.bin(rna, promoter):
            found = bins[expressed]
            known = found != unknown
            parts.append((genes[known].cpu().numpy(), found[known].cpu().numpy()))
        yield parts


def gene_frequencies(
    model: PaperModel, store: Store, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the frequency of each bin per gene, over cells with counts in either modality.

    Parameters
    ----------
    model
        For its genes and bins.
    store, rows
        The cells.

    Returns
    -------
    rna, promoter : ndarray, (genes, n_bins + 1)
        Frequencies, with a pseudocount of 1.
    """
    config = model.config
    counts = np.ones((len(MODALITIES), config.n_genes, config.n_bins + 1))
    for modalities in iter_bins(model, store, rows):
        for of_gene, (genes, bins) in zip(counts, modalities, strict=True):
            np.add.at(of_gene, (genes, bins), 1)
    rna, promoter = counts / counts.sum(2, keepdims=True)
    return rna, promoter


def point_predictor(frequencies: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Predict one bin per gene with its frequency, and all other bins with equal probabilities.

    Parameters
    ----------
    frequencies
        (genes, bins).
    bins
        (genes,) the predicted bin.

    Returns
    -------
    ndarray, (genes, bins)
        Probabilities.
    """
    genes = np.arange(len(frequencies))
    right = frequencies[genes, bins]
    rest = (1 - right) / (frequencies.shape[1] - 1)
    predicted = np.repeat(rest[:, None], frequencies.shape[1], axis=1)
    predicted[genes, bins] = right
    return predicted


def trivial_predictors(frequencies: np.ndarray) -> dict[str, np.ndarray]:
    """Make predictors that depend on the gene and not on the cell.

    Parameters
    ----------
    frequencies
        (genes, bins).

    Returns
    -------
    dict of ndarray, (genes, bins)
        ``mode``: the most frequent bin per gene; ``mean``: the mean bin, rounded (both by
        :func:`point_predictor`); ``frequency``: the frequencies, which have the lowest loss of all
        such predictors.
    """
    mean = np.rint(frequencies @ np.arange(frequencies.shape[1])).astype(int)
    return {
        "mode": point_predictor(frequencies, frequencies.argmax(1)),
        "mean": point_predictor(frequencies, mean),
        "frequency": frequencies,
    }


def trivial_losses(
    model: PaperModel, store: Store, training_rows: np.ndarray, held_out: np.ndarray
) -> dict[str, float]:
    """Score :func:`trivial_predictors` like a pretrained model.

    Parameters
    ----------
    model
        For its genes and bins.
    store
        The cells.
    training_rows, held_out
        Training cells, for the frequencies, and held-out cells, to predict. Of more than
        :data:`MOST_CELLS` training cells as many are taken at equal distances.

    Returns
    -------
    dict
        Cross-entropy in nats over all genes of the cells with counts in either modality. The names
        are those of :meth:`scdyn.training.masked.MaskedPretraining.evaluate` after the
        predictor's, as ``mode_masked_loss`` and ``mean_rna_zero_loss``.
    """
    step = -(-len(training_rows) // MOST_CELLS)
    frequencies = gene_frequencies(model, store, training_rows[::step])
    predictors = [trivial_predictors(p) for p in frequencies]
    # Sums and numbers of losses: (predictors, modalities, zero or non-zero bins).
    totals, n_seen = (np.zeros((len(predictors[0]), len(MODALITIES), 2)) for _ in range(2))
    for modalities in iter_bins(model, store, held_out):
        for j, (genes, bins) in enumerate(modalities):
            seen = (bins > 0).astype(int)
            for i, predicted in enumerate(predictors[j].values()):
                losses = -np.log(predicted[genes, bins])
                totals[i, j] += np.bincount(seen, losses, minlength=2)
                n_seen[i, j] += np.bincount(seen, minlength=2)
    scores = {}
    for i, name in enumerate(predictors[0]):
        seen_at_all = n_seen[i].sum(1) > 0
        masked = totals[i].sum(1) / np.maximum(n_seen[i].sum(1), 1)
        scores[f"{name}_masked_loss"] = float(masked[seen_at_all].mean())
        for j, modality in enumerate(MODALITIES):
            if seen_at_all[j]:
                scores[f"{name}_{modality}_masked_loss"] = float(masked[j])
            for k, kind in enumerate(("zero", "nonzero")):
                if n_seen[i, j, k]:
                    value = totals[i, j, k] / n_seen[i, j, k]
                    scores[f"{name}_{modality}_{kind}_loss"] = float(value)
    return scores
