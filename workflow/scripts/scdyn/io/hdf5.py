"""Open HDF5 files from elsewhere after a check of their headers."""

from __future__ import annotations

from pathlib import Path

import h5py

from scdyn.errors import UNREADABLE, InputError
from scdyn.io.files import open_bytes

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Bytes of text: all but most control characters.
TEXT = bytes([*b"\t\n\r", *range(32, 127), *range(128, 256)])
# Largest ratio of declared to stored bytes, and the size below which it is not checked. Nearly
# empty dense matrices compress most.
MOST_TIMES = 300
SMALL_BYTES = 64 * 2**20


def open_hdf5(path: str | Path) -> h5py.File:
    """Open an HDF5 file to read, unless it declares far more data than it stores.

    HDF5 fills unwritten chunks with zeros, so a damaged header could exhaust the memory. Only
    headers are read here.

    Parameters
    ----------
    path
        An ``.h5``, ``.h5ad`` or ``.h5mu``.

    Raises
    ------
    InputError
        If it is compressed or a text, or its arrays are more than :data:`MOST_TIMES` times as large
        as the file (and than :data:`SMALL_BYTES`).
    OSError
        If it cannot be opened.
    """
    refuse_other_content(path)
    file = h5py.File(path)
    sizes: list[int] = []

    def weigh(name: str, part: h5py.Group | h5py.Dataset) -> None:
        if isinstance(part, h5py.Dataset) and part.shape is not None:
            sizes.append(part.nbytes)

    try:
        file.visititems(weigh)
        size, declared = Path(path).stat().st_size, sum(sizes)
        if declared > max(SMALL_BYTES, MOST_TIMES * size):
            raise InputError(
                "SIZE",
                f"{path}: its {size:,} bytes declare arrays of {declared:,}, more than "
                f"{MOST_TIMES} times as many, which no real file does; download it "
                "again.",
            )
    except BaseException:
        file.close()
        raise
    return file


def refuse_other_content(path: str | Path) -> None:
    """Refuse what the first bytes tell to be no HDF5.

    Raises
    ------
    InputError
        If it is HDF5 that is packed, or a text.
    """
    try:
        with open(path, "rb") as file, open_bytes(path) as content:
            is_packed, start = not file.read(8).startswith(SIGNATURE), content.read(1000)
    except UNREADABLE:
        return
    if start.startswith(SIGNATURE):
        if is_packed:
            raise InputError(
                "FORMAT", f"{path}: is packed; unpack it (gunzip) and name what comes out."
            )
    elif start and not start.translate(None, TEXT):
        raise InputError(
            "FORMAT",
            f"{path}: is a text, not HDF5; name the folder of matrix.mtx, barcodes.tsv and "
            "features.tsv, or write the counts as .h5ad and name that.",
        )
