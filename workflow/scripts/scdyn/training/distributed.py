"""Several processes, one a GPU, on one node or several, that train one model together."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from scdyn.errors import InputError
from scdyn.io.files import atomic
from scdyn.log import logger
from scdyn.training.devices import n_gpus, take_gpus

# Others wait while the first process validates or writes a checkpoint.
PATIENCE = timedelta(hours=2)
# Names the file that takes the sentence of a process' InputError to the one that started it.
REFUSAL = "SCDYN_REFUSAL"
# Slurm starts one torchrun a node.
SRUN = ["srun", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]


def rank() -> int:
    """Number of this process, 0 if there is but one."""
    return dist.get_rank() if dist.is_initialized() else 0


def n_processes() -> int:
    """Count the processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def processes_for(gpus: int) -> int:
    """Take GPUs for processes, and count those that are worth starting: one a GPU, at least one.

    Raises
    ------
    InputError
        See :func:`scdyn.training.devices.n_gpus`.
    """
    take_gpus(gpus)
    return max(1, min(gpus, n_gpus()))


def launch(
    n_nodes: int, per_node: int, n_threads: int, function: Callable[..., None], *arguments: Any
) -> None:
    """Call a function in one process or in several that train together.

    Several are started by torchrun, each of which runs this program from its beginning; what
    stands before the call is thus done in each of them, and what stands behind it only in the
    process that started them. On several nodes a torchrun each is started by Slurm's srun, within
    the job that this is.

    Parameters
    ----------
    n_nodes, per_node
        Nodes, and processes on each of them.
    n_threads
        Processors of each node.
    function, arguments
        What each process calls.

    Raises
    ------
    InputError
        If one of them does, or if several nodes are asked for outside Slurm.
    RuntimeError
        If they fail otherwise.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        try:
            with process_group():
                function(*arguments)
        except InputError as error:
            if REFUSAL in os.environ:
                with atomic(os.environ[REFUSAL]) as temporary:
                    temporary.write_text(str(error))
            raise
        # Threads of gloo's that ask for the interpreter while it ends abort the process (seen here,
        # and in pytorch's pull request 179291). All is written: end without its ending.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    elif n_nodes == per_node == 1:
        function(*arguments)
    else:
        logger.info("starting %d processes on each of %d nodes", per_node, n_nodes)
        # Beside the program, where all nodes can write.
        refusal = Path(f"{sys.argv[0]}.{os.getpid()}.refusal")
        environment = os.environ | {REFUSAL: str(refusal.resolve())}
        command = [
            *torchrun(n_nodes, per_node, n_threads, os.environ.get("SLURM_JOB_ID")),
            *sys.argv,
        ]
        code = _run_forwarding_signals(command, environment)
        if refusal.exists():
            refused = refusal.read_text()
            refusal.unlink()
            raise InputError.from_text(refused)
        if code:
            raise RuntimeError(f"training in several processes ended with status {code}")


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


def _run_forwarding_signals(command: list[str], environment: dict[str, str]) -> int:
    """Run a command that gets the signals which would end this process; returns its status."""
    process = subprocess.Popen(command, env=environment)

    def forward(number: int, _: object) -> None:
        process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that the environment names, each with its own GPU."""
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
