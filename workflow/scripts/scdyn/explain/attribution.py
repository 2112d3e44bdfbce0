"""Integrated Gradients of a class's log-odds over gene and modality, within a memory budget."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from scdyn.data.loader import (
    Loader,
    MemoryStore,
    densify,
    expressed_genes,
    halve_batch,
    is_measured,
    run_batches,
    split_batches,
)
from scdyn.data.tokens import TokenStore
from scdyn.log import logger
from scdyn.model.classifier import Classifier, make_zero_cells, mask_modality, select_zero_cell

Values = tuple[Tensor, Tensor]

# More points at once gain a CPU nothing, and a GPU little.
MOST_POINTS = 64
# What the backward pass needs beside the tensors that the forward pass has kept.
BACKWARD_FACTOR = 2.0


def embedded_values(classifier: Classifier, rna: Tensor, promoter: Tensor) -> Values:
    """Embeddings (cells, genes, width) of RNA and promoter bins, as the classifier reads them."""
    model = classifier.encoder
    rna, promoter = mask_modality(rna, promoter, classifier.modalities)
    rna, promoter = model.value_ids(rna), model.value_ids(promoter)
    return model.rna_embedding(rna).detach(), model.promoter_embedding(promoter).detach()


def log_odds(
    classifier: Classifier,
    values: Values,
    zero_cells: Tensor,
    expressed: Tensor,
    measured: Tensor,
    target: int,
    against: list[int],
) -> Tensor:
    """Log-odds (cells,) of a class against some others, from the embedded values.

    Log-odds rather than the logit: what speaks for every class alike then counts for none.
    """
    tokens = values[0] + values[1] + classifier.encoder.gene_embedding.weight
    zero_cell = select_zero_cell(zero_cells, measured)
    logits = classifier.head(classifier.encoder.encode(tokens), zero_cell, expressed)
    return logits[:, target] - logits[:, against].logsumexp(1)


def mean_values(
    classifier: Classifier, store: TokenStore | MemoryStore, rows: np.ndarray, batch_size: int = 64
) -> Values:
    """Mean cell: the embeddings of some cells' values, averaged over the cells; (1, genes, width).

    Promoters are averaged over the cells in which they were measured.
    """
    device = next(classifier.parameters()).device

    def sums_of(rna: Tensor, promoter: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rna, promoter = mask_modality(rna, promoter, classifier.modalities)
        measured = is_measured(promoter)
        first, second = embedded_values(classifier, rna, promoter)
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
        Called with the paths (points,) that some points lie on, and the values at the points;
        returns a number per point (points,).
    starts, ends
        (paths, genes, width) values of each modality.
    n_steps
        Points per path: exact for a function that along the path is a polynomial of degree
        2 ``n_steps`` or less.
    batch_size
        Points evaluated at once, of any paths.

    Returns
    -------
    attributions : Tensor, (paths, modalities, genes)
        Summed over the width.
    difference : Tensor, (paths,)
        The function at the ends less at the starts, which the attributions sum to.
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
        # A product sums the points of each path in one order, whatever the device.
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
    store: TokenStore | MemoryStore,
    rows: np.ndarray,
    target: int,
    n_steps: int,
    batch_size: int = 64,
    baseline: Values | np.ndarray | None = None,
    against: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Attribute a class's log-odds to the genes' values (Sundararajan et al. 2017).

    In float32 on any device: in bfloat16 the sum would not add up. Attributions are summed
    over the embedding's width. The gene embeddings are the same at both ends of a path and get
    none, and so do promoters that the cell or the one it starts from lacks. Which genes are
    pooled is that of the explained cell all along the path, so that attributions go to genes
    that the cell expresses, and to others as far as they change these.

    Parameters
    ----------
    classifier
        Merged, in evaluation mode; its precision is left at float32.
    store, rows
        The cells to explain.
    target
        Index of the class.
    n_steps
        Points on a path (Gauss-Legendre).
    batch_size
        Points evaluated at once.
    baseline
        Where the paths start: in the cell in which every value is zero (None), in one mean cell
        (:func:`mean_values`), or each in a cell of its own ((cells,) rows of the store).
    against
        Index of the class that the log-odds are against; all others if None.

    Returns
    -------
    attributions : ndarray of float32, (cells, 2, genes)
        Of RNA and of the promoter.
    completeness : ndarray, (cells,)
        \\|sum of attributions - difference of the log-odds\\|, relative to that difference or to
        one nat, whichever is larger: 0 for an exact integral.
    """
    classifier.encoder.set_precision("float32")
    device = next(classifier.parameters()).device
    others = [i for i in range(len(classifier.classes)) if i != target]
    others = others if against is None else [against]
    frozen = [p for p in classifier.parameters() if p.requires_grad]
    for parameter in frozen:  # only the inputs' gradients are wanted
        parameter.requires_grad_(False)
    zero_cells = classifier.encode_zero_cells()

    attributions = [np.zeros((0, 2, classifier.encoder.config.n_genes), dtype=np.float32)]
    errors = [np.zeros(0)]
    parts = split_batches(np.arange(len(rows)), max(1, batch_size // 8))
    loader = Loader(store, [rows[part] for part in parts], device)
    for part, (rna, promoter) in zip(parts, loader, strict=True):
        rna, promoter = mask_modality(rna.to(device), promoter.to(device), classifier.modalities)
        held = expressed_genes(rna, promoter), is_measured(promoter)
        ends = embedded_values(classifier, rna, promoter)
        starts = _starts(classifier, store, baseline, part, ends, held[1])

        def function(path: Tensor, values: Values, held: Values = held) -> Tensor:
            expressed, measured = (x[path] for x in held)
            return log_odds(classifier, values, zero_cells, expressed, measured, target, others)

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


def _starts(
    classifier: Classifier,
    store: TokenStore | MemoryStore,
    baseline: Values | np.ndarray | None,
    part: np.ndarray,
    ends: Values,
    measured: Tensor,
) -> Values:
    """Where the paths of some cells start: embedded values of the shape of their ends."""
    device = ends[0].device
    known = measured
    if baseline is None:
        zeros = make_zero_cells(ends[0].shape[1], device)
        rna, promoter = embedded_values(classifier, *(zero[:1] for zero in zeros))
    elif isinstance(baseline, tuple):
        rna, promoter = baseline
    else:
        bins = [x.to(device) for x in densify(store, baseline[part])]
        rna, promoter = embedded_values(classifier, *bins)
        known = measured & is_measured(bins[1])
    promoter = torch.where(known[:, None, None], promoter, ends[1])
    return rna.expand_as(ends[0]), promoter


def refined_gradients(
    classifier: Classifier,
    store: TokenStore | MemoryStore,
    rows: np.ndarray,
    target: int,
    n_steps: int,
    batch_size: int = 64,
    baseline: Values | np.ndarray | None = None,
    against: int | None = None,
    tolerance: float = 0.02,
    doublings: int = 2,
) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`integrated_gradients`; cells off by more than ``tolerance`` get more steps.

    Twice as many, and again up to ``doublings`` times. What is then left is told by the
    completeness that is returned.
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


def points_at_once(
    classifier: Classifier,
    store: TokenStore | MemoryStore,
    row: int,
    memory_gib: float | None = None,
) -> int:
    """How many points of a path fit into the memory at once, found by one of them.

    Parameters
    ----------
    classifier, store, row
        The model, and a cell to try it on.
    memory_gib
        For the tensors of a forward and a backward pass. None: half of what the GPU has free, on
        the CPU 4 GiB.

    Returns
    -------
    int
        At least one.
    """
    classifier.encoder.set_precision("float32")  # that of the paths
    device = next(classifier.parameters()).device
    if memory_gib is None:
        free = torch.cuda.mem_get_info(device)[0] / 2**30 if device.type == "cuda" else 8.0
        memory_gib = free / 2
    rna, promoter = (bins.to(device) for bins in densify(store, np.array([row])))
    rna, promoter = mask_modality(rna, promoter, classifier.modalities)
    with torch.no_grad():
        zero_cells = classifier.encode_zero_cells()
    values = [x.requires_grad_() for x in embedded_values(classifier, rna, promoter)]
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        held = expressed_genes(rna, promoter), is_measured(promoter)
        log_odds(classifier, tuple(values), zero_cells, *held, 0, [1])
    for parameter in classifier.parameters():  # these are there once, however many the points
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    needed = BACKWARD_FACTOR * sum(kept.values()) / 2**30
    points = int(np.clip(memory_gib / needed, 1, MOST_POINTS))
    logger.info("a point takes %.3g GiB: %d at once in %.3g GiB", needed, points, memory_gib)
    return points
