"""Bounds on what a text file may grow into, so that a small one cannot fill a node's memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from pathlib import Path
from typing import Any

from scdyn.errors import InputError

# The first bytes of what is packed; bgzip's files are gzip's.
GZIP, BZIP2, XZ, ZSTANDARD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
# Unpacked over packed bytes. GENCODE's annotation shrinks thirtyfold, tables of cells up to
# sixtyfold, barcodes, features and counts fivefold; one line again and again a thousandfold.
MOST_TIMES = 100
MOST_TIMES_LIST = 20
# What is no larger than this may be as dense as it likes.
SMALL_BYTES = 64 * 2**20
LONGEST_LINE_BYTES = 16 * 2**20


class BoundedText(io.RawIOBase):
    """Bytes of a text file, plain or packed, refused where they grow beyond measure.

    Parameters
    ----------
    path
        Its first bytes tell whether it is packed, not its name.
    most_times
        How many times as long as the file its content may be.

    Raises
    ------
    InputError
        While it is read: if it is longer than that (and than :data:`SMALL_BYTES`), or has a line
        longer than :data:`LONGEST_LINE_BYTES`.
    """

    def __init__(self, path: str | Path, most_times: int = MOST_TIMES) -> None:
        self.path = path
        self.source = unpacked(path)
        self.size = Path(path).stat().st_size
        self.most_times = most_times
        self.left = max(SMALL_BYTES, most_times * self.size)
        self.line = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read the next bytes, as many as fit."""
        n_read = self.source.readinto(buffer) or 0
        end = bytes(buffer[:n_read]).rfind(b"\n")
        self.line = self.line + n_read if end < 0 else n_read - end - 1
        self.left -= n_read
        if self.left < 0:
            raise InputError(
                "SIZE",
                f"{self.path}: its {self.size:,} bytes unpack to more than {self.most_times} "
                "times as many, which no such file does; do not trust it, fetch it again.",
            )
        if self.line > LONGEST_LINE_BYTES:
            raise InputError(
                "SIZE",
                f"{self.path}: has a line of more than {LONGEST_LINE_BYTES / 2**20:.0f} MB; is it "
                "a text file?",
            )
        return n_read

    def close(self) -> None:
        """Close the file, too."""
        self.source.close()
        super().close()


def unpacked(path: str | Path) -> Any:
    """Open a file to read the bytes that gzip, bgzip, bzip2, xz or zstd packed, or plain ones."""
    with open(path, "rb") as file:
        start = file.read(8)
    if start.startswith(GZIP):
        return gzip.open(path, "rb")
    if start.startswith(BZIP2):
        return bz2.open(path, "rb")
    if start.startswith(XZ):
        return lzma.open(path, "rb")
    if start.startswith(ZSTANDARD):
        # The standard library reads it from Python 3.14 on; not every environment has pyarrow.
        import pyarrow as pa

        return pa.input_stream(str(path), compression="zstd")
    return open(path, "rb")


def open_bytes(path: str | Path, most_times: int = MOST_TIMES) -> io.BufferedReader:
    """Open a text file to read its bytes, plain or unpacked; see :class:`BoundedText`."""
    return io.BufferedReader(BoundedText(path, most_times), buffer_size=2**20)
