"""Distributed training: one process per GPU, on one node or several."""

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

# Timeout of the other processes while the first one validates or writes a checkpoint.
PATIENCE = timedelta(hours=2)
# Slurm starts one torchrun per node.
SRUN = ["srun", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]


def rank() -> int:
    """Return the rank of this process, 0 if there is only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def n_processes() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def take_processes(gpus: int) -> int:
    """Take GPUs and return the number of processes to start: one per GPU, at least one.

    Raises
    ------
    InputError
        See :func:`scdyn.training.devices.n_gpus`.
    """
    take_gpus(gpus)
    return max(1, min(gpus, n_gpus()))


def launch(n_nodes: int, per_node: int, n_threads: int) -> None:
    """Replace this process by torchrun, if several processes are to train.

    Each process that torchrun starts runs this program from its beginning and returns from this
    function, so code before the call also runs in the launching process. On several nodes srun
    starts one torchrun per node, within this Slurm job.

    Parameters
    ----------
    n_nodes, per_node
        Number of nodes, and of processes per node.
    n_threads
        CPU cores per node.

    Raises
    ------
    InputError
        If ``n_nodes`` is above 1 outside Slurm.
    """
    if is_started_by_torchrun() or n_nodes == per_node == 1:
        return
    logger.info("starting %d processes on each of %d nodes", per_node, n_nodes)
    command = [*torchrun(n_nodes, per_node, n_threads, os.environ.get("SLURM_JOB_ID")), *sys.argv]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp(command[0], command)


def is_started_by_torchrun() -> bool:
    """Tell whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def torchrun(n_nodes: int, per_node: int, n_threads: int, job: str | None) -> list[str]:
    """Return the command line of torchrun.

    Parameters
    ----------
    n_nodes, per_node
        Number of nodes, and of processes per node.
    n_threads
        CPU cores per node.
    job
        Id of this Slurm job.

    Raises
    ------
    InputError
        If ``n_nodes`` is above 1 outside Slurm.
    """
    program = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={per_node}"]
    if n_nodes == 1:
        return [*program, "--standalone"]
    if job is None:
        raise InputError(
            "GPU",
            f"models: nodes is {n_nodes}, but this is not a Slurm job; run with --profile slurm, "
            "or set nodes to 1.",
        )
    # Above the ephemeral ports, and different for each job.
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
        # This script runs on the first node.
        f"--rdzv-endpoint={socket.gethostname()}:{port}",
    ]


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun started, each with its own GPU; alone, do nothing.

    Without GPUs a process whose work succeeds exits at the end of the block: gloo's threads can
    abort the interpreter's own shutdown (pytorch/pytorch#179291).
    """
    if not is_started_by_torchrun():
        yield
        return
    if n_gpus():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if n_gpus() else "gloo", timeout=PATIENCE)
    if dist.get_rank() > 0:  # progress is logged by the first process
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        dist.destroy_process_group()
    if not n_gpus():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its sum over the processes."""
    if n_processes() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    # One message, because latency of hundreds of messages costs more than a copy.
    together = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(together)
    pieces = together.split([gradient.numel() for gradient in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))


def copy_from_first(module: nn.Module) -> None:
    """Copy parameters and buffers of the first process to all, in place.

    What each process computes for itself can differ by rounding between processors.
    """
    if n_processes() > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, src=0)


def sum_values(values: Tensor) -> Tensor:
    """Sum a tensor over the processes, in place."""
    if n_processes() > 1:
        dist.all_reduce(values)
    return values


def any_process(flag: bool, device: torch.device) -> bool:
    """Tell whether ``flag`` is true in any of the processes."""
    if n_processes() == 1:
        return flag
    return bool(sum_values(torch.tensor(float(flag), device=device)).item())


def wait() -> None:
    """Wait for all processes."""
    if n_processes() > 1:
        dist.barrier()
