"""Files that appear whole or not at all, and the hashes that identify them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from scdyn.bounds import open_bytes


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Write a file or a folder under a temporary name, then rename it.

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
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def open_text(path: str | Path) -> TextIO:
    """Open a text file to read, plain or gzipped, with or without a byte-order mark."""
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
