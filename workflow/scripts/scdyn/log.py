"""Where a rule's messages go: all to its log, one sentence to the terminal."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scdyn.errors import InputError

logger = logging.getLogger("scdyn")
# How often long work says how far it is.
PROGRESS_SECONDS = 10.0


@contextmanager
def logged(path: str | Path) -> Iterator[None]:
    """Run a rule's script with its messages in a log file.

    Messages of level INFO and above, and warnings, go to ``path`` and to the
    terminal. An :class:`~scdyn.errors.InputError` ends the process with its one
    sentence on the terminal; any other exception with its last line and the
    log's name. The traceback stands in the log.

    Parameters
    ----------
    path
        The log file of the rule; it is begun anew, save by one of several processes.

    Raises
    ------
    SystemExit
        With status 1, in place of any exception of the block.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # A process that torchrun starts adds to the log of the one that started torchrun.
    to_file = logging.FileHandler(path, mode="a" if "TORCHELASTIC_RUN_ID" in os.environ else "w")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setFormatter(logging.Formatter("%(message)s"))
    logger.setLevel(logging.INFO)
    logger.handlers = [to_file, to_terminal]
    # Libraries' warnings are for the log; on a terminal they hide what matters.
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").handlers = [to_file]
    warnings.simplefilter("default")
    try:
        yield
    except BaseException as error:
        to_file.stream.write(traceback.format_exc())
        to_file.flush()
        if isinstance(error, InputError):
            print(f"Error: {error}", file=sys.stderr)
        else:
            print(f"{type(error).__name__}: {error} (details: {path})", file=sys.stderr)
        raise SystemExit(1) from None


def duration(seconds: float) -> str:
    """Write seconds as people read them: 45 s, 12 min, 3 h 20 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
