"""Where the model runs: on a GPU or on the CPU."""

from __future__ import annotations

import os

import torch

from scdyn.errors import InputError
from scdyn.log import logger

# What the environment's variable of this name says, the workflow sets from the config's ``device``.
VARIABLE = "SCDYN_DEVICE"


def n_gpus() -> int:
    """Count the GPUs that may be used, none if the environment's device is the CPU.

    Raises
    ------
    InputError
        If a GPU is asked for and there is none.
    """
    asked = os.environ.get(VARIABLE, "auto")
    found = 0 if asked == "cpu" else torch.cuda.device_count()
    if asked == "gpu" and not found:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise InputError(
            f"device: gpu is asked for in the config, but PyTorch {torch.__version__} finds none "
            f"({'CUDA_VISIBLE_DEVICES is ' + visible if visible else 'no driver answers'}); run "
            "the job where there is one, with a build of PyTorch for it (docs/gpu.md), or set "
            "device: auto."
        )
    return found


def choose_device() -> torch.device:
    """Return this process' GPU if one may be used, else the CPU, and say which it is.

    Raises
    ------
    InputError
        If a GPU is asked for and there is none.
    """
    if n_gpus():
        logger.info("running on GPU %s", torch.cuda.get_device_name())
        return torch.device("cuda", torch.cuda.current_device())
    why = "as the config says" if os.environ.get(VARIABLE) == "cpu" else "no GPU found"
    logger.info("%s: running on the CPU with %d threads", why, torch.get_num_threads())
    return torch.device("cpu")
