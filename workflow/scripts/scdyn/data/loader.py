"""Batches of cells for the model: order of reading, and reading ahead of use."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from scdyn.data.tokens import NOT_MEASURED, TokenStore
from scdyn.errors import InputError
from scdyn.log import logger

T = TypeVar("T")


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


def is_measured(bins: Tensor) -> Tensor:
    """Tell per cell whether a modality was measured: bins (B, G) to boolean (B,)."""
    return bins[:, 0] != NOT_MEASURED


def expressed_genes(rna: Tensor, promoter: Tensor) -> Tensor:
    """Tell which genes have counts in either modality: bins (B, G) each to boolean (B, G)."""
    seen = ((bins > 0) & (bins != NOT_MEASURED) for bins in (rna, promoter))
    return torch.logical_or(*seen)


def densify(
    store: TokenStore | MemoryStore, rows: np.ndarray, pin: bool = False
) -> tuple[Tensor, Tensor]:
    """Read the bins of cells into dense tensors on the CPU.

    Parameters
    ----------
    store
        Bins of the corpus.
    rows
        (n,) positions of the cells.
    pin
        Whether to use page-locked memory, for asynchronous copies to a GPU. It needs CUDA; torch
        reuses the memory when the copies are done.

    Returns
    -------
    rna, promoter : Tensor of uint8, (n, genes)
        ``promoter`` is :data:`~scdyn.data.tokens.NOT_MEASURED` in cells whose promoters were not
        measured.
    """
    rna, promoter = store.read(rows)
    tensors = []
    for bins in (rna, promoter):
        tensor = torch.empty(bins.shape, dtype=torch.uint8, pin_memory=pin)
        bins.toarray(out=tensor.numpy())
        tensors.append(tensor)
    tensors[1][torch.from_numpy(~store.promoter_measured(rows))] = NOT_MEASURED
    return tensors[0], tensors[1]


class MemoryStore:
    """Bins in memory, with the methods of a :class:`~scdyn.data.tokens.TokenStore`.

    Parameters
    ----------
    rna, promoter
        (cells, genes) uint8 bins.
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
        everywhere = np.ones(rna.shape[0], dtype=bool)
        self._measured = everywhere if promoter_measured is None else promoter_measured

    @classmethod
    def from_bins(cls, rna: Tensor, promoter: Tensor) -> MemoryStore:
        """Make a store of dense bins (cells, genes), as :func:`densify` returns them."""
        measured = is_measured(promoter).numpy()
        promoter = promoter.masked_fill(promoter == NOT_MEASURED, 0)
        return cls(sparse.csr_matrix(rna.numpy()), sparse.csr_matrix(promoter.numpy()), measured)

    def promoter_measured(self, rows: np.ndarray) -> np.ndarray:
        """Tell per cell (rows,) whether promoters were measured."""
        return self._measured[rows]

    def read(self, rows: np.ndarray) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """Return the bins of some cells, (rows, genes) each."""
        return self.rna[rows], self.promoter[rows]


def split_batches(rows: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut rows into batches; the last may be smaller."""
    return [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]


class Loader:
    """Iterate over batches of cells that a thread reads ahead of use.

    The thread ends with the loop over the batches, also by ``break`` or an exception. Its
    exceptions are raised in the loop. At most ``depth`` batches are in memory besides the one in
    use.

    Parameters
    ----------
    store
        Bins.
    batches
        Rows of each batch.
    device
        Device that will use the batches; for a GPU they are in page-locked memory.
    depth
        Number of batches read ahead.

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
        store: TokenStore | MemoryStore,
        batches: Sequence[np.ndarray],
        device: torch.device | str = "cpu",
        depth: int = 3,
    ) -> None:
        if depth < 1:
            raise ValueError("depth must be at least 1")
        self.store = store
        self.batches = batches
        self.depth = depth
        self.pin = torch.device(device).type == "cuda"
        self.waited_seconds = 0.0

    def __len__(self) -> int:
        """Count the batches."""
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield RNA and promoter bins (cells, genes) of each batch, on the CPU."""
        left = iter(self.batches)
        ahead: deque[Future[tuple[Tensor, Tensor]]] = deque()
        thread = ThreadPoolExecutor(1, thread_name_prefix="loader")
        try:
            while True:
                # Submit before popping, so that depth + 1 batches are in flight.
                while len(ahead) <= self.depth and (rows := next(left, None)) is not None:
                    ahead.append(thread.submit(densify, self.store, rows, self.pin))
                if not ahead:
                    return
                begun = time.monotonic()
                batch = ahead.popleft().result()
                self.waited_seconds += time.monotonic() - begun
                yield batch
        finally:
            thread.shutdown(cancel_futures=True)


def halve_batch(n_cells: int) -> int:
    """Halve the number of cells on the GPU at once, after it ran out of memory.

    Raises
    ------
    InputError
        If the number is 1.
    """
    torch.cuda.empty_cache()
    if n_cells == 1:
        raise InputError(
            "GPU",
            "CUDA out of memory with one cell at once; choose a smaller model (width, n_layers, "
            "n_latents), a GPU with more memory, or device: cpu.",
        )
    logger.warning(
        "CUDA out of memory with %d cells at once; retrying with %d", n_cells, n_cells // 2
    )
    return n_cells // 2


def run_batches(
    function: Callable[[Tensor, Tensor], T],
    store: TokenStore | MemoryStore,
    rows: np.ndarray,
    device: torch.device,
    batch_size: int,
) -> Iterator[T]:
    """Apply a function to batches of cells, and halve the batches if a GPU runs out of memory.

    Parameters
    ----------
    function
        Called with the RNA and promoter bins (cells, genes) of a batch, on the device; its result
        per cell must not depend on the other cells.
    store, rows
        The cells.
    device
        Device of the bins.
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
            for bins in Loader(store, split_batches(rows[place:], batch_size), device):
                result = function(*(part.to(device) for part in bins))
                place += len(bins[0])
                yield result
        except torch.OutOfMemoryError:
            batch_size = halve_batch(batch_size)
