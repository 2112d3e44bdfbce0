"""Baselines on the same splits as the fine-tuned models, from maintained libraries."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.base import ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder, MaxAbsScaler

from scdyn.log import logger
from scdyn.settings import MAIN, BaselineSettings
from scdyn.tasks.metrics import fit_temperature
from scdyn.tasks.predictions import tabulate_calibrated_predictions
from scdyn.tasks.splits import require_cells, split_cells

LR, LR_RNA = "logistic_regression", "logistic_regression_rna"


# Histogram bins per feature. XGBoost's default of 256 takes four times as long on a thousand cells,
# and predicts no better.
MAX_BIN = 64


class BoostedTrees(ClassifierMixin):
    """XGBoost's classifier for class names; ``XGBClassifier`` accepts only integers."""

    def __init__(self, seed: int) -> None:
        from xgboost import XGBClassifier

        self.trees = XGBClassifier(
            n_estimators=200, max_depth=4, learning_rate=0.1, tree_method="hist", max_bin=MAX_BIN,
            random_state=seed,
        )  # fmt: skip
        self.names = LabelEncoder()

    def fit(self, values: sparse.csr_matrix, labels: np.ndarray) -> BoostedTrees:
        """Fit to (cells, features) and class names (cells,)."""
        self.trees.fit(values, self.names.fit_transform(labels))
        self.classes_ = self.names.classes_
        return self

    def predict_proba(self, values: sparse.csr_matrix) -> np.ndarray:
        """Return probabilities, (cells, classes)."""
        return self.trees.predict_proba(values)


def make_knn(shape: tuple[int, int]) -> ClassifierMixin:
    """15 nearest neighbours on 50 principal components, or fewer if (cells, features) are few."""
    components = PCA(min(50, *(n - 1 for n in shape)), svd_solver="arpack", random_state=0)
    return make_pipeline(components, KNeighborsClassifier(min(15, shape[0]), weights="distance"))


def make_mlp(seed: int) -> ClassifierMixin:
    """One hidden layer of width 128, trained until the training loss no longer falls."""
    return MLPClassifier((128,), batch_size=64, max_iter=500, random_state=seed)


def make_logistic_regression(l1: bool) -> ClassifierMixin:
    """Multinomial logistic regression, each feature scaled by its largest training value."""
    if l1:
        # The solver draws cells at random.
        model = LogisticRegression(
            l1_ratio=1.0, solver="saga", max_iter=200, tol=1e-3, random_state=0
        )
    else:
        model = LogisticRegression(max_iter=2000)
    return make_pipeline(MaxAbsScaler(), model)


# Method to its modalities, and a function of seed and (cells, features) that creates it.
BOTH, RNA = "both", "rna"
METHODS: dict[str, tuple[str, Callable[[int, tuple[int, int]], ClassifierMixin]]] = {
    "majority": (RNA, lambda seed, shape: DummyClassifier(strategy="prior")),
    LR: (BOTH, lambda seed, shape: make_logistic_regression(l1=False)),
    LR_RNA: (RNA, lambda seed, shape: make_logistic_regression(l1=False)),
    "logistic_regression_l1": (BOTH, lambda seed, shape: make_logistic_regression(l1=True)),
    "knn": (BOTH, lambda seed, shape: make_knn(shape)),
    "xgboost": (BOTH, lambda seed, shape: BoostedTrees(seed)),
    "mlp": (BOTH, lambda seed, shape: make_mlp(seed)),
}
# Methods whose result depends on the seed; the others are run once.
SEEDED = {"mlp"}
# Methods that are also fitted to a share of the labels, and without one class.
WITH_FEWER_LABELS = {LR, LR_RNA}


def get_logistic_weights(model: Any) -> np.ndarray:
    """Return the weights of a logistic regression on scaled features, (classes, features).

    For two classes the row of the first is the negative of the second.
    """
    weights = model[-1].coef_
    return np.concatenate([-weights, weights]) if len(model.classes_) == 2 else weights


def list_fits(task: BaselineSettings, fold: int) -> Iterator[tuple[str, str, int]]:
    """Yield the fits of one fold: method, variant (of the training cells) and seed."""
    for variant in (MAIN, *task.reduced_variants()):
        seeds = [seed for seed, of_run in task.runs_of(variant) if of_run == fold]
        for method in task.baselines:
            if variant != MAIN and method not in WITH_FEWER_LABELS:
                continue
            # The share of labels is drawn by the seed, so every method is run once per seed.
            drawn = variant.startswith("labels_")
            for seed in seeds if method in SEEDED or drawn else seeds[:1]:
                yield method, variant, seed


def fit_baselines(
    cells: ad.AnnData, splits: pd.DataFrame, fold: str, task: BaselineSettings
) -> Iterator[tuple[pd.DataFrame, dict[str, Any]]]:
    """Fit the task's baselines on one fold, one after the other.

    Parameters
    ----------
    cells
        Corpus with the normalised layers.
    splits, fold
        The split, and the fold of the test set.
    task
        Baselines, variants and runs of the task.

    Yields
    ------
    predictions : DataFrame
        Of one method, variant and seed, as
        :func:`scdyn.tasks.predictions.tabulate_calibrated_predictions`, with a column of each class
        of the whole training set.
    cost : dict
        ``method``, ``variant``, ``seed``, ``fold``, ``temperature``, ``seconds``.
    """
    require_cells(splits, cells.obs_names)
    values = collect_values(cells)
    variants = {MAIN: (1.0, None), **task.reduced_variants()}
    classes = np.unique(split_cells(splits, fold)[0]["label"].to_numpy()).tolist()
    for method, variant, seed in list_fits(task, int(fold)):
        training, validation, predicted = split_cells(splits, fold, *variants[variant], seed)
        modalities, make = METHODS[method]
        rows = cells.obs_names.get_indexer
        started = time.perf_counter()
        x = values[modalities][rows(training["cell"])]
        model = make(seed, x.shape)
        model.fit(x, training["label"].to_numpy())
        p = model.predict_proba(values[modalities][rows(validation["cell"])])
        temperature = fit_temperature(validation["label"].to_numpy(), model.classes_, p)
        p = model.predict_proba(values[modalities][rows(predicted["cell"])])
        run = {"method": method, "variant": variant, "seed": seed, "fold": fold}
        cost = run | {"temperature": temperature, "seconds": time.perf_counter() - started}
        logger.info("fold %s: %s, %s, seed %d: %.1f s", fold, method, variant, seed,
                    cost["seconds"])  # fmt: skip
        yield (
            tabulate_calibrated_predictions(
                predicted, run, model.classes_, p, temperature, classes
            ),
            cost,
        )


def collect_values(cells: ad.AnnData) -> dict[str, sparse.csr_matrix]:
    """Return the normalised values that the methods read: modalities to (cells, features)."""
    rna, promoter = cells.layers["rna_log"].tocsr(), cells.layers["promoter_log"].tocsr()
    return {RNA: rna, BOTH: sparse.hstack([rna, promoter], format="csr")}


def fit_weights(cells: ad.AnnData, splits: pd.DataFrame, fold: str) -> pd.DataFrame:
    """Fit logistic regression to one fold's training cells, even if it is not a baseline.

    Parameters
    ----------
    cells, splits, fold
        See :func:`fit_baselines`.

    Returns
    -------
    DataFrame
        ``gene_id``, ``class``, ``rna``, ``promoter``: weights on scaled features.
    """
    require_cells(splits, cells.obs_names)
    # With all labels nothing is drawn, so the seed has no effect.
    training = split_cells(splits, fold, 1.0, None, 0)[0]
    x = collect_values(cells)[BOTH][cells.obs_names.get_indexer(training["cell"])]
    model = make_logistic_regression(l1=False).fit(x, training["label"].to_numpy())
    return tabulate_weights(cells.var_names, model.classes_, get_logistic_weights(model))


def tabulate_weights(
    genes: Sequence[str], classes: Sequence[str], weights: np.ndarray
) -> pd.DataFrame:
    """Tabulate weights (classes, RNA of genes, then promoters): one row per gene and class."""
    by_modality = weights.reshape(len(classes), 2, -1)
    tables = [
        pd.DataFrame({"gene_id": genes, "class": name, "rna": part[0], "promoter": part[1]})
        for name, part in zip(classes, by_modality, strict=True)
    ]
    return pd.concat(tables, ignore_index=True)
