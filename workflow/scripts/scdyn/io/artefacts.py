"""What the stages write and read: stamped with its version, refused if it was cut short."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from scdyn.errors import reading
from scdyn.io.files import atomic
from scdyn.version import __version__

if TYPE_CHECKING:  # Snakemake's own environment reads tables, too, and lacks it
    from anndata import AnnData


# Raised when what a stage writes changes, so that files of before cannot be read, or mean another
# thing.
FORMAT = 2
STAMP = "scdyn"
# Files of a folder that say which code wrote it.
FOLDERS = ("meta.json", "task.json")


@cache
def code_version() -> str:
    """Version of the library, and eight digits that change with any line of its code."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(file.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:8]}"


def stamp() -> dict[str, Any]:
    """Say which code writes: what stands under the key ``scdyn`` of an artefact."""
    return {"version": code_version(), "format": FORMAT}


def read_stamp(path: str | Path) -> dict[str, Any]:
    """Read which code wrote an artefact: an ``.h5ad``, a ``.json``, or a folder with either.

    In a folder of tokens it stands in ``meta.json``, in one of a fine-tuned model in ``task.json``.

    Returns
    -------
    dict
        ``version`` and ``format``; "unknown" and 1 of what was written before there were stamps.
    """
    path = Path(path)
    unknown = {"version": "unknown", "format": 1}
    if path.suffix == ".h5ad":
        import h5py

        with artefact(path), h5py.File(path) as file:
            group = file.get(f"uns/{STAMP}")
            if group is None:
                return unknown
            return {"version": group["version"].asstr()[()], "format": int(group["format"][()])}
    if path.is_dir():
        path = next((path / name for name in FOLDERS if (path / name).exists()), path / FOLDERS[0])
    return read_json(path).get(STAMP, unknown)


def write_h5ad(path: str | Path, cells: AnnData) -> None:
    """Write cells as h5ad, compressed and stamped, atomically."""
    cells.uns[STAMP] = stamp()
    with atomic(path) as temporary:
        cells.write_h5ad(temporary, compression="lzf")


def artefact(path: str | Path) -> AbstractContextManager[None]:
    """Turn what is raised while an output of the workflow is read into one sentence.

    Raises
    ------
    InputError
        Naming the file, and that it can be removed: the workflow makes it anew.
    """
    return reading(
        "FORMAT", path, "was changed or cut short", "remove it and run the workflow again"
    )


def read_json(path: str | Path) -> Any:
    """Read what :func:`scdyn.io.files.write_json` wrote."""
    with artefact(path):
        return json.loads(Path(path).read_text())


def read_records(path: str | Path) -> pd.DataFrame:
    """Read what :func:`scdyn.training.progress.write_records` wrote."""
    with artefact(path):
        table = pd.read_json(path, lines=True)
        if table.empty:
            raise ValueError("it is empty")
        return table


def read_table(path: str | Path, **options: Any) -> pd.DataFrame:
    """Read what :func:`scdyn.io.files.write_table` wrote.

    pandas would read half a last line as one of missing values.

    Parameters
    ----------
    path
        The table.
    options
        Of :func:`pandas.read_csv`.
    """
    with artefact(path):
        with Path(path).open("rb") as file:
            file.seek(-1, os.SEEK_END)  # which an empty file refuses
            if file.read() != b"\n":
                raise ValueError("it ends within a line")
        return pd.read_csv(path, sep="\t", **options)


def read_cells(path: str | Path) -> AnnData:
    """Read cells that a stage wrote as h5ad."""
    from anndata import read_h5ad

    with artefact(path):
        return read_h5ad(path)


def read_obs(path: str | Path) -> pd.DataFrame:
    """Read the table of the cells of an h5ad, and nothing else of it."""
    from anndata import read_h5ad

    with artefact(path):
        cells = read_h5ad(path, backed="r")
        cells.file.close()
        return cells.obs
