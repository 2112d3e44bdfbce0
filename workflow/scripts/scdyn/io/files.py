"""Files that appear whole or not at all, and the hashes that identify them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from scdyn.errors import InputError, fault_of_disk
from scdyn.io.bounds import open_bytes

# What a JSON file holds; its keys are those of the function that writes it.
Json: TypeAlias = dict[str, Any]


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Write a file or a folder under a temporary name, then rename it.

    What is renamed is on the disk: a power cut leaves the old one or the new one. What jobs that
    were killed left under such names is removed first; while another process of this host is
    still at it, its own is left alone.

    Parameters
    ----------
    path
        Where the finished file or folder is to stand. Its parents are made.

    Yields
    ------
    Path
        A free name in the same folder, with the same suffixes. What stands
        there when the block ends replaces ``path``; if the block raises, it is
        removed and ``path`` is left as it was.

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
        to_disk(temporary)
        if path.is_dir():
            # Out of the way at once, for half a folder must not stand there.
            old = path.with_name(f".{host}-{os.getpid()}-old.{path.name}")
            path.rename(old)
            temporary.rename(path)
            remove(old)
        else:
            os.replace(temporary, path)
    except Exception as error:
        if fault := fault_of_disk(error, path.parent):
            raise InputError(f"{path}: cannot be written ({fault[0]}); {fault[1]}.") from error
        raise
    finally:
        remove(temporary)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        with suppress(OSError):
            path.unlink()


def remove_leftovers(path: Path, host: str) -> None:
    """Remove what :func:`atomic` of a killed process left beside ``path``.

    A temporary name of another host is a leftover, too: no two jobs make one output at a time.
    """
    pattern = re.compile(rf"\.([^.]+)-(\d+)(-old)?\.{re.escape(path.name)}")
    for name in os.listdir(path.parent):
        found = pattern.fullmatch(name)
        if found and not (found[1] == host and is_alive(int(found[2]))):
            remove(path.parent / name)


def is_alive(pid: int) -> bool:
    """Tell whether a process of this host is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # someone else's
        return True
    return True


def to_disk(path: Path) -> None:
    """Have the system write a file, or all files of a folder, to the disk."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle)


def open_text(path: str | Path) -> TextIO:
    """Open a text file to read, plain or packed, with or without a byte-order mark."""
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig")


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as indented JSON with sorted keys, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def write_table(path: str | Path, table: Any, index: bool = False) -> None:
    """Write a pandas data frame as tab-separated text, atomically.

    Floats are written with seven significant digits: what is compared between
    machines then does not differ by the noise of their linear algebra.
    """
    with atomic(path) as temporary:
        table.to_csv(temporary, sep="\t", index=index, float_format="%.7g")


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
