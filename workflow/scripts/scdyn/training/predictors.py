"""Trivial predictors of bins, which depend on the gene only: baselines of a pretrained model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse

from scdyn.data.loader import Store
from scdyn.data.tokens import MODALITIES
from scdyn.io.shards import CELLS_AT_ONCE

# Most training cells whose bins are counted.
MOST_CELLS = 50_000


def read_chunks(
    store: Store, rows: np.ndarray
) -> Iterator[list[tuple[sparse.csr_matrix, sparse.csr_matrix]]]:
    """Read :data:`CELLS_AT_ONCE` cells at a time.

    Yields
    ------
    list
        Per modality, of the cells in which it was measured: the bins, and whether a gene has
        counts in either modality.
    """
    for start in range(0, len(rows), CELLS_AT_ONCE):
        part = rows[start : start + CELLS_AT_ONCE]
        rna, promoter = store.read(part)
        expressed = (rna > 0) + (promoter > 0)
        measured = store.promoter_measured(part)
        yield [(rna, expressed), (promoter[measured], expressed[measured])]


def gene_frequencies(
    store: Store, rows: np.ndarray, n_genes: int, n_bins: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the frequency of each bin per gene, over cells with counts in either modality.

    Parameters
    ----------
    store, rows
        The cells.
    n_genes, n_bins
        Number of genes, and the highest bin.

    Returns
    -------
    rna, promoter : ndarray, (genes, n_bins + 1)
        Frequencies, with a pseudocount of 1.
    """
    counts = np.ones((len(MODALITIES), n_genes, n_bins + 1))
    for modalities in read_chunks(store, rows):
        for of_gene, (bins, expressed) in zip(counts, modalities, strict=True):
            np.add.at(of_gene, (bins.indices, bins.data), 1)
            of_gene[:, 0] += expressed.getnnz(0) - bins.getnnz(0)
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
    store: Store,
    training_rows: np.ndarray,
    held_out: np.ndarray,
    n_genes: int,
    n_bins: int,
) -> dict[str, float]:
    """Score :func:`trivial_predictors` like a pretrained model.

    Parameters
    ----------
    store
        Bins.
    training_rows, held_out
        Training cells, for the frequencies, and held-out cells, to predict. Of more than
        :data:`MOST_CELLS` training cells as many are taken at equal distances.
    n_genes, n_bins
        Number of genes, and the highest bin.

    Returns
    -------
    dict
        Cross-entropy in nats over all genes of the cells with counts in either modality. The names
        are those of :meth:`scdyn.training.pretraining.MaskedPretraining.evaluate` after the
        predictor's, as ``mode_masked_loss`` and ``mean_rna_zero_loss``.
    """
    step = -(-len(training_rows) // MOST_CELLS)
    frequencies = gene_frequencies(store, training_rows[::step], n_genes, n_bins)
    predictors = [trivial_predictors(p) for p in frequencies]
    # Sums and numbers of losses: (predictors, modalities, zero or non-zero bins).
    totals, n_seen = (np.zeros((len(predictors[0]), len(MODALITIES), 2)) for _ in range(2))
    for modalities in read_chunks(store, held_out):
        for j, (bins, expressed) in enumerate(modalities):
            if not expressed.nnz:
                continue
            expressed = expressed.tocoo()
            observed = np.asarray(bins[expressed.row, expressed.col]).ravel()
            seen = (observed > 0).astype(int)
            for i, predicted in enumerate(predictors[j].values()):
                losses = -np.log(predicted[expressed.col, observed])
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
