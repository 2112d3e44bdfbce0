"""Selections of cells or samples in the config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from scdyn.errors import InputError
from scdyn.pp.obs_columns import MISSING, clean_text, to_word, unify_spelling

# Fewest cells sampled per stratum; all of a smaller stratum.
LEAST_OF_STRATUM = 10


def select(obs: pd.DataFrame, selection: Mapping[str, Sequence[object]], where: str) -> np.ndarray:
    """Select cells by the values of their columns.

    Parameters
    ----------
    obs
        Table of the cells.
    selection
        Allowed values by column; a cell must match in every column, and missing values never
        match. Empty: all cells.
    where
        Key in the config, for messages.

    Returns
    -------
    ndarray of bool, (cells,)

    Raises
    ------
    InputError
        If a column or a value does not exist, or no cell matches.
    """
    chosen = np.ones(len(obs), dtype=bool)
    for column, allowed in selection.items():
        require_column(obs, column, where)
        values = spell_values(obs[column])
        for value in allowed:
            text = unify_spelling(str(value))
            if not (values == text).any():
                hint = " (yes, no, on and off need quotes in YAML)" * isinstance(value, bool)
                if text in MISSING:
                    hint = " (this word means a missing value; use another, such as none)"
                raise InputError(
                    "CONFIG",
                    f"{where}: no cell has {column} '{value}'{hint}; there are "
                    f"{', '.join(sorted(values.dropna().unique())[:20]) or 'no values'}.",
                )
        chosen &= values.isin([unify_spelling(str(value)) for value in allowed]).to_numpy()
    if not chosen.any():
        raise InputError("CONFIG", f"{where}: no cell matches {dict(selection)}.")
    return chosen


def require_column(obs: pd.DataFrame, column: str, where: str) -> None:
    """Raise if the table of the cells has no such column; see :func:`select`."""
    if column not in obs:
        raise InputError(
            "CONFIG",
            f"{where}: the cells have no column '{column}', only {', '.join(obs)}; correct "
            "the name.",
        )


def spell_values(column: pd.Series) -> pd.Series:
    """Spell values as in the table of cells, with None for missing values."""
    codes, found = pd.factorize(column)
    texts = [unify_spelling(clean_text(to_word(value) or "")) for value in found]
    known = np.array([*(None if text in MISSING else text for text in texts), None], dtype=object)
    return pd.Series(known[codes], column.index)


def select_samples(
    sheet: pd.DataFrame,
    selection: Mapping[str, Sequence[object]],
    covariates: Sequence[str],
    where: str,
) -> list[str] | None:
    """Select samples, if the columns of the sample sheet suffice.

    Parameters
    ----------
    sheet
        Rows of the sample sheet, indexed by sample.
    selection, where
        As for :func:`select`.
    covariates
        Columns of the sheet that are covariates.

    Returns
    -------
    list of str, or None
        None if the selection needs a column that only the cells have.

    Raises
    ------
    InputError
        If a value does not exist, or no sample matches.
    """
    if not set(selection) <= {"sample", *covariates}:
        return None
    return list(sheet.index[select(sheet, selection, where)])


def draw_cells(strata: pd.DataFrame, max_cells: int, seed: int) -> np.ndarray:
    """Sample cells from all strata in proportion, but at least a few per stratum.

    Parameters
    ----------
    strata
        One row per cell; a stratum is the cells that agree in all columns.
    max_cells
        Number of cells to sample.
    seed
        Seed of the sample.

    Returns
    -------
    ndarray
        Rows of the sampled cells, ascending; ``max_cells`` of them, or all if there are fewer.
    """
    rng = np.random.default_rng(seed)
    groups = list(
        strata.groupby(list(strata), observed=True, sort=True, dropna=False).indices.values()
    )
    sizes = np.array([len(group) for group in groups])
    if sizes.sum() <= max_cells:
        return np.arange(len(strata))
    least = min(LEAST_OF_STRATUM, max_cells // len(groups))
    expected = np.maximum(sizes * (max_cells / sizes.sum()), np.minimum(least, sizes))
    floor = np.minimum(least, sizes)
    # Scale the shares above the minimum so that the sum is max_cells.
    spare = (max_cells - floor.sum()) / max((expected - floor).sum(), 1e-12)
    expected = floor + (expected - floor) * spare
    numbers = np.floor(expected).astype(int)
    remainder = max_cells - numbers.sum()
    numbers[np.argsort(numbers - expected, kind="stable")[:remainder]] += 1
    drawn = [
        rng.choice(group, number, replace=False)
        for group, number in zip(groups, numbers, strict=True)
    ]
    return np.sort(np.concatenate(drawn))
