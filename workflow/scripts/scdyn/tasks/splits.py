"""Who is learned from and who is tested: files, made before anything is fitted."""

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

PREDICTED = "predict"  # what the column ``fold`` says of cells no fold trains on
# How often folds are drawn until no class is in one of them alone.
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
    """Choose a task's cells and part them as :func:`make_splits`; log what is left out.

    Parameters
    ----------
    obs
        The cells' table.
    train, predict
        Selections (:func:`scdyn.pp.selection.select`) of the labelled cells and of those that every
        fold predicts; the latter None if there are none.
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
    """Part labelled cells into folds, units whole and classes balanced, without rare classes.

    Parameters
    ----------
    obs
        The cells' table.
    labelled, predicted
        (cells,) boolean: who has a label to learn, who is to be predicted by every fold.
    label
        Column of the label; cells without one are left out.
    split_by
        Column whose values (samples, donors, batches) are kept whole; None splits cells. Labelled
        cells without a value are in no fold: they may be of a unit that is tested.
    n_folds, seed
        Number of folds and seed of their draw.
    validation_share
        Share of each class that is kept for validation where it is not tested: nothing is
        fitted to it but the temperature of the probabilities and what counts as familiar.
    min_cells, min_units
        Fewest labelled cells of a class (None: as many as folds), and fewest units that have
        such cells where ``split_by`` is given. Rarer classes are left out of training and scores.

    Returns
    -------
    splits : DataFrame
        ``cell``, ``label`` (of predicted cells their own, which is for scores alone, "" if
        none), ``unit``, ``fold`` (0 to n_folds - 1 where the cell is tested, or "predict") and
        ``validation`` (0 or 1). Each class is in two folds or more, so that it is trained on
        wherever it is tested.
    left_out : DataFrame
        ``class``, ``n_cells``, ``n_units`` and ``reason`` of each rare class. Its cells are in
        no fold; predicted cells of it are predicted, and not scored.

    Raises
    ------
    InputError
        If a column is missing, or its value in every labelled cell; the two sets share a cell;
        there are fewer units than folds; or fewer than two classes are left.
    """
    for column in filter(None, [label, split_by]):
        if column not in obs:
            raise InputError(
                "LABELS", f"the cells have no column '{column}'; they have {', '.join(obs)}."
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
    learned = pd.DataFrame(
        {
            "cell": chosen.index,
            "label": chosen[label].astype(str).array,
            "unit": chosen[split_by].astype(str).array if split_by else "",
        }
    )
    require_folds(learned, label, split_by, n_folds)
    left_out = find_rare_classes(
        learned, split_by, n_folds if min_cells is None else min_cells, min_units
    )
    learned = learned[~learned["label"].isin(left_out["class"])]
    require_two_classes(learned, label, left_out)
    require_folds(learned, label, split_by, n_folds)
    learned = learned.assign(fold=draw_folds(learned, bool(split_by), n_folds, seed))
    confined = learned.groupby("label").filter(lambda cells: cells["fold"].nunique() < 2)
    if len(confined):
        left_out = pd.concat([left_out, count_classes(confined, f"all in one fold of {n_folds}")])
        learned = learned[~learned["label"].isin(left_out["class"])]
        require_two_classes(learned, label, left_out)
    # Of each fold's cells a share, so that every training part has as much.
    strata = learned["label"] + "\t" + learned["fold"].astype(str)
    learned = learned.assign(validation=draw_share(strata, validation_share, seed).astype(int))
    rest = obs[predicted]
    if len(rest):
        known = rest[label].astype(object).where(rest[label].notna(), "").astype(str)
        asked = pd.DataFrame({"cell": rest.index, "label": known.array, "unit": ""})
        learned = pd.concat([learned, asked.assign(fold=PREDICTED, validation=0)])
    return learned.reset_index(drop=True), left_out.reset_index(drop=True)


def drop_unknown_units(chosen: pd.DataFrame, label: str, split_by: str) -> pd.DataFrame:
    """Leave out the cells whose unit is not known, and say how many.

    Raises
    ------
    InputError
        If none is left.
    """
    known = chosen[split_by].notna()
    if len(chosen) and not known.any():
        raise InputError(
            "SPLITS",
            f"label {label}: none of the {len(chosen)} labelled cells has a value of {split_by}, "
            "by which they are to be split; give it in the sample sheet or the metadata, or name "
            "another column in the task's split_by.",
        )
    if not known.all():
        logger.warning(
            "%d of %d labelled cells have no value of %s and are left out of training and scores, "
            "for they may be of a unit that is tested",
            (~known).sum(), len(known), split_by,
        )  # fmt: skip
    return chosen[known]


def find_rare_classes(
    learned: pd.DataFrame, split_by: str | None, min_cells: int, min_units: int
) -> pd.DataFrame:
    """Name the classes with too few cells or units, as :func:`count_classes` lays them out.

    Parameters
    ----------
    learned
        ``label`` and ``unit`` of every labelled cell.
    split_by
        What a unit is; None: units are not looked at.
    min_cells, min_units
        Fewest of each.
    """
    table = count_classes(learned, "")
    few = [
        (table["n_cells"] < min_cells, f"fewer than {min_cells} cells (min_cells_per_class)"),
        (table["n_units"] < min_units, f"in fewer than {min_units} of {split_by} (min_units)"),
    ]
    for is_rare, reason in few if split_by else few[:1]:
        table.loc[is_rare & (table["reason"] == ""), "reason"] = reason
    return table[table["reason"] != ""]


def count_classes(learned: pd.DataFrame, reason: str) -> pd.DataFrame:
    """Count each class's cells and units: ``class``, ``n_cells``, ``n_units``, ``reason``."""
    counts = learned.groupby("label")["unit"].agg(n_cells="size", n_units="nunique")
    return counts.rename_axis("class").reset_index().assign(reason=reason)


def require_folds(learned: pd.DataFrame, label: str, split_by: str | None, n_folds: int) -> None:
    """Refuse more folds than there are units, or cells of the largest class."""
    most = int(learned["label"].value_counts().max()) if len(learned) else 0
    if split_by:
        most = min(most, learned["unit"].nunique())
    if most < n_folds:
        what = f"values of {split_by}, and cells of a class" if split_by else "cells of a class"
        remedy = f"set the task's folds to {most} at most" if most > 1 else "label more cells"
        raise InputError(
            "SPLITS",
            f"label {label}: {n_folds} folds need as many {what}, but there are {most}; {remedy}"
            + (", or split cells (split_by: null)." if split_by else "."),
        )


def require_two_classes(learned: pd.DataFrame, label: str, left_out: pd.DataFrame) -> None:
    """Refuse a task with fewer than two classes."""
    n_classes = learned["label"].nunique()
    if n_classes < 2:
        rare = [f"'{name}' {why}" for name, why in left_out[["class", "reason"]].to_numpy()]
        more = f", and {len(rare) - 5} more" if len(rare) > 5 else ""
        raise InputError(
            "LABELS",
            f"label {label}: {n_classes} of {n_classes + len(left_out)} classes can be trained on, "
            "and a task needs two"
            + (f" (left out: {', '.join(rare[:5])}{more})" if rare else "")
            + "; lower the task's min_cells_per_class, min_units or folds, or look at its train.",
        )


def draw_folds(learned: pd.DataFrame, by_unit: bool, n_folds: int, seed: int) -> np.ndarray:
    """Draw the fold of each cell, anew where a class would be in one fold alone.

    Parameters
    ----------
    learned
        ``label`` and ``unit`` of every cell.
    by_unit
        Whether units stay whole.
    n_folds, seed
        As :func:`make_splits` has them.

    Returns
    -------
    ndarray, (cells,)
        Of the first of :data:`MAX_DRAWS` draws in which every class is in two folds or more, or
        else of the one with the fewest cells in classes that are not.
    """
    rng = np.random.RandomState(seed)
    kind = StratifiedGroupKFold if by_unit else StratifiedKFold
    splitter = kind(n_folds, shuffle=True, random_state=rng)
    best, fewest = np.empty(0), len(learned) + 1
    for _ in range(MAX_DRAWS):
        folds = np.empty(len(learned), dtype=int)
        with warnings.catch_warnings():  # of classes with fewer cells than folds
            warnings.filterwarnings("ignore", message="The least populated class")
            for i, (_, test) in enumerate(
                splitter.split(learned, learned["label"], learned["unit"] if by_unit else None)
            ):
                folds[test] = i
        n_folds_of = pd.Series(folds).groupby(learned["label"].to_numpy()).transform("nunique")
        n_confined = int((n_folds_of < 2).sum())
        if n_confined < fewest:
            best, fewest = folds, n_confined
        if not fewest:
            break
    return best


def draw_share(strata: pd.Series, share: float, seed: int, least: int = 0) -> np.ndarray:
    """Draw a share of each stratum, rounded, at least some: (n,) to boolean (n,).

    scikit-learn's ``train_test_split`` refuses a stratum of one, and rounds over all strata.
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
            "SPLITS",
            f"{len(strange)} of the split's {len(splits)} cells are not in the corpus, such as "
            f"{strange.iloc[0]}: it was made of another; remove the task's splits.tsv and run the "
            "workflow again.",
        )


def split_cells(
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

    Raises
    ------
    InputError
        If no training cell is of the class ``without``.
    """
    is_called = splits["fold"].isin([fold, PREDICTED])
    if without is not None and without not in set(splits.loc[splits["fold"] != PREDICTED, "label"]):
        present = ", ".join(sorted(set(splits.loc[splits["fold"] != PREDICTED, "label"])))
        raise InputError(
            "LABELS",
            f"left_out: no training cell is labelled '{without}'; the classes are {present}. "
            "Correct the name, or remove it: rare classes are left out already.",
        )
    known = splits[~is_called & (splits["label"] != without)]
    if labels < 1:
        known = known[draw_share(known["label"], labels, seed, least=2)]
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
