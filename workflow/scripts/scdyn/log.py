"""Logging of the workflow's scripts: everything to a log file, errors as one sentence."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scdyn.errors import InputError, find_disk_fault, format_code, is_out_of_memory

logger = logging.getLogger("scdyn")
# Interval between progress messages of long work.
PROGRESS_SECONDS = 10.0


@contextmanager
def logged(path: str | Path) -> Iterator[None]:
    """Run a rule's script with its messages in a log file.

    Messages of level INFO and above go to ``path`` and to the terminal; DEBUG messages (output of
    other programs) and warnings only to ``path``. Any exception ends the process, with its
    traceback in the log. The terminal shows the sentence of an
    :class:`~scdyn.errors.InputError`, the remedy if memory or disk is short, and otherwise the
    exception's last line with the name of the log.

    Parameters
    ----------
    path
        The log file. It is overwritten, except by the processes that torchrun starts.

    Raises
    ------
    SystemExit
        With status 1, in place of any exception of the block.
    """
    # Processes started by torchrun append to the log of the process that started torchrun.
    mode = "a" if "TORCHELASTIC_RUN_ID" in os.environ else "w"
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        to_file = logging.FileHandler(path, mode=mode)
    except OSError as error:
        raise SystemExit(
            f"Error: {path}: cannot be written ({error.strerror}). {format_code('DISK')}"
        ) from None
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setFormatter(logging.Formatter("%(message)s"))
    to_terminal.setLevel(logging.INFO)
    logger.setLevel(logging.DEBUG)
    logger.handlers = [to_file, to_terminal]
    # On a full disk, let the failing write of a result end the script, not that of a log line.
    logging.raiseExceptions = False
    # Warnings of libraries would hide our messages on the terminal.
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").handlers = [to_file]
    warnings.simplefilter("default")
    # Of zarr's default in a later version; all our arrays have chunks of stated sizes.
    warnings.filterwarnings("ignore", message=".*autosharding")
    try:
        yield
    except BaseException as error:
        with suppress(OSError):
            print(traceback.format_exc(), end="", file=to_file.stream)
            to_file.flush()
        print(describe_error(error, path), file=sys.stderr)
        raise SystemExit(1) from None


def describe_error(error: BaseException, log: str | Path) -> str:
    """Describe in one sentence the error that ended a script."""
    if isinstance(error, InputError):
        return f"Error: {error}"
    text = f"{type(error).__name__}: {error}"
    if is_out_of_memory(error):
        return (
            f"Error: out of memory ({text.splitlines()[0]}); run fewer jobs at a time (--resources "
            "mem_mb=MB), or on a cluster give the rule more (--set-resources RULE:mem_mb=MB, or "
            f"--retries 2, which asks for more each time) (details: {log}). {format_code('MEMORY')}"
        )
    if fault := find_disk_fault(error, Path(log).parent):
        return f"Error: {text} ({fault[0]}); {fault[1]} (details: {log}). {format_code('DISK')}"
    return f"{text} (details: {log})"


def format_duration(seconds: float) -> str:
    """Format seconds for people: 45 s, 12 min, 3 h 20 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def format_estimate(seconds: float) -> str:
    """Format an estimate without false precision: 40 s, 12 min, 84 h, 9 days."""
    if seconds < 2 * 3600:
        return format_duration(seconds)
    hours = seconds / 3600
    return f"{hours:.0f} h" if hours < 96 else f"{hours / 24:,.0f} days"
