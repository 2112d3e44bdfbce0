"""Several processes, one a GPU, that train one model together."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from scdyn.errors import InputError
from scdyn.log import logger

# Others wait while the first process validates or writes a checkpoint.
PATIENCE = timedelta(hours=2)


def rank() -> int:
    """Number of this process, 0 if there is but one."""
    return dist.get_rank() if dist.is_initialized() else 0


def n_processes() -> int:
    """Count the processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def n_gpus(most: int) -> int:
    """Count the processes that are worth starting: one a GPU that is there, at least one."""
    return max(1, min(most, torch.cuda.device_count()))


def launch(count: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call a function in one process or several that train together.

    Under ``torchrun`` the process is one of those that torchrun started. Otherwise processes
    are forked, so the caller must not have used CUDA or threads of torch before.

    Parameters
    ----------
    count
        Processes to start, unless torchrun has.
    function, arguments
        What each of them calls.

    Raises
    ------
    InputError
        If one of them does.
    """
    if "RANK" in os.environ:
        with process_group():
            function(*arguments)
    elif count == 1:
        function(*arguments)
    else:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        try:
            torch.multiprocessing.start_processes(
                _join, (count, port, function, arguments), nprocs=count, start_method="fork"
            )
        except torch.multiprocessing.ProcessRaisedException as error:
            _, found, sentence = str(error).rpartition(f"{InputError.__name__}: ")
            if found:
                raise InputError(sentence.strip()) from None
            raise


def _join(
    index: int, count: int, port: int, function: Callable[..., None], arguments: tuple
) -> None:
    """Be process ``index`` of ``count`` and call the function."""
    names = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    os.environ["MASTER_ADDR"] = "localhost"
    with process_group():
        function(*arguments)


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that the environment names, each with its own GPU."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    if dist.get_rank() > 0:  # the first speaks for all
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        dist.destroy_process_group()


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its sum over the processes."""
    if n_processes() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    # One message: what is sent weighs less than the waiting for each of hundreds.
    together = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(together)
    pieces = together.split([gradient.numel() for gradient in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))


def sum_values(values: Tensor) -> Tensor:
    """Sum a tensor over the processes, in place."""
    if n_processes() > 1:
        dist.all_reduce(values)
    return values


def wait() -> None:
    """Go on when all processes have come here."""
    if n_processes() > 1:
        dist.barrier()
