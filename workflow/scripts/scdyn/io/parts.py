"""Large arrays that are computed part by part, so that a killed job continues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import zarr
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from scdyn.io.artefacts import ALL_CHUNKS
from scdyn.io.files import atomic
from scdyn.log import logger

# Rows per chunk of an array on disk.
ROWS_PER_CHUNK = 16_384


def compute_parts(
    folder: Path, parts: Sequence[dict[str, str]], compute: Callable[[int], np.ndarray]
) -> list[Path]:
    """Compute the parts of an array, except those that an interrupted job has finished.

    Parameters
    ----------
    folder
        Of the parts' files.
    parts
        Identity of each part, everything that determines its values; parts of another identity
        are computed again.
    compute
        Called with the number of a part; returns its rows.

    Returns
    -------
    list of Path
        One file per part.
    """
    files = []
    for i, identity in enumerate(parts):
        files.append(folder / f"{i}.safetensors")
        if read_identity(files[-1]) == identity:
            logger.info("part %d of %d: is finished already", i + 1, len(parts))
            continue
        values = compute(i)
        with atomic(files[-1]) as temporary:
            save_file({"values": values}, temporary, identity)
        logger.info("part %d of %d: %d cells", i + 1, len(parts), len(values))
    return files


def read_identity(part: Path) -> dict[str, str] | None:
    """Read the identity of a part; None if it cannot be read."""
    try:
        with safe_open(part, framework="np") as opened:
            identity: dict[str, str] | None = opened.metadata()
            return identity
    except (OSError, SafetensorError):
        return None


def write_parts(
    group: zarr.Group, name: str, files: Sequence[Path], shape: tuple[int, ...], dtype: str
) -> None:
    """Write the parts as one array of a zarr group, as AnnData does.

    Parameters
    ----------
    group, name
        Of :func:`scdyn.io.artefacts.write_zarr`, and such as ``obsm/X_scdyn``.
    files
        Of :func:`compute_parts`.
    shape, dtype
        Of the array.
    """
    array = group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=(min(ROWS_PER_CHUNK, shape[0]), *shape[1:]),
        compressors=None,
        attributes={"encoding-type": "array", "encoding-version": "0.2.0"},
        config=ALL_CHUNKS,
    )
    place = 0
    for file in files:
        values = load_file(file)["values"]
        array[place : place + len(values)] = values
        place += len(values)
