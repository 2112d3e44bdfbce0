"""Who is learned from and who is tested: files, made before anything is fitted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from scdyn.artefacts import read_table
from scdyn.errors import InputError

PREDICTED = "predict"  # what the column ``fold`` says of cells no fold trains on


def make_splits(
    obs: pd.DataFrame,
    labelled: np.ndarray,
    predicted: np.ndarray,
    label: str,
    split_by: str | None,
    n_folds: int,
    seed: int,
    validation_share: float = 0.1,
) -> pd.DataFrame:
    """Part labelled cells into folds, units whole and classes balanced.

    Parameters
    ----------
    obs
        The cells' table.
    labelled, predicted
        (cells,) boolean: who has a label to learn, who is to be predicted by every fold.
    label
        Column of the label; cells without one are left out.
    split_by
        Column whose values (samples, donors, batches) are kept whole; None splits cells.
    n_folds, seed
        Number of folds and seed of their draw.
    validation_share
        Share of each class that is kept for validation where it is not tested: nothing is
        fitted to it but the temperature of the probabilities and what counts as familiar.

    Returns
    -------
    DataFrame
        ``cell``, ``label`` (of predicted cells their own, which is for scores alone, "" if
        none), ``unit``, ``fold`` (0 to n_folds - 1 where the cell is tested, or "predict") and
        ``validation`` (0 or 1).

    Raises
    ------
    InputError
        If a column is missing, a class has fewer cells or units than folds, or the two
        sets share a cell.
    """
    for column in filter(None, [label, split_by]):
        if column not in obs:
            raise InputError(f"the cells have no column '{column}'; they have {', '.join(obs)}.")
    if (labelled & predicted).any():
        raise InputError(
            f"{(labelled & predicted).sum()} cells are both trained on and predicted; make the "
            "task's train and predict exclude each other."
        )
    chosen = obs[labelled & obs[label].notna().to_numpy()]
    labels = chosen[label].astype(str)
    units = chosen[split_by].astype(str) if split_by else pd.Series("", index=chosen.index)
    n_units = units.groupby(labels).nunique() if split_by else labels.value_counts()
    if n_units.min() < n_folds or len(n_units) < 2:
        what = split_by or "cells"
        raise InputError(
            f"label {label} has {len(n_units)} classes, of which '{n_units.idxmin()}' is in "
            f"{n_units.min()} {what}, fewer than {n_folds} folds (or two classes) need."
        )
    folds = np.empty(len(chosen), dtype=int)
    if split_by:
        splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    else:
        splitter = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    for i, (_, test) in enumerate(splitter.split(chosen, labels, units)):
        folds[test] = i
    learned = pd.DataFrame(
        {"cell": chosen.index, "label": labels.array, "unit": units.array, "fold": folds}
    )
    # Of each fold's cells a share, so that every training part has as much.
    strata = learned["label"] + "\t" + learned["fold"].astype(str)
    learned["validation"] = drawn(strata, validation_share, seed).astype(int)
    rest = obs[predicted]
    if rest.empty:
        return learned
    known = rest[label].astype(object).where(rest[label].notna(), "").astype(str)
    asked = pd.DataFrame({"cell": rest.index, "label": known.array, "unit": ""})
    return pd.concat([learned, asked.assign(fold=PREDICTED, validation=0)], ignore_index=True)


def drawn(strata: pd.Series, share: float, seed: int, least: int = 0) -> np.ndarray:
    """Draw a share of each stratum, rounded, at least some: (n,) to boolean (n,)."""
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(strata), dtype=bool)
    for _, places in sorted(
        strata.reset_index(drop=True).groupby(strata.to_numpy()).groups.items()
    ):
        n = min(len(places), max(least, round(share * len(places))))
        chosen[rng.permutation(places.to_numpy())[:n]] = True
    return chosen


def read_splits(path: str | Path) -> pd.DataFrame:
    """Read ``splits.tsv`` as :func:`make_splits` made it, all of it as text."""
    return read_table(path, dtype=str, keep_default_na=False)


def require_cells(splits: pd.DataFrame, cells: pd.Index) -> None:
    """Stop if a split is of another corpus.

    Parameters
    ----------
    splits
        As :func:`read_splits` returns it.
    cells
        Names of the corpus' cells.

    Raises
    ------
    InputError
        If it has cells that the corpus lacks.
    """
    strange = splits.loc[~splits["cell"].isin(cells), "cell"]
    if len(strange):
        raise InputError(
            f"{len(strange)} of the split's {len(splits)} cells are not in the corpus, such as "
            f"{strange.iloc[0]}: it was made of another; remove the task's splits.tsv and run the "
            "workflow again."
        )


def parts(
    splits: pd.DataFrame, fold: str, labels: float = 1.0, without: str | None = None, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Part a split into the cells one model learns from, is validated on, and calls.

    Parameters
    ----------
    splits
        As :func:`read_splits` returns it.
    fold
        The fold that is tested.
    labels
        Share of the labels that is seen, drawn within classes by the seed, at least two of each.
    without
        A class that is kept from the model.
    seed
        Of the draw.

    Returns
    -------
    learned, validation, called : DataFrame
        Rows of the split. If no cell is kept for validation, it is all that are learned from.
    """
    is_called = splits["fold"].isin([fold, PREDICTED])
    known = splits[~is_called & (splits["label"] != without)]
    if labels < 1:
        known = known[drawn(known["label"], labels, seed, least=2)]
    kept = known["validation"] == "1"
    # A class all of whose few cells were drawn for validation is learned from nevertheless.
    kept &= known["label"].isin(known.loc[~kept, "label"])
    validation = known[kept] if kept.any() else known
    return known[~kept], validation, splits[is_called]


def describe_split(splits: pd.DataFrame, split_by: str | None) -> str:
    """Say in words what was kept whole between training and test."""
    n_folds = splits.loc[splits["fold"] != PREDICTED, "fold"].nunique()
    if split_by is None:
        return f"within-sample: {n_folds} folds of cells, of the same samples in training and test"
    n_units = splits.loc[splits["fold"] != PREDICTED, "unit"].nunique()
    return f"by {split_by}: {n_units} units, each in one of {n_folds} folds"
