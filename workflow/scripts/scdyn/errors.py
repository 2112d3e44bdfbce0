"""The errors that a user is meant to read."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


class Interrupted(Exception):
    """Work that a signal ended, at a place from which it goes on when it is started again."""


@contextmanager
def reading(path: str | Path, fault: str, remedy: str = "copy it again") -> Iterator[None]:
    """Turn whatever the reader of a binary file raises into one sentence.

    Readers of HDF5, MatrixMarket and AnnData raise anything from KeyError to zlib.error.

    Parameters
    ----------
    path
        The file.
    fault, remedy
        What it then is or lacks, and what to do.

    Raises
    ------
    InputError
        In place of any other exception of the block.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise InputError(f"{path}: {fault} ({reason}); {remedy}.") from error
