"""Batches of cells for the model: order of reading, and reading ahead of use."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from scdyn.data.corpus import cut_rows
from scdyn.data.tokens import MODALITIES, SparseCells, TokenStore
from scdyn.errors import InputError
from scdyn.io.shards import Buffers, Cells
from scdyn.log import logger
from scdyn.pp.counts import sum_cells

T = TypeVar("T")

# Cells that are read at once: those that block_shuffle mixes in training.
CELLS_PER_READ = 16_384


def block_shuffle(
    rows: np.ndarray, block: int, buffer_blocks: int, seed: int | list[int]
) -> np.ndarray:
    """Shuffle rows so that rows that are close on disk are read together.

    The sorted rows are cut into blocks, the blocks are shuffled, and the rows are shuffled within
    each buffer of consecutive blocks.

    Parameters
    ----------
    rows
        (n,) rows.
    block
        Rows per block; the last block may be smaller.
    buffer_blocks
        Blocks per buffer: with more blocks the order is closer to a full shuffle, and reads are
        further apart.
    seed
        Seed of the order; the order of ``rows`` does not matter.

    Returns
    -------
    ndarray, (n,)
        Each of ``rows`` once.

    Raises
    ------
    ValueError
        If ``block`` or ``buffer_blocks`` is less than 1.
    """
    if block < 1 or buffer_blocks < 1:
        raise ValueError("block and buffer_blocks must be at least 1")
    rng = np.random.default_rng(seed)
    rows = np.sort(rows)
    starts = rng.permutation(np.arange(0, len(rows), block))
    order = [rows[:0]]
    for first in range(0, len(starts), buffer_blocks):
        chosen = starts[first : first + buffer_blocks]
        buffer = np.concatenate([rows[start : start + block] for start in chosen])
        order.append(rng.permutation(buffer))
    return np.concatenate(order)


# Count of a modality that was not measured in a cell.
NOT_MEASURED = -1
# Larger counts are read as this, so that batches are half as large.
LARGEST = np.iinfo(np.int16).max


def is_measured(counts: Tensor) -> Tensor:
    """Tell per cell whether a modality was measured: counts (B, G) to boolean (B,)."""
    return counts[:, 0] >= 0


def expressed_genes(rna: Tensor, promoter: Tensor) -> Tensor:
    """Tell which genes have counts in either modality: counts (B, G) each to boolean (B, G)."""
    return (rna > 0) | (promoter > 0)


def move(values: np.ndarray, device: torch.device) -> Tensor:
    """Copy an array to a device, asynchronously if it is a GPU."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def fill(cells: SparseCells, n_genes: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Move the counts of cells to a device, where they become dense.

    Parameters
    ----------
    cells
        The cells.
    n_genes
        Genes of the vocabulary.
    device
        Device of the counts.

    Returns
    -------
    rna, promoter : Tensor of int16, (cells, genes)
        ``promoter`` is :data:`NOT_MEASURED` in cells whose promoters were not measured.
    """
    device = torch.device(device)
    rna, promoter = (_fill(cells.values[modality], n_genes, device) for modality in MODALITIES)
    promoter[move(~cells.measured, device)] = NOT_MEASURED
    return rna, promoter


def _fill(cells: Cells, n_genes: int, device: torch.device) -> Tensor:
    lengths = move(np.diff(cells.indptr), device)
    row = torch.repeat_interleave(lengths, output_size=len(cells.data))
    gene = move(cells.indices, device).long()
    counts = move(cells.data, device)
    if cells.data.dtype.itemsize > 1:
        counts = counts.int().clamp_(max=LARGEST)
    dense = torch.zeros(len(lengths), n_genes, dtype=torch.int16, device=device)
    dense.view(-1).scatter_(0, row.mul_(n_genes).add_(gene), counts.to(torch.int16))
    return dense


def mask_modality(rna: Tensor, promoter: Tensor, modalities: str) -> tuple[Tensor, Tensor]:
    """Replace the counts of the modality that a model does not use by "not measured".

    Parameters
    ----------
    rna, promoter
        (B, G) counts.
    modalities
        Modalities that the model uses: "both", "rna" or "promoter".
    """
    if modalities == "rna":
        return rna, torch.full_like(promoter, NOT_MEASURED)
    if modalities == "promoter":
        return torch.full_like(rna, NOT_MEASURED), promoter
    return rna, promoter


def densify(
    store: Store, rows: np.ndarray, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Read the counts of cells into dense tensors on a device; see :func:`fill`."""
    return fill(store.read_cells(rows), store.n_genes, device)


class MemoryStore:
    """Counts in memory, with the methods of a :class:`~scdyn.data.tokens.TokenStore`.

    Parameters
    ----------
    rna, promoter
        (cells, genes) counts.
    promoter_measured
        (cells,) boolean: whether promoters were measured; in all cells if None.
    """

    def __init__(
        self,
        rna: sparse.csr_matrix,
        promoter: sparse.csr_matrix,
        promoter_measured: np.ndarray | None = None,
    ) -> None:
        self.rna, self.promoter = rna, promoter
        self.n_genes = rna.shape[1]
        self.buffers: list[Buffers] = []
        everywhere = np.ones(rna.shape[0], dtype=bool)
        self._measured = everywhere if promoter_measured is None else promoter_measured

    @classmethod
    def from_dense(cls, rna: Tensor, promoter: Tensor) -> MemoryStore:
        """Make a store of dense counts (cells, genes), as :func:`densify` returns them."""
        measured = is_measured(promoter).numpy()
        found = [sparse.csr_matrix(counts.clamp(min=0).numpy()) for counts in (rna, promoter)]
        return cls(found[0], found[1], measured)

    def promoter_measured(self, rows: np.ndarray) -> np.ndarray:
        """Tell per cell (rows,) whether promoters were measured."""
        return self._measured[rows]

    def totals(self, rows: np.ndarray) -> np.ndarray:
        """Sum the counts of RNA and of promoters of some cells: (2, rows)."""
        return np.stack([sum_cells(part[rows]) for part in (self.rna, self.promoter)])

    def read_cells(self, rows: np.ndarray, buffers: Buffers | None = None) -> SparseCells:
        """Return the counts of some cells, in the order of the rows."""
        parts = zip(MODALITIES, (self.rna[rows], self.promoter[rows]), strict=True)
        values = {name: Cells(part.data, part.indices, part.indptr) for name, part in parts}
        return SparseCells(values, self._measured[rows])


Store: TypeAlias = TokenStore | MemoryStore


def group_batches(batches: Iterable[np.ndarray], n_cells: int) -> Iterator[list[np.ndarray]]:
    """Group consecutive batches until each group has so many cells."""
    group: list[np.ndarray] = []
    n_grouped = 0
    for batch in batches:
        group.append(batch)
        n_grouped += len(batch)
        if n_grouped >= n_cells:
            yield group
            group, n_grouped = [], 0
    if group:
        yield group


def read_groups(store: Store, batches: Iterable[np.ndarray]) -> Generator[SparseCells, None, None]:
    """Read batches of cells: many batches at once, the next ones while the current ones are used.

    Cells that are close on disk are read at once and in their order there, then mixed in memory.

    Parameters
    ----------
    store
        The cells.
    batches
        Rows of each batch.

    Yields
    ------
    SparseCells
        One per batch.
    """
    groups = group_batches(batches, CELLS_PER_READ)
    # One for the cells that are used, one for those that are read.
    free = deque(store.buffers.pop() if store.buffers else Buffers() for _ in range(2))

    def read(group: list[np.ndarray]) -> tuple[SparseCells, list[np.ndarray]]:
        rows, place = np.unique(np.concatenate(group), return_inverse=True)
        free.rotate()
        cells = store.read_cells(rows, free[0])
        return cells, np.split(place, np.cumsum([len(batch) for batch in group])[:-1])

    thread = ThreadPoolExecutor(1, thread_name_prefix="reader")
    try:
        ahead = [thread.submit(read, group) for group in islice(groups, 1)]
        while ahead:
            cells, places = ahead.pop().result()
            ahead = [thread.submit(read, group) for group in islice(groups, 1)]
            yield from map(cells.take, places)
    finally:
        thread.shutdown(cancel_futures=True)
        store.buffers.extend(free)


class Loader:
    """Iterate over batches of cells that threads read and prepare ahead of use.

    The threads end with the loop over the batches, also by ``break`` or an exception. Their
    exceptions are raised in the loop.

    Parameters
    ----------
    store
        The cells.
    batches
        Rows of each batch.
    device
        Device of the counts.
    depth
        Number of batches prepared ahead.

    Attributes
    ----------
    waited_seconds : float
        Total time that the loop has waited for batches. It grows with each step if reading is
        slower than the model.

    Raises
    ------
    ValueError
        If ``depth`` is less than 1.
    """

    def __init__(
        self,
        store: Store,
        batches: Sequence[np.ndarray],
        device: torch.device | str = "cpu",
        depth: int = 3,
    ) -> None:
        if depth < 1:
            raise ValueError("depth must be at least 1")
        self.store = store
        self.batches = batches
        self.depth = depth
        self.device = torch.device(device)
        self.waited_seconds = 0.0

    def __len__(self) -> int:
        """Count the batches."""
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield RNA and promoter counts (cells, genes) of each batch, on the device."""
        cells = read_groups(self.store, self.batches)
        ahead: deque[Future[tuple[Tensor, Tensor] | None]] = deque()
        thread = ThreadPoolExecutor(1, thread_name_prefix="loader")

        def prepare() -> tuple[Tensor, Tensor] | None:
            batch = next(cells, None)
            return None if batch is None else fill(batch, self.store.n_genes, self.device)

        try:
            while True:
                while len(ahead) <= self.depth:
                    ahead.append(thread.submit(prepare))
                begun = time.monotonic()
                counts = ahead.popleft().result()
                self.waited_seconds += time.monotonic() - begun
                if counts is None:
                    return
                yield counts
        finally:
            thread.shutdown(cancel_futures=True)
            cells.close()


def halve_batch(n_cells: int, least: int = 1) -> int:
    """Halve the number of cells on the GPU at once, after it ran out of memory.

    Raises
    ------
    InputError
        If the number is at most ``least``.
    """
    torch.cuda.empty_cache()
    if n_cells <= least:
        cells = "one cell" if n_cells == 1 else f"{n_cells} cells"
        raise InputError(
            "GPU",
            f"CUDA out of memory with {cells} at once; choose a smaller model (width, n_layers, "
            "n_latents), a GPU with more memory, or device: cpu.",
        )
    logger.warning(
        "CUDA out of memory with %d cells at once; retrying with %d", n_cells, n_cells // 2
    )
    return n_cells // 2


def run_batches(
    function: Callable[[Tensor, Tensor], T],
    store: Store,
    rows: np.ndarray,
    device: torch.device,
    batch_size: int,
) -> Iterator[T]:
    """Apply a function to batches of cells, and halve the batches if a GPU runs out of memory.

    Parameters
    ----------
    function
        Called with the RNA and promoter counts (cells, genes) of a batch, on the device; its result
        per cell must not depend on the other cells.
    store, rows
        The cells.
    device
        Device of the counts.
    batch_size
        Cells per batch.

    Yields
    ------
    object
        Results of the function, in the order of the rows.

    Raises
    ------
    InputError
        If the GPU's memory does not suffice for one cell.
    """
    place = 0
    while place < len(rows):
        try:
            for counts in Loader(store, cut_rows(rows[place:], batch_size), device):
                result = function(*counts)
                place += len(counts[0])
                yield result
        except torch.OutOfMemoryError:
            batch_size = halve_batch(batch_size)
