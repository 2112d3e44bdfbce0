"""What a machine has, asked without torch: NVIDIA's driver and GPUs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

# The environment variable that holds the config's ``device``: auto, cpu or gpu.
VARIABLE = "SCDYN_DEVICE"
VISIBLE = "CUDA_VISIBLE_DEVICES"
# Where Linux has NVIDIA's driver and its first GPU.
DRIVER, FIRST_GPU = Path("/proc/driver/nvidia/version"), Path("/dev/nvidia0")


def list_gpus() -> list[str]:
    """List the UUIDs of this machine's NVIDIA GPUs in the order of ``nvidia-smi``."""
    try:
        answer = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"^GPU \d+: .*\(UUID: (GPU-[\w-]+)\)", answer.stdout, re.MULTILINE)


def visible_gpus() -> list[str]:
    """List the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` would name them."""
    told = os.environ.get(VISIBLE)
    if told is None:
        return list_gpus()
    # CUDA stops at the first name that is none.
    names = [name.strip() for name in told.split(",")]
    ends = [i for i, name in enumerate(names) if name in ("", "-1", "NoDevFiles")]
    return names[: ends[0]] if ends else names


def runs_on_cpu() -> bool:
    """Tell whether a job of torch runs on the CPU: the config says so, or no GPU is visible."""
    return os.environ.get(VARIABLE) == "cpu" or not visible_gpus()


def nvidia_driver() -> str:
    """Say which NVIDIA driver is here, such as "driver 550.54.14"; empty if there is none."""
    try:
        version = re.search(r"\d+\.\d+(\.\d+)?", DRIVER.read_text())
    except OSError:
        return "driver" if FIRST_GPU.exists() or list_gpus() else ""
    return f"driver {version[0]}" if version else "driver"


def hidden_gpus() -> bool:
    """Tell whether ``CUDA_VISIBLE_DEVICES`` asks for no GPU at all."""
    return VISIBLE in os.environ and not visible_gpus()
