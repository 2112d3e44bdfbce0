"""Splits made before anything is fitted, scores, and the baselines on the same splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import MaxAbsScaler

from scdyn.errors import InputError

PREDICTED = "predict"  # what the column ``fold`` of a split says of cells no fold trains on


def make_splits(
    obs: pd.DataFrame,
    labelled: np.ndarray,
    predicted: np.ndarray,
    label: str,
    split_by: str | None,
    n_folds: int,
    seed: int,
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

    Returns
    -------
    DataFrame
        ``cell``, ``label``, ``unit``, ``fold`` (0 to n_folds - 1 where the cell is tested, or
        "predict").

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
    labelled = labelled & obs[label].notna().to_numpy()
    chosen = obs[labelled]
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
    rest = obs[predicted]
    if rest.empty:
        return learned
    asked = pd.DataFrame({"cell": rest.index, "label": "", "unit": "", "fold": PREDICTED})
    return pd.concat([learned, asked], ignore_index=True)


def score(labels: np.ndarray, called: np.ndarray) -> dict[str, float]:
    """Accuracy and macro-F1 over the classes that occur among the labels."""
    classes = np.unique(labels)
    return {
        "accuracy": float(accuracy_score(labels, called)),
        "macro_f1": float(
            f1_score(labels, called, labels=classes, average="macro", zero_division=0)
        ),
    }


def logistic_regression(
    values: sparse.csr_matrix, labels: np.ndarray, others: sparse.csr_matrix, strength: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit an L2 logistic regression and call other cells.

    Parameters
    ----------
    values
        (training cells, features) log-normalised values; each feature is scaled by its
        largest training value.
    labels
        (training cells,).
    others
        (cells, features) to call.
    strength
        Inverse of the regularisation.

    Returns
    -------
    classes : ndarray
    probabilities : ndarray, (cells, classes)
    weights : ndarray, (classes, features)
        On the scaled features; for two classes the row of the first is the negative of the second.
    """
    scaler = MaxAbsScaler().fit(values)
    model = LogisticRegression(C=strength, max_iter=2000)
    model.fit(scaler.transform(values), labels)
    weights = model.coef_
    if len(model.classes_) == 2:
        weights = np.concatenate([-weights, weights])
    return model.classes_, model.predict_proba(scaler.transform(others)), weights


def read_splits(path: str | Path) -> pd.DataFrame:
    """Read ``splits.tsv`` as :func:`make_splits` made it."""
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Read a table of :func:`predictions` or :func:`combine`."""
    text = {name: str for name in ("cell", "fold", "part", "label", "method", "called")}
    return pd.read_csv(path, sep="\t", dtype=text, keep_default_na=False, na_values={})


def parts(splits: pd.DataFrame, fold: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Part a split into the cells a fold's model learns from and those it calls."""
    called = splits["fold"].isin([fold, PREDICTED])
    return splits[~called], splits[called]


def predictions(
    called: pd.DataFrame, fold: str, method: str, classes: Sequence[str], p: np.ndarray
) -> pd.DataFrame:
    """Lay one fold's calls out as a table.

    Parameters
    ----------
    called
        The cells called, rows of a split.
    fold
        The fold.
    method
        What called them.
    classes, p
        (classes,) and (cells, classes) probabilities.

    Returns
    -------
    DataFrame
        ``cell``, ``fold``, ``part`` ("test" or "predict"), ``label`` ("" if unknown), ``method``,
        ``called`` and ``p_<class>``.
    """
    table = pd.DataFrame(
        {
            "cell": called["cell"].to_numpy(),
            "fold": fold,
            "part": np.where(called["fold"] == PREDICTED, PREDICTED, "test"),
            "label": called["label"].to_numpy(),
            "method": method,
            "called": np.asarray(classes)[p.argmax(1)],
        }
    )
    return pd.concat([table, pd.DataFrame(p, columns=[f"p_{name}" for name in classes])], axis=1)


def baseline_fold(
    cells: ad.AnnData, splits: pd.DataFrame, fold: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fit logistic regression on one fold, with RNA alone and with both modalities.

    Parameters
    ----------
    cells
        Corpus with the normalised layers.
    splits, fold
        The split, and the fold that is tested.

    Returns
    -------
    calls : DataFrame
        As :func:`predictions`, methods "logistic_regression" (RNA and promoters) and
        "logistic_regression_rna".
    weights : DataFrame
        ``gene_id``, ``class``, ``rna``, ``promoter``: weights of the former.
    """
    learned, called = parts(splits, fold)
    rna, promoter = cells.layers["rna_log"], cells.layers["promoter_log"]
    values = {
        "logistic_regression": sparse.hstack([rna, promoter], format="csr"),
        "logistic_regression_rna": rna,
    }
    train, test = (cells.obs_names.get_indexer(part["cell"]) for part in (learned, called))
    tables, weight_tables = [], {}
    for method, table in values.items():
        classes, p, weights = logistic_regression(
            table[train], learned["label"].to_numpy(), table[test]
        )
        tables.append(predictions(called, fold, method, classes, p))
        weight_tables[method] = weights
    both = weight_tables["logistic_regression"].reshape(len(classes), 2, -1)
    weights = pd.concat(
        [
            pd.DataFrame(
                {"gene_id": cells.var_names, "class": name, "rna": part[0], "promoter": part[1]}
            )
            for name, part in zip(classes, both, strict=True)
        ]
    )
    return pd.concat(tables, ignore_index=True), weights


def neighbour_accuracy(values: np.ndarray, labels: np.ndarray, n_neighbours: int = 15) -> float:
    """How often the nearest other cells, by majority, have a cell's label.

    Parameters
    ----------
    values
        (cells, features), such as an embedding.
    labels
        (cells,).
    n_neighbours
        Neighbours that vote.

    Returns
    -------
    float
        Share of cells, 0 to 1.
    """
    n_neighbours = min(n_neighbours, len(values) - 1)
    nearest = NearestNeighbors(n_neighbors=n_neighbours).fit(values).kneighbors()[1]
    votes = pd.DataFrame(np.asarray(labels)[nearest]).mode(axis=1)[0]
    return float((votes.to_numpy() == labels).mean())


def combine(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Join the folds' calls: each tested cell once, each predicted cell by the folds' mean.

    Parameters
    ----------
    tables
        As :func:`predictions` returns them.

    Returns
    -------
    DataFrame
        The same columns; ``fold`` is "mean" for predicted cells.
    """
    table = pd.concat(tables, ignore_index=True)
    p = [column for column in table if column.startswith("p_")]
    table[p] = table[p].fillna(0.0)  # a class that one fold's training part lacks
    tested = table[table["part"] == "test"]
    asked = table[table["part"] == "predict"]
    if asked.empty:
        return tested
    mean = asked.groupby(["method", "cell"], sort=False)[p].mean().reset_index()
    mean = mean.assign(fold="mean", part="predict", label="")
    mean["called"] = np.array([name[2:] for name in p])[mean[p].to_numpy().argmax(1)]
    return pd.concat([tested, mean[table.columns]], ignore_index=True)


def summarise(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Score each method on the tested cells, over all folds and by fold.

    Returns
    -------
    dict
        Method to ``accuracy``, ``macro_f1`` (all tested cells together), ``n_cells`` and
        ``macro_f1_folds`` (list).
    """
    result = {}
    for method, calls in table[table["part"] == "test"].groupby("method"):
        folds = [
            score(part["label"], part["called"])["macro_f1"] for _, part in calls.groupby("fold")
        ]
        result[method] = {
            **score(calls["label"].to_numpy(), calls["called"].to_numpy()),
            "n_cells": len(calls),
            "macro_f1_folds": folds,
        }
    return result
