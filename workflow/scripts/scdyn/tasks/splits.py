"""Splits into training and test sets, written before anything is fitted."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from scdyn.errors import InputError
from scdyn.io.artefacts import read_table
from scdyn.log import logger
from scdyn.pp.selection import select

PREDICTED = "predict"  # value of ``fold`` for cells that every fold predicts and none trains on
# Largest number of draws to find folds in which every class is in at least two.
MAX_DRAWS = 20


def split_task(
    obs: pd.DataFrame,
    *,
    train: Mapping[str, Sequence[str]],
    predict: Mapping[str, Sequence[str]] | None,
    label: str,
    split_by: str | None,
    folds: int,
    seed: int,
    validation_share: float,
    min_cells_per_class: int | None,
    min_units: int,
    where: str,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Select a task's cells and split them (:func:`make_splits`); log the classes left out.

    Parameters
    ----------
    obs
        The cells' table.
    train, predict
        Selections (:func:`scdyn.pp.selection.select`) of the labelled cells and of the cells that
        every fold predicts, or None.
    label, split_by, folds, seed, validation_share, min_cells_per_class, min_units
        As :func:`make_splits`.
    where
        The task's key in the config, for messages.

    Returns
    -------
    splits, left_out : DataFrame
        As :func:`make_splits`.
    """
    labelled, predicted = select(obs, train, f"{where}.train"), np.zeros(len(obs), dtype=bool)
    if predict is not None:
        predicted = select(obs, predict, f"{where}.predict")
    splits, left_out = make_splits(
        obs, labelled, predicted, label, split_by, folds, seed, validation_share,
        min_cells_per_class, min_units,
    )  # fmt: skip
    logger.info("%s", describe_split(splits, split_by))
    for name, n_cells, reason in left_out[["class", "n_cells", "reason"]].to_numpy():
        logger.warning("class '%s' (%d cells) is left out: %s", name, n_cells, reason)
    return splits, left_out


def make_splits(
    obs: pd.DataFrame,
    labelled: np.ndarray,
    predicted: np.ndarray,
    label: str,
    split_by: str | None,
    n_folds: int,
    seed: int,
    validation_share: float = 0.1,
    min_cells: int | None = None,
    min_units: int = 2,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split labelled cells into stratified folds, by unit, without rare classes.

    Parameters
    ----------
    obs
        The cells' table.
    labelled, predicted
        (cells,) boolean: the labelled cells, and the cells that every fold predicts.
    label
        Column of the label; cells without one are left out.
    split_by
        Column of the units (samples, donors, batches), each of which is in one fold; None splits
        cells. Labelled cells without a value are in no fold, because they may belong to a test
        unit.
    n_folds, seed
        Number of folds and seed of their draw.
    validation_share
        Share of each class in the training folds that is kept for validation: only the temperature
        and the familiarity are fitted to it.
    min_cells, min_units
        Smallest number of labelled cells of a class (None: the number of folds), and of units with
        such cells if ``split_by`` is given. Rarer classes are left out of training and scores.

    Returns
    -------
    splits : DataFrame
        ``cell``, ``label`` (of predicted cells only used for scores, "" if missing), ``unit``,
        ``fold`` (0 to n_folds - 1, the fold whose test set has the cell, or "predict") and
        ``validation`` (0 or 1). Each class is in two folds or more, so every test class is in the
        training set.
    left_out : DataFrame
        ``class``, ``n_cells``, ``n_units`` and ``reason`` of each rare class. Its labelled cells
        are in no fold; predicted cells with this label are not scored.

    Raises
    ------
    InputError
        If a column is missing or empty in all labelled cells, a cell is in both sets, there are
        fewer units than folds, or fewer than two classes are left.
    """
    for key, column in (("label", label), ("split_by", split_by)):
        if column and column not in obs:
            raise InputError(
                "LABELS",
                f"{key}: the cells have no column '{column}' (columns: {', '.join(obs)}).",
            )
    if (labelled & predicted).any():
        raise InputError(
            "SPLITS",
            f"{(labelled & predicted).sum()} cells are both trained on and predicted; make the "
            "task's train and predict exclude each other.",
        )
    chosen = obs[labelled & obs[label].notna().to_numpy()]
    if split_by:
        chosen = drop_unknown_units(chosen, label, split_by)
    cells = pd.DataFrame(
        {
            "cell": chosen.index,
            "label": chosen[label].astype(str).array,
            "unit": chosen[split_by].astype(str).array if split_by else "",
        }
    )
    require_folds(cells, label, split_by, n_folds)
    left_out = find_rare_classes(
        cells, split_by, n_folds if min_cells is None else min_cells, min_units
    )
    cells = cells[~cells["label"].isin(left_out["class"])]
    require_two_classes(cells, label, left_out)
    require_folds(cells, label, split_by, n_folds)
    cells = cells.assign(fold=draw_folds(cells, bool(split_by), n_folds, seed))
    confined = cells.groupby("label").filter(lambda cells: cells["fold"].nunique() < 2)
    if len(confined):
        left_out = pd.concat([left_out, count_classes(confined, f"all in one fold of {n_folds}")])
        cells = cells[~cells["label"].isin(left_out["class"])]
        require_two_classes(cells, label, left_out)
    # Stratified by fold, so that every training set has the same share.
    strata = cells.groupby(["label", "fold"]).ngroup()
    cells = cells.assign(validation=draw_share(strata, validation_share, seed).astype(int))
    rest = obs[predicted]
    if len(rest):
        labels = rest[label].astype(object).where(rest[label].notna(), "").astype(str)
        queries = pd.DataFrame({"cell": rest.index, "label": labels.array, "unit": ""})
        cells = pd.concat([cells, queries.assign(fold=PREDICTED, validation=0)])
    return cells.reset_index(drop=True), left_out.reset_index(drop=True)


def drop_unknown_units(chosen: pd.DataFrame, label: str, split_by: str) -> pd.DataFrame:
    """Drop the cells without a value of ``split_by``, and log their number.

    Raises
    ------
    InputError
        If no cell has one.
    """
    has_unit = chosen[split_by].notna()
    if len(chosen) and not has_unit.any():
        raise InputError(
            "SPLITS",
            f"label {label}: none of the {len(chosen)} labelled cells has a value of {split_by} "
            "(split_by); add it to the sample sheet or the metadata, or set split_by of the task "
            "to another column.",
        )
    if not has_unit.all():
        logger.warning(
            "%d of %d labelled cells have no value of %s and are left out of training and scores, "
            "because they may belong to a unit of the test set",
            (~has_unit).sum(), len(has_unit), split_by,
        )  # fmt: skip
    return chosen if has_unit.all() else chosen[has_unit]


def find_rare_classes(
    cells: pd.DataFrame, split_by: str | None, min_cells: int, min_units: int
) -> pd.DataFrame:
    """Find the classes with too few cells or units: a table as :func:`count_classes`.

    Parameters
    ----------
    cells
        ``label`` and ``unit`` of every labelled cell.
    split_by
        Column of the units; None: units are not counted.
    min_cells, min_units
        Smallest numbers of each.
    """
    table = count_classes(cells, "")
    few = [
        (table["n_cells"] < min_cells, f"fewer than {min_cells} cells (min_cells_per_class)"),
        (table["n_units"] < min_units, f"in fewer than {min_units} of {split_by} (min_units)"),
    ]
    for is_rare, reason in few if split_by else few[:1]:
        table.loc[is_rare & (table["reason"] == ""), "reason"] = reason
    return table[table["reason"] != ""]


def count_classes(cells: pd.DataFrame, reason: str) -> pd.DataFrame:
    """Count each class's cells and units: ``class``, ``n_cells``, ``n_units``, ``reason``."""
    counts = cells.groupby("label")["unit"].agg(n_cells="size", n_units="nunique")
    return counts.rename_axis("class").reset_index().assign(reason=reason)


def require_folds(cells: pd.DataFrame, label: str, split_by: str | None, n_folds: int) -> None:
    """Raise if there are more folds than units, or than cells of the largest class."""
    most = int(cells["label"].value_counts().max()) if len(cells) else 0
    if split_by:
        most = min(most, cells["unit"].nunique())
    if most < n_folds:
        needed = f"values of {split_by} and cells per class" if split_by else "cells per class"
        remedy = f"set the task's folds to {most} at most" if most > 1 else "label more cells"
        raise InputError(
            "SPLITS",
            f"label {label}: {n_folds} folds need as many {needed}, but there are "
            f"{most}; {remedy}" + (", or split cells (split_by: null)." if split_by else "."),
        )


def require_two_classes(cells: pd.DataFrame, label: str, left_out: pd.DataFrame) -> None:
    """Raise if a task has fewer than two classes."""
    n_classes = cells["label"].nunique()
    if n_classes < 2:
        rare = [f"'{name}' {why}" for name, why in left_out[["class", "reason"]].to_numpy()]
        more = f", and {len(rare) - 5} more" if len(rare) > 5 else ""
        raise InputError(
            "LABELS",
            f"label {label}: {n_classes} of {n_classes + len(left_out)} classes have enough cells, "
            "but a task needs at least two"
            + (f" (left out: {', '.join(rare[:5])}{more})" if rare else "")
            + "; lower the task's min_cells_per_class, min_units or folds, or check its train.",
        )


def draw_folds(cells: pd.DataFrame, by_unit: bool, n_folds: int, seed: int) -> np.ndarray:
    """Draw the fold of each cell; redraw if a class is in a single fold.

    Parameters
    ----------
    cells
        ``label`` and ``unit`` of every cell.
    by_unit
        Whether each unit is in one fold.
    n_folds, seed
        See :func:`make_splits`.

    Returns
    -------
    ndarray, (cells,)
        Folds of the first of :data:`MAX_DRAWS` draws in which every class is in two folds or more,
        or else of the draw with the fewest cells in classes of a single fold.
    """
    rng = np.random.RandomState(seed)
    kind = StratifiedGroupKFold if by_unit else StratifiedKFold
    splitter = kind(n_folds, shuffle=True, random_state=rng)
    best, fewest = np.empty(0), len(cells) + 1
    for _ in range(MAX_DRAWS):
        folds = np.empty(len(cells), dtype=int)
        with warnings.catch_warnings():  # of classes with fewer cells than folds
            warnings.filterwarnings("ignore", message="The least populated class")
            for i, (_, test) in enumerate(
                splitter.split(cells, cells["label"], cells["unit"] if by_unit else None)
            ):
                folds[test] = i
        n_folds_of = pd.Series(folds).groupby(cells["label"].to_numpy()).transform("nunique")
        n_confined = int((n_folds_of < 2).sum())
        if n_confined < fewest:
            best, fewest = folds, n_confined
        if not fewest:
            break
    return best


def draw_share(strata: pd.Series, share: float, seed: int, least: int = 0) -> np.ndarray:
    """Draw a share of each stratum, rounded, at least ``least``: (n,) to boolean (n,).

    scikit-learn's ``train_test_split`` rejects a stratum of one, and rounds over all strata.
    """
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(strata), dtype=bool)
    for _, places in sorted(
        strata.reset_index(drop=True).groupby(strata.to_numpy()).groups.items()
    ):
        n = min(len(places), max(least, round(share * len(places))))
        chosen[rng.permutation(places.to_numpy())[:n]] = True
    return chosen


def read_splits(path: str | Path) -> pd.DataFrame:
    """Read ``splits.tsv``, of :func:`make_splits`: all text, categorical except ``cell``."""
    kinds = dict.fromkeys(["label", "unit", "fold", "validation"], "category")
    return read_table(path, dtype={"cell": str, **kinds}, keep_default_na=False)


def require_cells(splits: pd.DataFrame, cells: pd.Index) -> None:
    """Raise if a split is of another corpus.

    Parameters
    ----------
    splits
        As :func:`read_splits` returns it.
    cells
        Cell names of the corpus.

    Raises
    ------
    InputError
        If a cell of the split is not in the corpus.
    """
    missing = splits.loc[~splits["cell"].isin(cells), "cell"]
    if len(missing):
        raise InputError(
            "SPLITS",
            f"{len(missing)} of the split's {len(splits)} cells are not in the corpus, such as "
            f"{missing.iloc[0]}: the split is of another corpus; remove the task's splits.tsv "
            "and run the workflow again.",
        )


def split_cells(
    splits: pd.DataFrame, fold: str, labels: float = 1.0, without: str | None = None, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Split the cells of one run into training, validation and predicted cells.

    Parameters
    ----------
    splits
        As :func:`read_splits` returns it.
    fold
        The fold of the test set.
    labels
        Share of the labels, drawn within classes by the seed, at least two of each.
    without
        A class to leave out of the training set.
    seed
        Seed of the draw.

    Returns
    -------
    training, validation, predicted : DataFrame
        Rows of the split. Without validation cells in the split, ``validation`` is all training
        cells.

    Raises
    ------
    InputError
        If no labelled cell has the class ``without``.
    """
    is_predicted = splits["fold"].isin([fold, PREDICTED])
    if without is not None and without not in set(splits.loc[splits["fold"] != PREDICTED, "label"]):
        present = ", ".join(sorted(set(splits.loc[splits["fold"] != PREDICTED, "label"])))
        raise InputError(
            "LABELS",
            f"left_out: no training cell has the label '{without}' (classes: {present}); correct "
            "the name, or remove it: rare classes are left out already.",
        )
    training = splits[~is_predicted & (splits["label"] != without)]
    if labels < 1:
        training = training[draw_share(training["label"], labels, seed, least=2)]
    kept = training["validation"] == "1"
    # A class whose training cells are all validation cells is trained on nevertheless.
    kept &= training["label"].isin(training.loc[~kept, "label"])
    validation = training[kept] if kept.any() else training
    return training[~kept], validation, splits[is_predicted]


def require_other_classes(training: pd.DataFrame, without: str | None) -> None:
    """Refuse to leave a class out of a task of two."""
    if without is not None and training["label"].nunique() < 2:
        raise InputError(
            "LABELS",
            f"left_out: without '{without}' the training set has one class; leave out classes of "
            "tasks with three or more.",
        )


def describe_split(splits: pd.DataFrame, split_by: str | None) -> str:
    """Describe the split in words: by cells, or by units."""
    n_folds = splits.loc[splits["fold"] != PREDICTED, "fold"].nunique()
    if split_by is None:
        return f"within-sample: {n_folds} folds of cells, of the same samples in training and test"
    n_units = splits.loc[splits["fold"] != PREDICTED, "unit"].nunique()
    return f"by {split_by}: {n_units} units, each in one of {n_folds} folds"
