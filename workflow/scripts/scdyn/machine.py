"""The NVIDIA driver and GPUs of this machine, found without torch."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

# The environment variable that holds the config's ``device``: auto, cpu or gpu.
VARIABLE = "SCDYN_DEVICE"
VISIBLE = "CUDA_VISIBLE_DEVICES"
# Present on Linux if NVIDIA's driver is loaded, and if it has a GPU.
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
    """List the GPUs that this process may use, in the form of ``CUDA_VISIBLE_DEVICES``."""
    visible = os.environ.get(VISIBLE)
    if visible is None:
        return list_gpus()
    # CUDA ignores everything after the first invalid name.
    names = [name.strip() for name in visible.split(",")]
    ends = [i for i, name in enumerate(names) if name in ("", "-1", "NoDevFiles")]
    return names[: ends[0]] if ends else names


def runs_on_cpu() -> bool:
    """Tell whether torch runs on the CPU: by the config, or because no GPU is visible."""
    return os.environ.get(VARIABLE) == "cpu" or not visible_gpus()


def nvidia_driver() -> str:
    """Return the NVIDIA driver, such as "driver 550.54.14", or an empty string."""
    try:
        version = re.search(r"\d+\.\d+(\.\d+)?", DRIVER.read_text())
    except OSError:
        return "driver" if FIRST_GPU.exists() or list_gpus() else ""
    return f"driver {version[0]}" if version else "driver"


def hidden_gpus() -> bool:
    """Tell whether ``CUDA_VISIBLE_DEVICES`` hides all GPUs."""
    return VISIBLE in os.environ and not visible_gpus()
