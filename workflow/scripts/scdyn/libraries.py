"""A sample's libraries: which files the sample sheet's paths and patterns mean."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scdyn.errors import InputError

FILES = ("path", "atac_path", "fragments")


@dataclass(frozen=True)
class LibraryFiles:
    """One library of a sample: the sheet's ``kind`` and one file or folder a column."""

    kind: str
    path: str
    atac_path: str
    fragments: str


def find_libraries(row: Mapping[str, str]) -> list[LibraryFiles]:
    """Find a sample's libraries: one, or as many as the patterns of its paths find.

    Parameters
    ----------
    row
        Of the sample sheet: ``sample``, ``kind`` and the columns of :data:`FILES`.

    Raises
    ------
    InputError
        If a pattern finds nothing, or the columns' patterns find different numbers.
    """
    found = {}
    for column in FILES:
        path = row[column]
        # A name that is there is meant as it is, even if it has brackets.
        if not path or Path(path).exists() or not glob.has_magic(path):
            found[column] = [path]
        else:
            found[column] = sorted(glob.glob(path))
            if not found[column]:
                raise InputError(
                    f"sample {row['sample']}: nothing is called {path} (column {column}); check "
                    "the sample sheet's path."
                )
    n_libraries = len(found["path"])
    for column, paths in found.items():
        if paths != [""] and len(paths) != n_libraries:
            raise InputError(
                f"sample {row['sample']}: {row['path']} finds {n_libraries} libraries, but column "
                f"{column} ({row[column]}) {len(paths)}; each library needs one of each."
            )
        found[column] = paths if len(paths) == n_libraries else paths * n_libraries
    return [LibraryFiles(row["kind"], *files) for files in zip(*found.values(), strict=True)]
