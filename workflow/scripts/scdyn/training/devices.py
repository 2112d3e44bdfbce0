"""Where the model runs: on a GPU or on the CPU."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

import torch

from scdyn.errors import InputError
from scdyn.log import logger
from scdyn.machine import VARIABLE, VISIBLE, hidden_gpus, list_gpus, nvidia_driver, visible_gpus

# Set in the processes of a job that has taken its GPUs.
TAKEN = "SCDYN_GPUS_TAKEN"
# Numbers of glibc's mallopt.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
# Open for as long as this process lives: what holds its GPUs against other jobs.
_locks: list[int] = []


def n_gpus() -> int:
    """Count the GPUs that may be used, none if the environment's device is the CPU.

    Raises
    ------
    InputError
        If a GPU is asked for and there is none, or if there is one that torch cannot use, unless
        the device is the CPU or ``CUDA_VISIBLE_DEVICES`` is empty.
    """
    asked = os.environ.get(VARIABLE, "auto")
    found = 0 if asked == "cpu" else torch.cuda.device_count()
    if asked == "gpu" and not found:
        visible = os.environ.get(VISIBLE)
        raise InputError(
            "GPU",
            f"device: gpu is asked for in the config, but PyTorch {torch.__version__} finds none "
            f"({'CUDA_VISIBLE_DEVICES is ' + visible if visible else 'no driver answers'}); run "
            "the job where there is one, with a build of PyTorch for it (docs/gpu.md), or set "
            "device: auto.",
        )
    if asked == "auto" and not found and not hidden_gpus() and (driver := nvidia_driver()):
        raise InputError(
            "GPU",
            f"device: auto finds NVIDIA's {driver} on this machine, but PyTorch "
            f"{torch.__version__} cannot use a GPU: {explain_unusable_gpu()} (docs/gpu.md); or set "
            "device: cpu in the config to run on the CPU all the same.",
        )
    return found


def explain_unusable_gpu() -> str:
    """Say why torch finds no GPU where there is a driver, and what helps."""
    if torch.version.cuda is None:
        return "it is a build for the CPU alone; install a build for CUDA"
    return (
        f"the driver is too old for its CUDA {torch.version.cuda}, or this job or container was "
        "given no GPU; update the driver, install a build of PyTorch for an older CUDA, or give "
        "the job a GPU"
    )


def choose_device() -> torch.device:
    """Return this process' GPU if one may be used, else the CPU, and say which it is.

    Raises
    ------
    InputError
        See :func:`n_gpus`.
    """
    take_gpus(1)
    if n_gpus():
        logger.info("running on GPU %s", torch.cuda.get_device_name())
        return torch.device("cuda", torch.cuda.current_device())
    keep_memory()
    why = "as the config says" if os.environ.get(VARIABLE) == "cpu" else "no GPU found"
    logger.info("%s: running on the CPU with %d threads", why, torch.get_num_threads())
    return torch.device("cpu")


def keep_memory() -> None:
    """Keep the memory of large tensors in the process when it is freed, where libc is glibc.

    Memory that is given back between steps has to be cleared by the system when it is taken
    again, page by page: a training step was up to a quarter slower. The same as
    ``MALLOC_MMAP_MAX_=0`` and ``MALLOC_TRIM_THRESHOLD_`` beyond all memory.
    """
    with suppress(OSError, AttributeError, TypeError):
        # The C library that this process runs on already.
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def take_gpus(n: int) -> None:
    """Take GPUs that no other job of this machine has taken, until this process ends.

    Where more GPUs are visible than are asked for, ``CUDA_VISIBLE_DEVICES`` is set to the taken
    ones, so this is called before CUDA is used. A GPU is taken by a lock on a file in the folder
    for temporary files, which the system releases when the process ends, however it does. If
    fewer are free than are asked for, others are shared, and the log says so.

    Parameters
    ----------
    n
        GPUs to take, fewer if there are fewer.
    """
    if os.environ.get(VARIABLE) == "cpu" or TAKEN in os.environ:
        return
    gpus = visible_gpus()
    n = min(n, len(gpus))
    if not n:
        return
    uuids = list_gpus()
    free: list[str] = []
    for gpu in gpus:
        # By one name, whether a GPU is told by its number or not.
        name = uuids[int(gpu)] if gpu.isdecimal() and int(gpu) < len(uuids) else gpu
        if len(free) < n and lock(name):
            free.append(gpu)
    if len(free) < n:
        logger.warning(
            "%d of %d GPUs are not in use by other jobs, where %d are asked for: sharing; run "
            "fewer jobs at a time (--resources gpu=%d)",
            *(len(free), len(gpus), n, len(gpus)),
        )
    chosen = [*free, *(gpu for gpu in gpus if gpu not in free)][:n]
    os.environ[TAKEN] = "1"
    if n < len(gpus):
        os.environ[VISIBLE] = ",".join(chosen)


def lock(name: str) -> bool:
    """Lock a GPU's file; returns whether no other process had."""
    path = Path(tempfile.gettempdir()) / f"scdyn-gpu-{re.sub(r'[^A-Za-z0-9-]', '_', name)}.lock"
    # Read alone, so that a file of another user serves as well.
    flags = os.O_RDONLY | os.O_NOFOLLOW
    try:
        handle = os.open(path, flags) if path.exists() else os.open(path, flags | os.O_CREAT, 0o644)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.set_inheritable(handle, True)  # by the torchrun that takes this process' place
    except BlockingIOError:
        os.close(handle)
        return False
    except OSError:  # no such locks here: as if nobody else were
        return True
    _locks.append(handle)
    return True
