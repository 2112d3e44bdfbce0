"""Interactive HTML page of a study's cells, coloured by any column."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from scdyn.plotting.pages import render
from scdyn.studies.common import as_text

MOST_CELLS = 50_000  # largest number that a browser draws fluently
# Explanation of each layout.
NOTES = {
    "UMAP": "UMAP of the RNA; predictions do not depend on it.",
    "section": "Positions on the tissue sections, which are placed side by side.",
}


def encode(values: np.ndarray) -> str:
    """Encode an array as base64 of its little-endian bytes."""
    kind = np.asarray(values).dtype.newbyteorder("<")
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode()


def encode_layout(layout: np.ndarray) -> dict[str, Any]:
    """Encode positions as 16-bit integers; ``ratio`` is width divided by height.

    Cells without a position get (65535, 65535), which no other cell has.
    """
    low, high = np.nanmin(layout, axis=0), np.nanmax(layout, axis=0)
    extent = np.maximum(high - low, 1e-12)
    grid = np.nan_to_num((layout - low) / extent * 65534, nan=65535).round().astype(np.uint16)
    return {"xy": encode(grid), "ratio": float(extent[0] / extent[1])}


def encode_column(values: pd.Series, palette: Mapping[str, str]) -> dict[str, Any]:
    """Encode text as indices into a list of names, and numbers as 8 bits between two bounds.

    Missing numbers are 255; missing text is "".
    """
    if pd.api.types.is_numeric_dtype(values):
        low, high = float(values.min()), float(values.max())
        grid = (values - low) / max(high - low, 1e-12) * 254
        return {
            "low": low,
            "high": high,
            "values": encode(grid.fillna(255).round().to_numpy(np.uint8)),
        }
    codes, names = pd.factorize(as_text(values), sort=True)
    return {
        "names": list(names),
        "colours": [palette.get(name, "") for name in names],
        "values": encode(codes.astype(np.uint16)),
    }


def render_view(
    title: str,
    layouts: Mapping[str, np.ndarray],
    columns: pd.DataFrame,
    palette: Mapping[str, str],
    note: str,
    seed: int,
) -> str:
    """Render a self-contained page of cells.

    Parameters
    ----------
    title
        Title of the page.
    layouts
        Name to (cells, 2) positions; NaN for cells without one.
    columns
        Columns to colour by, text or numbers, indexed by cell. Pointing at a cell shows all of
        them.
    palette
        Colours of the values of text columns; the page chooses those that are not given.
    note
        Text below the title.
    seed
        Seed of the random subset of ``MOST_CELLS`` cells, if there are more.
    """
    n_cells = len(columns)
    if n_cells > MOST_CELLS:
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(n_cells, MOST_CELLS, replace=False))
        columns = columns.iloc[chosen]
        layouts = {name: layout[chosen] for name, layout in layouts.items()}
        note += f" A random subset of {MOST_CELLS:,} of {n_cells:,} cells is shown."
    content = {
        "cells": list(map(str, columns.index)),
        "layouts": {name: encode_layout(layout) for name, layout in layouts.items()},
        "columns": {str(name): encode_column(columns[name], palette) for name in columns},
    }
    return render("view.html", title, note=note, cells=content)


def render_study(
    study: str,
    layouts: Mapping[str, np.ndarray],
    columns: pd.DataFrame,
    palette: Mapping[str, str],
    seed: int,
) -> str:
    """Render the page of a study's cells.

    Parameters
    ----------
    study
        Name of the study.
    layouts
        As for :func:`render_view`; names as in :data:`NOTES`.
    columns, palette, seed
        As for :func:`render_view`.
    """
    note = " ".join(NOTES[name] for name in layouts)
    return render_view(f"{study}: {len(columns):,} cells", layouts, columns, palette, note, seed)
