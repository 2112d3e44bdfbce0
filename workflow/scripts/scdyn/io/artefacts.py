"""Reading the workflow's own outputs, which carry the version of the code that wrote them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdyn.errors import reading
from scdyn.io.files import atomic
from scdyn.version import __version__

if TYPE_CHECKING:  # Snakemake's environment reads tables, too, but has no anndata
    from anndata import AnnData


# Increased whenever older outputs can no longer be read, or their content changes its meaning.
FORMAT = 2
STAMP = "scdyn"
# File of a folder that holds its stamp: tokens, or a fine-tuned model.
FOLDERS = ("meta.json", "task.json")


@cache
def compute_code_version() -> str:
    """Return the library's version, followed by eight digits of the hash of its code."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(file.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:8]}"


def make_stamp() -> dict[str, Any]:
    """Return the version of the code and of the format, to be stored as ``scdyn`` in an output."""
    return {"version": compute_code_version(), "format": FORMAT}


def read_stamp(path: str | Path) -> dict[str, Any]:
    """Read the stamp of an ``.h5ad``, ``.npz``, ``.json``, or folder with one of :data:`FOLDERS`.

    Returns
    -------
    dict
        ``version`` and ``format``; "unknown" and 1 if there is no stamp.
    """
    path = Path(path)
    unknown = {"version": "unknown", "format": 1}
    if path.suffix == ".h5ad":
        import h5py

        with reading_artefact(path), h5py.File(path) as file:
            group = file.get(f"uns/{STAMP}")
            if group is None:
                return unknown
            return {"version": group["version"].asstr()[()], "format": int(group["format"][()])}
    if path.suffix == ".npz":
        with reading_artefact(path), np.load(path, allow_pickle=False) as file:
            return json.loads(str(file[STAMP])) if STAMP in file else unknown
    if path.is_dir():
        path = next((path / name for name in FOLDERS if (path / name).exists()), path / FOLDERS[0])
    return read_json(path).get(STAMP, unknown)


def write_h5ad(path: str | Path, cells: AnnData) -> None:
    """Write cells as compressed h5ad with a stamp, atomically."""
    cells.uns[STAMP] = make_stamp()
    with atomic(path) as temporary:
        cells.write_h5ad(temporary, compression="lzf")


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name as npz with a stamp, atomically.

    They are not compressed, so that the memory of a job follows from the sizes of its inputs.
    """
    content: dict[str, Any] = {**arrays, STAMP: json.dumps(make_stamp())}
    with atomic(path) as temporary:
        np.savez(temporary, **content)


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of :func:`write_arrays` by name."""
    with reading_artefact(path), np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files if name != STAMP}


def reading_artefact(path: str | Path) -> AbstractContextManager[None]:
    """Turn any error while an output of the workflow is read into an :class:`InputError`.

    Raises
    ------
    InputError
        Naming the file, which the workflow recreates once it is removed.
    """
    return reading(
        "FORMAT", path, "was changed or truncated", "remove it and run the workflow again"
    )


def read_json(path: str | Path) -> Any:
    """Read a file of :func:`scdyn.io.files.write_json`."""
    with reading_artefact(path):
        return json.loads(Path(path).read_text())


def read_records(path: str | Path) -> pd.DataFrame:
    """Read a table of :func:`scdyn.training.progress.write_records`."""
    with reading_artefact(path):
        table = pd.read_json(path, lines=True)
        if table.empty:
            raise ValueError("it is empty")
        return table


def read_table(path: str | Path, **options: Any) -> pd.DataFrame:
    """Read a table of :func:`scdyn.io.files.write_table`.

    A truncated last line is an error here; pandas would fill it with missing values.

    Parameters
    ----------
    path
        The table.
    options
        Of :func:`pandas.read_csv`.
    """
    with reading_artefact(path):
        with Path(path).open("rb") as file:
            file.seek(-1, os.SEEK_END)  # raises OSError if the file is empty
            if file.read() != b"\n":
                raise ValueError("its last line is truncated")
        return pd.read_csv(path, sep="\t", **options)


def read_cells(path: str | Path) -> AnnData:
    """Read an h5ad of :func:`write_h5ad`."""
    from anndata import read_h5ad

    with reading_artefact(path):
        return read_h5ad(path)


def read_obs(path: str | Path) -> pd.DataFrame:
    """Read only the ``obs`` table of an h5ad."""
    from anndata import read_h5ad

    with reading_artefact(path):
        cells = read_h5ad(path, backed="r")
        cells.file.close()
        return cells.obs
