"""pySCENIC's commands, which run as programs of their own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from scdyn.files import atomic
from scdyn.log import logger


def run(command: str, arguments: Sequence[str | int | float], output: str | Path) -> None:
    """Run one of them; what it says goes to the log as it says it.

    Parameters
    ----------
    command
        ``ctx`` or ``aucell``.
    arguments
        All but ``--output``.
    output
        What it is to write, whole or not at all.

    Raises
    ------
    RuntimeError
        With the last it said, if it fails.
    """
    with atomic(output) as temporary:
        last = ""
        process = subprocess.Popen(
            ["pyscenic", command, *map(str, arguments), "--output", str(temporary)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # it is its processes that work
        )
        with process:
            for line in process.stdout or ():
                logger.debug("%s", line.rstrip())
                last = line.strip() or last
        if process.returncode:
            raise RuntimeError(f"pyscenic {command} failed ({process.returncode}): {last}")
