"""A sample's libraries: which files the sample sheet's paths and patterns mean."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scdyn.errors import InputError
from scdyn.order import natural

FILES = ("path", "atac_path", "fragments")
LAYERS = ("rna_layer", "promoter_layer")
# In the column atac_path: promoters were not measured, or are not to be used.
RNA_ONLY = "none"


@dataclass(frozen=True)
class LibraryFiles:
    """One library of a sample: the sheet's ``kind``, one file or folder a column, and layers.

    ``rna_only`` says that promoters are to be read as not measured.
    """

    kind: str
    path: str
    atac_path: str = ""
    fragments: str = ""
    rna_layer: str = ""
    promoter_layer: str = ""
    rna_only: bool = False


def find_libraries(row: Mapping[str, str]) -> list[LibraryFiles]:
    """Find a sample's libraries: one, or as many as the patterns of its paths find.

    Parameters
    ----------
    row
        Of the sample sheet: ``sample``, ``kind`` and the columns of :data:`FILES` and
        :data:`LAYERS`.

    Raises
    ------
    InputError
        If a pattern finds nothing, the columns' patterns find different numbers, or a sample
        of RNA only has fragments.
    """
    rna_only = row["atac_path"] == RNA_ONLY
    if rna_only and (row["fragments"] or row["promoter_layer"]):
        raise InputError(
            f"sample {row['sample']}: atac_path says '{RNA_ONLY}', yet fragments or promoter_layer "
            "names something; empty one of them in the sample sheet."
        )
    found = {}
    for column in FILES:
        path = "" if column == "atac_path" and rna_only else row[column]
        # A name that is there is meant as it is, even if it has brackets.
        if not path or Path(path).exists() or not glob.has_magic(path):
            found[column] = [path]
        else:
            found[column] = sorted(glob.glob(path), key=natural)
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
    kind, *layers = (row[column] for column in ("kind", *LAYERS))
    return [
        LibraryFiles(kind, path, atac_path, fragments, layers[0], layers[1], rna_only)
        for path, atac_path, fragments in zip(*found.values(), strict=True)
    ]
