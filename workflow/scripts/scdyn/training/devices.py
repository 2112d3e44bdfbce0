"""Device of the model: a GPU or the CPU."""

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

# Environment variable that is set in the processes of a job that has taken its GPUs.
TAKEN = "SCDYN_GPUS_TAKEN"
# Parameters of glibc's mallopt.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
# Open file descriptors of the locks on this process' GPUs.
_locks: list[int] = []


def n_gpus() -> int:
    """Count the usable GPUs; 0 if the config's device is cpu.

    Raises
    ------
    InputError
        If the device is gpu and there is none, or if it is auto and torch cannot use a GPU of this
        machine, unless ``CUDA_VISIBLE_DEVICES`` is empty.
    """
    wanted = os.environ.get(VARIABLE, "auto")
    found = 0 if wanted == "cpu" else torch.cuda.device_count()
    if wanted == "gpu" and not found:
        visible = os.environ.get(VISIBLE)
        raise InputError(
            "GPU",
            f"device is gpu in the config, but PyTorch {torch.__version__} finds no GPU "
            f"({'CUDA_VISIBLE_DEVICES is ' + visible if visible else 'no driver responds'}); run "
            "the job on a machine with a GPU and a build of PyTorch for it (docs/gpu.md), or set "
            "device: auto.",
        )
    if wanted == "auto" and not found and not hidden_gpus() and (driver := nvidia_driver()):
        raise InputError(
            "GPU",
            f"device is auto and this machine has NVIDIA's {driver}, but PyTorch "
            f"{torch.__version__} cannot use a GPU: {explain_unusable_gpu()} (docs/gpu.md); or set "
            "device: cpu in the config (in a notebook, SCDYN_DEVICE) to run on the CPU.",
        )
    return found


def explain_unusable_gpu() -> str:
    """Explain why torch finds no GPU although there is a driver, with a remedy."""
    if torch.version.cuda is None:
        return "it is a build without CUDA; install a build for CUDA"
    return (
        f"the driver is too old for CUDA {torch.version.cuda}, or this job or container has no "
        "GPU; update the driver, install a build of PyTorch for an older CUDA, or request a GPU "
        "for the job"
    )


def choose_device() -> torch.device:
    """Choose this process' GPU if there is a usable one, else the CPU, and log the choice.

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
    why = "device: cpu" if os.environ.get(VARIABLE) == "cpu" else "no GPU found"
    logger.info("%s: running on the CPU with %d threads", why, torch.get_num_threads())
    return torch.device("cpu")


def keep_memory() -> None:
    """Keep freed memory of large tensors in the process, with glibc.

    Otherwise the system clears the pages when they are allocated again, and a training step was up
    to 25% slower. Equal to ``MALLOC_MMAP_MAX_=0`` and an unlimited ``MALLOC_TRIM_THRESHOLD_``.
    """
    with suppress(OSError, AttributeError, TypeError):
        # None opens the C library of this process.
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def take_gpus(n: int) -> None:
    """Take GPUs that no other job on this machine has taken, until this process ends.

    If more GPUs are visible than needed, ``CUDA_VISIBLE_DEVICES`` is set to the taken ones, so this
    must be called before CUDA is used. A GPU is taken by a lock on a file in the folder for
    temporary files, which the system releases when the process ends. If too few GPUs are free,
    others are shared, with a warning.

    Parameters
    ----------
    n
        Number of GPUs to take; all if there are fewer.
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
        # Lock by UUID, because GPUs may be given by number or UUID.
        name = uuids[int(gpu)] if gpu.isdecimal() and int(gpu) < len(uuids) else gpu
        if len(free) < n and lock(name):
            free.append(gpu)
    if len(free) < n:
        logger.warning(
            "%d of %d GPUs are not in use by other jobs, but %d are needed: sharing GPUs; run "
            "fewer jobs at a time (--resources gpu=%d)",
            *(len(free), len(gpus), n, len(gpus)),
        )
    chosen = [*free, *(gpu for gpu in gpus if gpu not in free)][:n]
    os.environ[TAKEN] = "1"
    if n < len(gpus):
        os.environ[VISIBLE] = ",".join(chosen)


def lock(name: str) -> bool:
    """Lock the file of a GPU; return False if another process has locked it."""
    path = Path(tempfile.gettempdir()) / f"scdyn-gpu-{re.sub(r'[^A-Za-z0-9-]', '_', name)}.lock"
    # Read-only, so that a file of another user can be locked as well.
    flags = os.O_RDONLY | os.O_NOFOLLOW
    try:
        handle = os.open(path, flags) if path.exists() else os.open(path, flags | os.O_CREAT, 0o644)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.set_inheritable(handle, True)  # torchrun replaces this process and keeps the lock
    except BlockingIOError:
        os.close(handle)
        return False
    except OSError:  # the file system has no locks: take the GPU
        return True
    _locks.append(handle)
    return True
