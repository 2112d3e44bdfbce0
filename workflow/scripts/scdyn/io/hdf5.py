"""HDF5 files from elsewhere: opened only if they are what they seem."""

from __future__ import annotations

from pathlib import Path

import h5py

from scdyn.errors import UNREADABLE, InputError
from scdyn.io.bounds import SMALL_BYTES, unpacked

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Bytes of text: all but most control characters.
TEXT = bytes([*b"\t\n\r", *range(32, 127), *range(128, 256)])
# Declared over stored bytes. Dense and all but empty matrices shrink most.
MOST_TIMES = 300


def open_bounded(path: str | Path) -> h5py.File:
    """Open an HDF5 file to read, unless it declares far more than it holds or leads elsewhere.

    Nothing but its headers is read.

    Parameters
    ----------
    path
        An ``.h5``, ``.h5ad`` or ``.h5mu``.

    Raises
    ------
    InputError
        If it is packed or a text, its arrays are more than :data:`MOST_TIMES` times as large as the
        file (and than :data:`~scdyn.io.bounds.SMALL_BYTES`), or an array or a link stands for
        another file.
    OSError
        If it cannot be opened.
    """
    refuse_other_content(path)
    file = h5py.File(path)
    try:
        declared, elsewhere = survey(file)
        if elsewhere:
            raise InputError(
                "FORMAT",
                f"{path}: {elsewhere} is kept in another file, which is not followed; write a file "
                "that holds all of its content.",
            )
        size = Path(path).stat().st_size
        if declared > max(SMALL_BYTES, MOST_TIMES * size):
            raise InputError(
                "SIZE",
                f"{path}: its {size:,} bytes declare arrays of {declared:,}, more than "
                f"{MOST_TIMES} times as many, which no such file does; do not trust it, fetch it "
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
        with open(path, "rb") as file, unpacked(path) as content:
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


def survey(file: h5py.File) -> tuple[int, str | None]:
    """Add up the bytes that a file's arrays declare, and find what is kept in another file."""
    declared = 0

    def weigh(name: str, part: h5py.Group | h5py.Dataset) -> str | None:
        nonlocal declared
        if isinstance(part, h5py.Group) or part.shape is None:
            return None
        declared += part.nbytes
        return name if part.external or part.is_virtual else None

    def leads_out(name: str, link: object) -> str | None:
        return name if isinstance(link, h5py.ExternalLink) else None

    # What a visitor returns ends the visit.
    elsewhere = file.visititems(weigh) or file.visititems_links(leads_out)
    return declared, elsewhere
