"""Cells from the disk to the model: in which order they are read, and read ahead of use."""

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
    """Draw an order in which rows that stand together on the disk are read close together.

    The sorted rows are cut into blocks, the blocks are put into random order, and the rows
    are shuffled within each buffer of blocks that follow one another.

    Parameters
    ----------
    rows
        (n,) rows to visit.
    block
        Rows a block; the last may be smaller.
    buffer_blocks
        Blocks a buffer: the more, the closer to a full shuffle and the further apart the reads.
    seed
        The same seed gives the same order, however ``rows`` were ordered.

    Returns
    -------
    ndarray, (n,)
        Every one of ``rows`` once.

    Raises
    ------
    ValueError
        If a block or a buffer would hold nothing.
    """
    if block < 1 or buffer_blocks < 1:
        raise ValueError("a block holds one row or more, a buffer one block or more")
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
    """Tell in which cells a modality was measured: bins (B, G) to boolean (B,)."""
    return bins[:, 0] != NOT_MEASURED


def expressed_genes(rna: Tensor, promoter: Tensor) -> Tensor:
    """Tell which genes (B, G) either modality saw, from their bins."""
    seen = ((bins > 0) & (bins != NOT_MEASURED) for bins in (rna, promoter))
    return torch.logical_or(*seen)


def densify(
    store: TokenStore | MemoryStore, rows: np.ndarray, pin: bool = False
) -> tuple[Tensor, Tensor]:
    """Read cells' bins into dense tensors on the CPU.

    Parameters
    ----------
    store
        Tokens of the corpus.
    rows
        (n,) positions of the cells.
    pin
        Whether to use page-locked memory, from which a GPU copies without waiting. It needs
        CUDA; torch uses the memory again once the copies out of it are done.

    Returns
    -------
    rna, promoter : Tensor of uint8, (n, genes)
        A cell whose promoters were not measured has :data:`~scdyn.data.tokens.NOT_MEASURED` there.
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
    """Bins that are in memory, read like those of a :class:`~scdyn.data.tokens.TokenStore`.

    Parameters
    ----------
    rna, promoter
        (cells, genes) uint8 bins.
    promoter_measured
        (cells,) boolean: in which cells promoters were measured; in all if None.
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
        """Hold dense bins (cells, genes), as :func:`densify` returns them."""
        measured = is_measured(promoter).numpy()
        promoter = promoter.masked_fill(promoter == NOT_MEASURED, 0)
        return cls(sparse.csr_matrix(rna.numpy()), sparse.csr_matrix(promoter.numpy()), measured)

    def promoter_measured(self, rows: np.ndarray) -> np.ndarray:
        """Tell in which cells (rows,) promoters were measured."""
        return self._measured[rows]

    def read(self, rows: np.ndarray) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """Return the bins of some cells, (rows, genes) each."""
        return self.rna[rows], self.promoter[rows]


def split_batches(rows: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut rows into batches; the last may be smaller."""
    return [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]


class Loader:
    """Batches of cells, read by one thread while the model works on those before.

    Leaving the loop over it, by its end, ``break`` or an exception, ends the thread; what
    the thread raises is raised in the loop. At most ``depth`` batches are held besides the
    one in use.

    Parameters
    ----------
    store
        Tokens.
    batches
        Rows of each batch.
    device
        Where the batches will be used: for a GPU they are put into page-locked memory.
    depth
        Batches read ahead.

    Attributes
    ----------
    waited_seconds : float
        How long the loop has waited for batches, in all. It grows with each step if reading
        falls behind the model.

    Raises
    ------
    ValueError
        If none is to be read ahead.
    """

    def __init__(
        self,
        store: TokenStore | MemoryStore,
        batches: Sequence[np.ndarray],
        device: torch.device | str = "cpu",
        depth: int = 3,
    ) -> None:
        if depth < 1:
            raise ValueError("depth is at least one")
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
                # The one that is taken next makes room for itself.
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
    """Half of the cells that were on a device at once, after its memory was out.

    Raises
    ------
    InputError
        If it was one.
    """
    torch.cuda.empty_cache()
    if n_cells == 1:
        raise InputError(
            "GPU",
            "the GPU's memory does not hold one cell; choose a smaller model (width, n_layers, "
            "n_latents), a larger GPU, or device: cpu.",
        )
    logger.warning(
        "the GPU's memory is out with %d cells at once: going on with %d", n_cells, n_cells // 2
    )
    return n_cells // 2


def run_batches(
    function: Callable[[Tensor, Tensor], T],
    store: TokenStore | MemoryStore,
    rows: np.ndarray,
    device: torch.device,
    batch_size: int,
) -> Iterator[T]:
    """Call a function on cells, batch by batch, and halve the batches if memory is out.

    Parameters
    ----------
    function
        Called with the RNA and promoter bins (cells, genes) of a batch, on the device; what it
        returns for a cell must not depend on the others.
    store, rows
        The cells.
    device
        Where the bins go.
    batch_size
        Cells at once.

    Yields
    ------
    object
        What the function returned, in the order of the rows.

    Raises
    ------
    InputError
        If not even one cell fits.
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
