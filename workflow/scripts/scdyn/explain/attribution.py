"""Integrated Gradients of a class's log-odds over gene and modality, within a memory budget."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from scdyn.data.corpus import cut_rows
from scdyn.data.loader import (
    Loader,
    Store,
    densify,
    halve_batch,
    is_measured,
    mask_modality,
    run_batches,
)
from scdyn.log import logger
from scdyn.model.classifier import Classifier
from scdyn.model.layers import set_precision

Values = tuple[Tensor, Tensor]

# Larger batches are no faster on a CPU, and hardly faster on a GPU.
MAX_POINTS = 64
# Memory of forward and backward pass, relative to the tensors saved by the forward pass.
BACKWARD_FACTOR = 2.0


def make_values(classifier: Classifier, rna: Tensor, promoter: Tensor) -> Values:
    """Convert counts (cells, genes) to what a path changes: two tensors (cells, genes, numbers)."""
    values: Values = classifier.encoder.make_values(
        *mask_modality(rna, promoter, classifier.modalities)
    )
    return values


def log_odds(
    classifier: Classifier,
    values: Values,
    rna: Tensor,
    promoter: Tensor,
    target: int,
    against: list[int],
) -> Tensor:
    """Log-odds (cells,) of a class versus other classes, from values.

    Log-odds instead of the logit: evidence that raises all logits equally cancels.
    """
    logits = classifier.head(classifier.encoder.describe_values(values, rna, promoter))
    return logits[:, target] - logits[:, against].logsumexp(1)


def average_values(
    classifier: Classifier, store: Store, rows: np.ndarray, batch_size: int = 64
) -> Values:
    """Average the values over cells: (1, genes, numbers) per modality.

    Promoters are averaged over the cells with measured promoters.
    """
    device = next(classifier.parameters()).device

    def sums_of(rna: Tensor, promoter: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rna, promoter = mask_modality(rna, promoter, classifier.modalities)
        measured = is_measured(promoter)
        first, second = make_values(classifier, rna, promoter)
        return (
            first.sum(0, keepdim=True),
            second[measured].sum(0, keepdim=True),
            measured.sum(),
        )

    parts = list(run_batches(sums_of, store, rows, device, batch_size))
    rna, promoter, n_measured = (sum(part[1:], part[0]) for part in zip(*parts, strict=True))
    return rna / len(rows), promoter / n_measured.clamp(min=1)


def integrate_paths(
    function: Callable[[Tensor, Values], Tensor],
    starts: Values,
    ends: Values,
    n_steps: int,
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    """Integrate a function's gradient along straight paths, by Gauss-Legendre quadrature.

    Parameters
    ----------
    function
        Called with the index of the path of each point (points,) and the values at the points;
        returns one number per point (points,).
    starts, ends
        (paths, genes, numbers) values of each modality.
    n_steps
        Points per path: exact if the function along the path is a polynomial of degree 2
        ``n_steps`` or less.
    batch_size
        Points evaluated at once, of one or several paths.

    Returns
    -------
    attributions : Tensor, (paths, modalities, genes)
        Summed over the numbers.
    difference : Tensor, (paths,)
        The function at the ends minus at the starts, to which the attributions sum.
    """
    device, paths = ends[0].device, torch.arange(len(ends[0]), device=ends[0].device)
    points, weights = (
        torch.as_tensor(part, dtype=ends[0].dtype, device=device).repeat(len(paths))
        for part in ((leggauss(n_steps)[0] + 1) / 2, leggauss(n_steps)[1] / 2)
    )
    attributions = ends[0].new_zeros(len(paths), len(ends), ends[0].shape[1])
    parts = (x.split(batch_size) for x in (paths.repeat_interleave(n_steps), points, weights))
    for path, point, weight in zip(*parts, strict=True):
        changes = [end[path] - start[path] for start, end in zip(starts, ends, strict=True)]
        values = [
            (start[path] + point[:, None, None] * change).requires_grad_()
            for start, change in zip(starts, changes, strict=True)
        ]
        gradients = torch.autograd.grad(function(path, tuple(values)).sum(), values)
        slopes = [(g * change).sum(2) for g, change in zip(gradients, changes, strict=True)]
        # A matrix product sums the points of a path in a fixed order; index_add on a GPU does not.
        attributions += torch.einsum(
            "pn,nmg->pmg", weight * (path == paths[:, None]), torch.stack(slopes, 1)
        )
    with torch.no_grad():
        difference = torch.cat(
            [
                function(path, tuple(end[path] for end in ends))
                - function(path, tuple(start[path] for start in starts))
                for path in paths.split(batch_size)
            ]
        )
    return attributions, difference


def integrated_gradients(
    classifier: Classifier,
    store: Store,
    rows: np.ndarray,
    target: int,
    n_steps: int,
    batch_size: int = 64,
    baseline: Values | np.ndarray | None = None,
    against: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Attribute a class's log-odds to the genes' values (Sundararajan et al. 2017).

    In float32 on any device, because rounding in bfloat16 violates completeness. Paths are lines
    between counts; with the architecture of the paper between embedded bins, of which the head
    pools the genes expressed in the explained cell along the whole path. Promoters that were not
    measured in the cell or in its baseline get no attribution.

    Parameters
    ----------
    classifier
        Merged, in evaluation mode; its precision is set to float32.
    store, rows
        The cells to explain.
    target
        Index of the class.
    n_steps
        Points per path (Gauss-Legendre).
    batch_size
        Points evaluated at once.
    baseline
        Start of the paths: the cell in which every value is zero (None), the mean cell
        (:func:`average_values`), or one cell per path ((cells,) rows of the store).
    against
        Index of the other class of the log-odds; all other classes if None.

    Returns
    -------
    attributions : ndarray of float32, (cells, 2, genes)
        Of RNA and of the promoter.
    completeness : ndarray, (cells,)
        \\|sum of attributions - difference of the log-odds\\|, relative to that difference or to
        one nat, whichever is larger: 0 for an exact integral.
    """
    set_precision(classifier.encoder, "float32")
    device = next(classifier.parameters()).device
    others = [i for i in range(len(classifier.classes)) if i != target]
    others = others if against is None else [against]
    frozen = [p for p in classifier.parameters() if p.requires_grad]
    for parameter in frozen:  # only gradients of the inputs are needed
        parameter.requires_grad_(False)
    attributions = [np.zeros((0, 2, classifier.encoder.config.n_genes), dtype=np.float32)]
    errors = [np.zeros(0)]
    parts = cut_rows(np.arange(len(rows)), max(1, batch_size // 8))
    loader = Loader(store, [rows[part] for part in parts], device)
    for part, (rna, promoter) in zip(parts, loader, strict=True):
        rna, promoter = mask_modality(rna, promoter, classifier.modalities)
        counts = rna, promoter
        ends = make_values(classifier, *counts)
        starts = _find_starts(classifier, store, baseline, part, ends, is_measured(promoter))

        def function(path: Tensor, values: Values, counts: Values = counts) -> Tensor:
            rna, promoter = (x[path] for x in counts)
            return log_odds(classifier, values, rna, promoter, target, others)

        found = None
        while found is None:
            try:
                found, difference = integrate_paths(function, starts, ends, n_steps, batch_size)
            except torch.OutOfMemoryError:
                batch_size = halve_batch(batch_size)
        delta = (found.sum((1, 2)) - difference).abs()
        attributions.append(found.cpu().numpy())
        errors.append((delta / difference.abs().clamp(min=1.0)).double().cpu().numpy())
    for parameter in frozen:
        parameter.requires_grad_(True)
    return np.concatenate(attributions), np.concatenate(errors)


def _find_starts(
    classifier: Classifier,
    store: Store,
    baseline: Values | np.ndarray | None,
    part: np.ndarray,
    ends: Values,
    measured: Tensor,
) -> Values:
    """Return the starts of the paths: values of the same shape as the ends."""
    device = ends[0].device
    both_measured = measured
    if baseline is None:
        zeros = torch.zeros(2, 1, ends[0].shape[1], device=device)
        rna, promoter = make_values(classifier, *zeros)
    elif isinstance(baseline, tuple):
        rna, promoter = baseline
    else:
        counts = densify(store, baseline[part], device)
        rna, promoter = make_values(classifier, *counts)
        both_measured = measured & is_measured(counts[1])
    promoter = torch.where(both_measured[:, None, None], promoter, ends[1])
    return rna.expand_as(ends[0]), promoter


def refine_gradients(
    classifier: Classifier,
    store: Store,
    rows: np.ndarray,
    target: int,
    n_steps: int,
    batch_size: int = 64,
    baseline: Values | np.ndarray | None = None,
    against: int | None = None,
    tolerance: float = 0.02,
    doublings: int = 2,
) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`integrated_gradients`, with more steps for errors above ``tolerance``.

    The number of steps is doubled up to ``doublings`` times; the returned completeness is that of
    the last attempt.
    """

    def integrate(chosen: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        start = baseline[chosen] if isinstance(baseline, np.ndarray) else baseline
        return integrated_gradients(
            classifier, store, rows[chosen], target, steps, batch_size, start, against
        )

    attributions, errors = integrate(np.arange(len(rows)), n_steps)
    for i in range(doublings):
        above = np.flatnonzero(errors > tolerance)
        if len(above) == 0:
            break
        attributions[above], errors[above] = integrate(above, n_steps * 2 ** (i + 1))
    return attributions, errors


def choose_batch_size(
    classifier: Classifier,
    store: Store,
    rows: np.ndarray,
    memory_gib: float | None = None,
    mean: Values | None = None,
) -> int:
    """Choose the number of points per batch from the memory that one point needs.

    It is measured half way between the two cells with the most expressed genes: a point has a token
    for each gene of either.

    Parameters
    ----------
    classifier, store, rows
        The model, and the cells to explain.
    memory_gib
        Memory for the tensors of a forward and a backward pass. None: half of the free GPU memory,
        or 4 GiB on the CPU.
    mean
        Start of all paths, if it is a mean cell.

    Returns
    -------
    int
        At least one.
    """
    set_precision(classifier.encoder, "float32")  # as in integrated_gradients
    device = next(classifier.parameters()).device
    if memory_gib is None:
        free = torch.cuda.mem_get_info(device)[0] / 2**30 if device.type == "cuda" else 8.0
        memory_gib = free / 2
    counts = mask_modality(*densify(store, np.sort(rows), device), classifier.modalities)
    n_expressed = ((counts[0] > 0) | (counts[1] > 0)).sum(1)
    most = n_expressed.argsort(descending=True, stable=True)
    rna, promoter = (part[most[:1]] for part in counts)
    ends = make_values(classifier, rna, promoter)
    starts = mean or make_values(classifier, *(part[most[:2][-1:]] for part in counts))
    values = [((a + b) / 2).requires_grad_() for a, b in zip(starts, ends, strict=True)]
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        log_odds(classifier, (values[0], values[1]), rna, promoter, 0, [1])
    for parameter in classifier.parameters():  # parameters are shared by all points
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    needed = BACKWARD_FACTOR * sum(kept.values()) / 2**30
    points = int(np.clip(memory_gib / needed, 1, MAX_POINTS))
    logger.info(
        "integrated gradients: %.3g GiB per point, %d points per batch in %.3g GiB",
        needed,
        points,
        memory_gib,
    )
    return points
