"""What earlier stages wrote, read: if it was cut short or garbled since, it is refused by name."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from scdyn.errors import reading

if TYPE_CHECKING:  # Snakemake's own environment reads tables, too, and lacks it
    from anndata import AnnData


def artefact(path: str | Path) -> AbstractContextManager[None]:
    """Turn what is raised while an output of the workflow is read into one sentence.

    Raises
    ------
    InputError
        Naming the file, and that it can be removed: the workflow makes it anew.
    """
    return reading(path, "was changed or cut short", "remove it and run the workflow again")


def read_json(path: str | Path) -> Any:
    """Read what :func:`scdyn.files.write_json` wrote."""
    with artefact(path):
        return json.loads(Path(path).read_text())


def read_records(path: str | Path) -> pd.DataFrame:
    """Read what :func:`scdyn.progress.write_records` wrote."""
    with artefact(path):
        table = pd.read_json(path, lines=True)
        if table.empty:
            raise ValueError("it is empty")
        return table


def read_table(path: str | Path, **options: Any) -> pd.DataFrame:
    """Read what :func:`scdyn.files.write_table` wrote.

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
