"""Handling of SIGTERM, which Slurm sends before a time limit, and of SIGINT (Ctrl-C).

torchrun passes the signal on to its processes.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Context manager that records SIGTERM and SIGINT, so that training can save and stop.

    A second SIGINT ends the process. A second SIGTERM does not, because at a time limit the job
    step and srun send one each.

    Attributes
    ----------
    requested : bool
        Whether a signal came.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interruption:
        """Record signals from now on."""
        self._before = {}
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore the previous handlers."""
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if number == signal.SIGINT:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
