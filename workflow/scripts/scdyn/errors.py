"""The one kind of error a user is meant to read."""

import zlib

# What a text file that is cut short, garbled or not there makes its readers raise.
UNREADABLE = (OSError, EOFError, ValueError, zlib.error)


class InputError(ValueError):
    """Input that cannot be used.

    The message is one sentence that names the file, the row or the cell, and
    what to do. Everything else that is raised is a defect of this software.

    Parameters
    ----------
    message
        The sentence; line ends in it, as other libraries' errors bring them, become spaces.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(line.strip() for line in message.splitlines()))
