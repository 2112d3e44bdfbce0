"""Errors that are addressed to the user, each with a stable code."""

from __future__ import annotations

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
from typing import Literal, cast, get_args

Code = Literal[
    "ANNOTATION", "BARCODES", "CONFIG", "CORPUS", "COUNTS", "DISK", "DOWNLOAD", "EXPLAIN",
    "FORMAT", "FRAGMENTS", "GENES", "GENOMES", "GPU", "LABELS", "LAYER", "MATRIX", "MEMORY",
    "METADATA", "MODEL", "MOTIFS", "PATH", "PROMOTERS", "QC", "REGULONS", "SHEET",
    "SIZE", "SPLITS", "STUDY", "TFS", "TRAINING",
]  # fmt: skip

# Subject of each code. docs/troubleshooting.md has one section per code.
CODES: dict[Code, str] = {
    "CONFIG": "a key or value of the config",
    "SHEET": "the sample sheet",
    "PATH": "a file or folder that is missing, or that could be one of several",
    "FORMAT": "a file in another format, cut short or damaged",
    "SIZE": "an HDF5 file that declares far more data than it stores",
    "MATRIX": "a count matrix that does not fit its genes, its barcodes or its column in the sheet",
    "COUNTS": "values that are not raw counts",
    "LAYER": "the layer that holds the RNA or promoter counts",
    "GENES": "genes of a sample that are not in the annotation",
    "TFS": "the list of transcription factors",
    "ANNOTATION": "the gene annotation (GTF or BED)",
    "GENOMES": "genome builds or species that differ",
    "BARCODES": "cell barcodes that are duplicates or match no others",
    "FRAGMENTS": "the fragments file",
    "PROMOTERS": "promoter accessibility that is missing, or peaks that meet no promoter",
    "QC": "quality control that keeps too few cells",
    "METADATA": "a table of cells (metadata)",
    "LABELS": "the labels of a task",
    "SPLITS": "the split into training and test cells",
    "REGULONS": "gene regulatory networks and regulons",
    "MOTIFS": "motif databases",
    "CORPUS": "the corpus and its tokens",
    "MODEL": "a pretrained or fine-tuned model",
    "GPU": "GPUs and their memory",
    "MEMORY": "the machine's memory",
    "DISK": "a disk that is full or cannot be written",
    "TRAINING": "training that cannot continue",
    "EXPLAIN": "attributions, in-silico perturbation and gene sets",
    "STUDY": "a study of development, space or perturbation",
    "DOWNLOAD": "a reference that cannot be downloaded",
}

# Raised by readers of text files that are truncated, damaged or missing.
UNREADABLE = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)

# Texts by which torch, other programs and the system report too little memory.
OUT_OF_MEMORY = re.compile(
    r"(can't|cannot|unable to|failed to) allocate|MemoryError|bad_alloc"
    r"|can't start new thread|failed to map segment",
    re.IGNORECASE,
)

MAKE_ROOM = "make room and run the workflow again; it continues from here"
# Remedy for each error of a disk.
DISK_FAULTS = {
    errno.ENOSPC: MAKE_ROOM,
    errno.EDQUOT: MAKE_ROOM,
    errno.EROFS: "have it mounted for writing, or name another folder as 'results' in the config",
}


class InputError(ValueError):
    """Input that cannot be used.

    Any other exception is a bug in this software.

    Parameters
    ----------
    code
        One of :data:`CODES`.
    message
        One sentence that names the file, the row or the cell, the problem and the remedy. Line
        breaks, as in messages of other libraries, become spaces.

    Attributes
    ----------
    code, message
        As given. ``str(error)`` is the message followed by the code, as in ``[SCD-BARCODES]``.
    """

    def __init__(self, code: Code, message: str) -> None:
        self.code: Code = code
        self.message = " ".join(line.strip() for line in message.splitlines())
        # As ``args``, both travel to other processes by pickle.
        super().__init__(self.code, self.message)

    def __str__(self) -> str:
        """Return the message and the code."""
        return f"{self.message} {format_code(self.code)}"

    @classmethod
    def from_text(cls, text: str) -> InputError:
        """Rebuild an error from ``str(error)``, as tables and other processes pass it on."""
        found = re.fullmatch(r"(.*) \[SCD-([A-Z]+)\]", text)
        if not found or found[2] not in get_args(Code):
            raise RuntimeError(f"no error with a code: {text}")
        return cls(cast("Code", found[2]), found[1])


class Interrupted(Exception):
    """Work stopped by a signal; it continues from the same place when started again."""


def format_code(code: Code) -> str:
    """Return a code as messages show it, such as ``[SCD-BARCODES]``."""
    return f"[SCD-{code}]"


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error was caused by too little main memory (not a GPU's).

    Readers of files raise all kinds of errors when an allocation fails. A small allocation
    therefore tests whether memory is short now.
    """
    try:
        bytearray(2**24)
    except MemoryError:
        return True
    return isinstance(error, MemoryError) or bool(OUT_OF_MEMORY.search(str(error)))


@contextmanager
def reading(
    code: Code, path: str | Path, fault: str, remedy: str = "copy it again"
) -> Iterator[None]:
    """Turn any error of a file's reader into an :class:`InputError`.

    Readers of HDF5, MatrixMarket and AnnData raise anything from KeyError to zlib.error.

    Parameters
    ----------
    code
        One of :data:`CODES`.
    path
        The file.
    fault, remedy
        The problem to report, and the remedy.

    Raises
    ------
    InputError
        In place of any other exception of the block, unless memory is short.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = f"{type(error).__name__}: {error}"[:200]
        raise InputError(code, f"{path}: {fault} ({reason}); {remedy}.") from error


def find_disk_fault(error: BaseException, folder: Path) -> tuple[str, str] | None:
    """Find out whether a full or read-only disk caused an error of any library.

    Some libraries give the reason only in words (h5py, safetensors), some not at all (Pillow).

    Returns
    -------
    tuple of str, or None
        The fault and its remedy, None if the disk is fine.
    """
    if isinstance(error, InputError):
        return None
    text = "".join(traceback.format_exception(error))
    for number, remedy in DISK_FAULTS.items():
        if os.strerror(number) in text:
            return os.strerror(number), remedy
    if folder.exists() and shutil.disk_usage(folder).free == 0:
        return os.strerror(errno.ENOSPC), MAKE_ROOM
    return None
