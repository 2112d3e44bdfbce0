"""Atomic writing of files and folders, text plain or packed, and hashes of their content."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from scdyn.errors import InputError, find_disk_fault

# The first bytes of packed files; bgzip's files are gzip's.
GZIP, BZIP2, XZ, ZSTANDARD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"

# What a JSON file holds; its keys are those of the function that writes it.
Json: TypeAlias = dict[str, Any]


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Write a file or a folder under a temporary name, then rename it.

    The content is synced to the disk before the rename, so that a power cut leaves the old or the
    new version. Temporary files of killed jobs are removed first, but not those of a process that
    is still running on this host.

    Parameters
    ----------
    path
        The finished file or folder. Its parent folders are created.

    Yields
    ------
    Path
        A temporary name in the same folder, with the same suffixes. When the block ends, the file
        or folder written there replaces ``path``; if the block raises, it is removed and ``path``
        stays as it was.

    Raises
    ------
    InputError
        If the disk is full or read-only.
    """
    path = Path(path)
    host = socket.gethostname().partition(".")[0]
    temporary = path.with_name(f".{host}-{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path, host)
        yield temporary
        sync_to_disk(temporary)
        if path.is_dir():
            # A folder cannot be replaced in one step, and deleting the old one takes time.
            old = path.with_name(f".{host}-{os.getpid()}-old.{path.name}")
            path.rename(old)
            temporary.rename(path)
            remove(old)
        else:
            os.replace(temporary, path)
    except Exception as error:
        if fault := find_disk_fault(error, path.parent):
            raise InputError(
                "DISK", f"{path}: cannot be written ({fault[0]}); {fault[1]}."
            ) from error
        raise
    finally:
        remove(temporary)


def remove(path: Path) -> None:
    """Remove a file or a folder if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        with suppress(OSError):
            path.unlink()


def remove_leftovers(path: Path, host: str) -> None:
    """Remove temporary files that :func:`atomic` of killed processes left next to ``path``.

    Those of other hosts are removed, too, since Snakemake never runs two jobs for one output.
    """
    pattern = re.compile(rf"\.([^.]+)-(\d+)(-old)?\.{re.escape(path.name)}")
    for name in os.listdir(path.parent):
        found = pattern.fullmatch(name)
        if found and not (found[1] == host and is_alive(int(found[2]))):
            remove(path.parent / name)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it belongs to another user
        return True
    return True


def sync_to_disk(path: Path) -> None:
    """Flush a file, or all files of a folder, to the disk (fsync)."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle)


def open_bytes(path: str | Path) -> io.BufferedReader:
    """Open a file to read its bytes, plain or unpacked; its first bytes tell, not its name."""
    return io.BufferedReader(_unpacked(path), buffer_size=2**20)


def _unpacked(path: str | Path) -> Any:
    """Open what gzip, bgzip, bzip2, xz or zstd packed, or a plain file."""
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
    return open(path, "rb", buffering=0)


def iter_line_blocks(file: io.BufferedReader, n_bytes: int) -> Iterator[bytes]:
    """Read a text in blocks of whole lines, of about ``n_bytes`` each."""
    begun = b""
    while text := file.read(n_bytes):
        text = begun + text
        end = text.rfind(b"\n") + 1
        begun = text[end:]
        if end:
            yield text[:end]
    if begun:
        yield begun


def open_text(path: str | Path) -> TextIO:
    """Open a text file for reading, plain or compressed, with or without a byte-order mark."""
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig")


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as indented JSON with sorted keys, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def write_table(path: str | Path, table: Any, index: bool = False) -> None:
    """Write a pandas data frame as tab-separated text, atomically.

    Floats have seven significant digits, so that results of different machines do not differ by
    rounding in their linear algebra.
    """
    with atomic(path) as temporary:
        table.to_csv(temporary, sep="\t", index=index, float_format="%.7g")


def write_table_by_parts(path: str | Path, parts: Iterable[Any]) -> None:
    """Write the rows of several data frames as one table, as :func:`write_table` does."""
    with atomic(path) as temporary, temporary.open("w") as handle:
        for number, part in enumerate(parts):
            part.to_csv(handle, sep="\t", index=False, header=number == 0, float_format="%.7g")


def sha256(path: str | Path) -> str:
    """Hash a file, or a folder by the names and contents of its files.

    Parameters
    ----------
    path
        An existing file or folder.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    path = Path(path)
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()}\0{sha256(file)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
