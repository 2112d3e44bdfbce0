"""A page to look at cells: an interactive map, coloured by what is known of them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from scdyn.plotting.pages import render
from scdyn.studies.common import as_text

MOST_CELLS = 50_000  # that a browser draws at once
# What is said of a study's layouts.
NOTES = {
    "UMAP": "UMAP of the RNA, which no prediction depends on.",
    "section": "Positions on the section; sections side by side.",
}


def packed(values: np.ndarray) -> str:
    """Little-endian bytes of an array, in base64."""
    kind = np.asarray(values).dtype.newbyteorder("<")
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode()


def packed_layout(layout: np.ndarray) -> dict[str, Any]:
    """Positions on a grid of 16 bits; ``ratio`` is width to height.

    Cells without a position are at (65535, 65535), where no other is.
    """
    low, high = np.nanmin(layout, axis=0), np.nanmax(layout, axis=0)
    extent = np.maximum(high - low, 1e-12)
    grid = np.nan_to_num((layout - low) / extent * 65534, nan=65535).round().astype(np.uint16)
    return {"xy": packed(grid), "ratio": float(extent[0] / extent[1])}


def packed_column(values: pd.Series, palette: Mapping[str, str]) -> dict[str, Any]:
    """A column by the place of each cell's value in a list, or on 8 bits between two ends.

    Numbers that are missing are 255; text that is missing is "".
    """
    if pd.api.types.is_numeric_dtype(values):
        low, high = float(values.min()), float(values.max())
        grid = (values - low) / max(high - low, 1e-12) * 254
        return {
            "low": low,
            "high": high,
            "values": packed(grid.fillna(255).round().to_numpy(np.uint8)),
        }
    codes, names = pd.factorize(as_text(values), sort=True)
    return {
        "names": list(names),
        "colours": [palette.get(name, "") for name in names],
        "values": packed(codes.astype(np.uint16)),
    }


def view_page(
    title: str,
    layouts: Mapping[str, np.ndarray],
    columns: pd.DataFrame,
    palette: Mapping[str, str],
    note: str,
    seed: int,
) -> str:
    """Make the page: one file that asks for nothing outside of it.

    Parameters
    ----------
    title
        Above the map.
    layouts
        Name to (cells, 2) positions; NaN where a cell has none.
    columns
        Indexed by cell: what to colour by, text or numbers; all of it is shown of a cell that
        is pointed at.
    palette
        Colours of values of the text columns; others get a colour of the page's own.
    note
        Beneath the title.
    seed
        Of the ``MOST_CELLS`` that are drawn of more.
    """
    n_cells = len(columns)
    if n_cells > MOST_CELLS:
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(n_cells, MOST_CELLS, replace=False))
        columns = columns.iloc[chosen]
        layouts = {name: layout[chosen] for name, layout in layouts.items()}
        note += f" {MOST_CELLS:,} of {n_cells:,} cells, drawn at random."
    content = {
        "cells": list(map(str, columns.index)),
        "layouts": {name: packed_layout(layout) for name, layout in layouts.items()},
        "columns": {str(name): packed_column(columns[name], palette) for name in columns},
    }
    return render("view.html", title, note=note, cells=content)


def study_page(
    study: str,
    layouts: Mapping[str, np.ndarray],
    columns: pd.DataFrame,
    palette: Mapping[str, str],
    seed: int,
) -> str:
    """Make the page of a study's cells.

    Parameters
    ----------
    study
        Its name.
    layouts
        As :func:`view_page`, by the names of :data:`NOTES`.
    columns, palette, seed
        As :func:`view_page`.
    """
    note = " ".join(NOTES[name] for name in layouts)
    return view_page(f"{study}: {len(columns):,} cells", layouts, columns, palette, note, seed)
