"""Several processes, one a GPU, on one node or several, that train one model together."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from scdyn.errors import InputError
from scdyn.log import logger
from scdyn.training.devices import n_gpus, take_gpus

# Others wait while the first process validates or writes a checkpoint.
PATIENCE = timedelta(hours=2)
# Slurm starts one torchrun a node.
SRUN = ["srun", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]


def rank() -> int:
    """Number of this process, 0 if there is but one."""
    return dist.get_rank() if dist.is_initialized() else 0


def n_processes() -> int:
    """Count the processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def take_processes(gpus: int) -> int:
    """Take GPUs for processes, and count those that are worth starting: one a GPU, at least one.

    Raises
    ------
    InputError
        See :func:`scdyn.training.devices.n_gpus`.
    """
    take_gpus(gpus)
    return max(1, min(gpus, n_gpus()))


def launch(n_nodes: int, per_node: int, n_threads: int) -> None:
    """Go on in several processes, if several are asked for: this one becomes torchrun.

    Each of the processes that torchrun starts runs this program from its beginning, and passes by
    here; what stands before the call is thus done once more than there are processes. On several
    nodes Slurm's srun starts a torchrun each, within the job that this is.

    Parameters
    ----------
    n_nodes, per_node
        Nodes, and processes on each of them.
    n_threads
        Processors of each node.

    Raises
    ------
    InputError
        If several nodes are asked for outside Slurm.
    """
    if is_started_by_torchrun() or n_nodes == per_node == 1:
        return
    logger.info("starting %d processes on each of %d nodes", per_node, n_nodes)
    command = [*torchrun(n_nodes, per_node, n_threads, os.environ.get("SLURM_JOB_ID")), *sys.argv]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp(command[0], command)


def is_started_by_torchrun() -> bool:
    """Tell whether this is one of several processes."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def torchrun(n_nodes: int, per_node: int, n_threads: int, job: str | None) -> list[str]:
    """Command line that starts processes which find one another.

    Parameters
    ----------
    n_nodes, per_node
        Nodes, and processes on each of them.
    n_threads
        Processors of each node.
    job
        Number of the job of Slurm that this is.

    Raises
    ------
    InputError
        If several nodes are asked for outside Slurm.
    """
    program = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={per_node}"]
    if n_nodes == 1:
        return [*program, "--standalone"]
    if job is None:
        raise InputError(
            "GPU",
            f"models: {n_nodes} nodes are asked for, but this is no job of Slurm; run with "
            "--profile slurm, or set nodes to 1.",
        )
    # Above the ports that systems give away by themselves, and another one for each job.
    port = 61000 + int(job) % 4000
    return [
        *SRUN,
        f"--nodes={n_nodes}",
        f"--ntasks={n_nodes}",
        f"--cpus-per-task={n_threads}",
        *program,
        f"--nnodes={n_nodes}",
        "--rdzv-backend=c10d",
        f"--rdzv-id={job}",
        # Here is the first of the nodes.
        f"--rdzv-endpoint={socket.gethostname()}:{port}",
    ]


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun started, each with its own GPU; alone, do nothing."""
    if not is_started_by_torchrun():
        yield
        return
    if n_gpus():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if n_gpus() else "gloo", timeout=PATIENCE)
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


def any_process(told: bool, device: torch.device) -> bool:
    """Tell whether any of the processes was told something, so that all of them heed it."""
    if n_processes() == 1:
        return told
    return bool(sum_values(torch.tensor(float(told), device=device)).item())


def wait() -> None:
    """Go on when all processes have come here."""
    if n_processes() > 1:
        dist.barrier()
