"""Marker genes of the classes of a task, which a head reads beside the features of a cell."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scdyn.data.loader import Store, mask_modality, run_batches
from scdyn.model.classifier import MarkerGenes
from scdyn.model.transformer import ScDynOmics

# Cells at once.
BATCH = 64
# Added to standard deviations, for genes with hardly any counts.
SMALL_DEVIATION = 0.01
# Cells at the mean of all, which are added to each class: a class with fewer cells has a less
# certain mean (shrunken centroids, Tibshirani et al., PNAS 2002).
PRIOR_CELLS = 20
# Scaled values are multiplied by it and by the share of variance that classes explain.
WEIGHT = 2.0


@torch.no_grad()
def choose_markers(
    model: ScDynOmics,
    store: Store,
    rows: np.ndarray,
    targets: np.ndarray,
    n_per_class: int,
    modalities: str = "both",
) -> MarkerGenes:
    """Choose the marker genes of classes.

    Those of a class are the genes whose log-normalised values have the largest squared correlation
    with membership of it. A value is scaled to unit variance and multiplied by the share of its
    variance that all classes explain (the correlation ratio), so that noisy genes weigh little. For
    both, means of classes are shrunk towards that of all cells, by more if they have few cells.

    Parameters
    ----------
    model
        By which the counts are normalised.
    store, rows, targets
        The training cells, and (cells,) the class of each.
    n_per_class
        Number of genes per class; RNA and promoter of a gene count as two. Several classes can
        share some.
    modalities
        Modalities that the classifier uses: "both", "rna" or "promoter".
    """
    if n_per_class == 0:
        return MarkerGenes(0)
    n_classes = int(targets.max()) + 1
    membership = torch.eye(n_classes, dtype=torch.float64)[torch.from_numpy(targets)]
    shape = n_classes, 2 * model.config.n_genes
    # Per class and value: number of cells, sum, and sum of squares.
    n, total, squares = torch.zeros((3, *shape), dtype=torch.float64)
    n_done = 0

    def normalise(rna: Tensor, promoter: Tensor) -> tuple[Tensor, Tensor]:
        logs, measured = model.normalise(*mask_modality(rna, promoter, modalities))
        return logs.double().cpu(), measured.double().cpu()

    device = next(model.parameters()).device
    for logs, measured in run_batches(normalise, store, rows, device, BATCH):
        of_class = membership[n_done : n_done + len(logs)].T
        n += of_class @ measured
        total += of_class @ (logs * measured)
        squares += of_class @ (logs.square() * measured)
        n_done += len(logs)
    return make_markers(n, total, squares, n_per_class)


def make_markers(n: Tensor, total: Tensor, squares: Tensor, n_per_class: int) -> MarkerGenes:
    """Choose marker genes from the number of cells, the sums and the sums of squares.

    Each is (classes, 2 G), of RNA, then of promoters.
    """
    n_all = n.sum(0).clamp(min=1)
    centre = total.sum(0) / n_all
    variance = (squares.sum(0) / n_all - centre.square()).clamp(min=0)
    deviation = variance.sqrt() + SMALL_DEVIATION
    share = n / n_all
    # Mean of each class, as a difference from that of all cells.
    difference = (total - n * centre) / (n + PRIOR_CELLS)
    correlation = difference * (share / (1 - share).clamp(min=SMALL_DEVIATION)).sqrt() / deviation
    explained = (share * difference.square()).sum(0) / deviation.square()
    n_best = min(n_per_class, n.shape[1])
    best = correlation.abs().topk(n_best, dim=1).indices.flatten().unique()
    best = best[explained[best] > 0]
    markers = MarkerGenes(len(best))
    markers.genes.copy_(best)
    markers.centre.copy_(centre[best])
    markers.scale.copy_(WEIGHT * explained[best] / deviation[best])
    return markers


@torch.no_grad()
def read_markers(
    model: ScDynOmics, store: Store, rows: np.ndarray, markers: MarkerGenes, modalities: str
) -> np.ndarray:
    """Compute the scaled values of marker genes of cells, of all counts: (cells, M) float32."""
    device = next(model.parameters()).device

    def read(rna: Tensor, promoter: Tensor) -> Tensor:
        values: Tensor = markers(*model.normalise(*mask_modality(rna, promoter, modalities)))
        return values.cpu()

    if not len(markers.genes):
        return np.zeros((len(rows), 0), dtype=np.float32)
    none = torch.zeros((0, len(markers.genes)))
    return torch.cat([none, *run_batches(read, store, rows, device, BATCH)]).numpy()
