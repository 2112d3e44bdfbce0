"""Which cells a selection of the config means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from scdyn.errors import InputError


def select(obs: pd.DataFrame, selection: Mapping[str, Sequence[str]], where: str) -> np.ndarray:
    """Tell which cells a selection of the config means.

    Parameters
    ----------
    obs
        The cells' table.
    selection
        Column to allowed values; a cell must match in every column. Empty: all cells.
    where
        The config's key, for messages.

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
        if column not in obs:
            raise InputError(
                f"{where}: the cells have no column '{column}'; they have {', '.join(obs)}."
            )
        values = obs[column].astype(str)
        for value in allowed:
            if not (values == str(value)).any():
                quoted = " (yes, no, on and off need quotes in YAML)" * isinstance(value, bool)
                raise InputError(
                    f"{where}: no cell has {column} '{value}'{quoted}; there are "
                    f"{', '.join(sorted(values.unique())[:20])}."
                )
        chosen &= values.isin([str(value) for value in allowed]).to_numpy()
    if not chosen.any():
        raise InputError(f"{where}: no cell matches {dict(selection)}.")
    return chosen


def select_samples(
    sheet: pd.DataFrame,
    selection: Mapping[str, Sequence[str]],
    covariates: Sequence[str],
    where: str,
) -> list[str] | None:
    """Name the samples that a selection means, where the sample sheet alone tells.

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
        None if the selection names a column that only the cells have.

    Raises
    ------
    InputError
        If a value does not exist, or no sample matches.
    """
    if not set(selection) <= {"sample", *covariates}:
        return None
    return list(sheet.index[select(sheet, selection, where)])
