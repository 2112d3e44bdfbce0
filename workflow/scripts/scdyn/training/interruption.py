"""Being asked to end: what Slurm does before a time limit, and people by Ctrl-C.

torchrun passes the signal on to each process, which ends its training at a good place by this.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Notes SIGTERM and SIGINT while it is entered, so that work can end at a good place.

    A second SIGINT ends the process as it would without this. A second SIGTERM does not: at a time
    limit, a job's step and srun send one each.

    Attributes
    ----------
    requested : bool
        Whether a signal came.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interruption:
        """Note signals from here on."""
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Handle signals as before."""
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if number == signal.SIGINT:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
