"""The errors that a user is meant to read."""

import errno
import lzma
import os
import re
import shutil
import traceback
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What a text file that is cut short, garbled or not there makes its readers raise.
UNREADABLE = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)

# How torch, other programs and the system say that there is too little memory.
OUT_OF_MEMORY = re.compile(
    r"(can't|cannot|unable to|failed to) allocate|MemoryError|bad_alloc"
    r"|can't start new thread|failed to map segment",
    re.IGNORECASE,
)

MAKE_ROOM = "make room and run the workflow again, it goes on from here"
# What a disk can refuse, and what to do.
DISK_FAULTS = {
    errno.ENOSPC: MAKE_ROOM,
    errno.EDQUOT: MAKE_ROOM,
    errno.EROFS: "have it mounted for writing, or name another folder as 'results' in the config",
}


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


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether the machine's memory, not a GPU's, is to blame for an error.

    Readers of files say anything when they get none, so a little is asked for.
    """
    try:
        bytearray(2**24)
    except MemoryError:
        return True
    return isinstance(error, MemoryError) or bool(OUT_OF_MEMORY.search(str(error)))


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
        In place of any other exception of the block, except where memory is short.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = f"{type(error).__name__}: {error}"[:200]
        raise InputError(f"{path}: {fault} ({reason}); {remedy}.") from error


def fault_of_disk(error: BaseException, folder: Path) -> tuple[str, str] | None:
    """Tell whether the disk is to blame for an error, whichever library raised it, and how.

    Some name the reason in words only (h5py, safetensors), some not at all (Pillow).

    Returns
    -------
    tuple of str, or None
        What is wrong, and what to do.
    """
    if isinstance(error, InputError):
        return None
    said = "".join(traceback.format_exception(error))
    for code, remedy in DISK_FAULTS.items():
        if os.strerror(code) in said:
            return os.strerror(code), remedy
    if folder.exists() and shutil.disk_usage(folder).free == 0:
        return os.strerror(errno.ENOSPC), MAKE_ROOM
    return None
