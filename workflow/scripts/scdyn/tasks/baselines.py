"""What a fine-tuned model is held against, on the same splits: methods of maintained libraries."""

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
from scdyn.tasks.evaluation import calibrated_predictions
from scdyn.tasks.metrics import fit_temperature
from scdyn.tasks.splits import parts, require_cells

LR, LR_RNA = "logistic_regression", "logistic_regression_rna"


# Cut points per feature of the trees. XGBoost's default of 256 takes four times as long on a
# thousand cells, and predicts no better.
MAX_BIN = 64


class BoostedTrees(ClassifierMixin):
    """XGBoost's classifier with class names, which its own interface does not take."""

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


def nearest_neighbours(shape: tuple[int, int]) -> ClassifierMixin:
    """Vote of 15 neighbours on 50 principal components, or as many as (cells, features) allow."""
    components = PCA(min(50, *(n - 1 for n in shape)), svd_solver="arpack", random_state=0)
    return make_pipeline(components, KNeighborsClassifier(min(15, shape[0]), weights="distance"))


def perceptron(seed: int) -> ClassifierMixin:
    """One hidden layer of 128, until the loss falls no more."""
    return MLPClassifier((128,), batch_size=64, max_iter=500, random_state=seed)


def logistic(l1: bool) -> ClassifierMixin:
    """Multinomial logistic regression, each feature scaled by its largest training value."""
    if l1:
        # The solver takes the cells in random order.
        model = LogisticRegression(
            l1_ratio=1.0, solver="saga", max_iter=200, tol=1e-3, random_state=0
        )
    else:
        model = LogisticRegression(max_iter=2000)
    return make_pipeline(MaxAbsScaler(), model)


# Method to the modalities it reads, and how it is made from a seed and (cells, features).
BOTH, RNA = "both", "rna"
METHODS: dict[str, tuple[str, Callable[[int, tuple[int, int]], ClassifierMixin]]] = {
    "majority": (RNA, lambda seed, shape: DummyClassifier(strategy="prior")),
    LR: (BOTH, lambda seed, shape: logistic(l1=False)),
    LR_RNA: (RNA, lambda seed, shape: logistic(l1=False)),
    "logistic_regression_l1": (BOTH, lambda seed, shape: logistic(l1=True)),
    "knn": (BOTH, lambda seed, shape: nearest_neighbours(shape)),
    "xgboost": (BOTH, lambda seed, shape: BoostedTrees(seed)),
    "mlp": (BOTH, lambda seed, shape: perceptron(seed)),
}
# Those whose result hangs on the seed; the others are run once.
SEEDED = {"mlp"}
# Those that are also fitted to a share of the labels, and without a class.
ALSO_ON_LESS = {LR, LR_RNA}


def logistic_weights(model: Any) -> np.ndarray:
    """Weights of a fitted logistic regression on its scaled features, (classes, features).

    For two classes the row of the first is the negative of the second.
    """
    weights = model[-1].coef_
    return np.concatenate([-weights, weights]) if len(model.classes_) == 2 else weights


def planned(task: BaselineSettings, fold: int) -> Iterator[tuple[str, str, int]]:
    """Yield what is fitted on one fold: method, variant (of the cells it sees) and seed."""
    for variant in (MAIN, *task.reduced_variants()):
        seeds = [seed for seed, of_run in task.runs_of(variant) if of_run == fold]
        for method in task.baselines:
            if variant != MAIN and method not in ALSO_ON_LESS:
                continue
            # The draw of labels hangs on the seed, whatever the method.
            drawn = variant.startswith("labels_")
            for seed in seeds if method in SEEDED or drawn else seeds[:1]:
                yield method, variant, seed


def fit_baselines(
    cells: ad.AnnData, splits: pd.DataFrame, fold: str, task: BaselineSettings
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fit the task's baselines on one fold.

    Parameters
    ----------
    cells
        Corpus with the normalised layers.
    splits, fold
        The split, and the fold that is tested.
    task
        Which baselines, and how often.

    Returns
    -------
    calls : DataFrame
        As :func:`scdyn.tasks.evaluation.predictions`, of all methods, seeds and variants.
    costs : DataFrame
        ``method``, ``variant``, ``seed``, ``fold``, ``temperature``, ``seconds``.
    """
    require_cells(splits, cells.obs_names)
    values = values_of(cells)
    variants = {MAIN: (1.0, None), **task.reduced_variants()}
    tables, costs = [], []
    for method, variant, seed in planned(task, int(fold)):
        learned, validation, called = parts(splits, fold, *variants[variant], seed)
        modalities, make = METHODS[method]
        rows = cells.obs_names.get_indexer
        begun = time.perf_counter()
        known = values[modalities][rows(learned["cell"])]
        model = make(seed, known.shape)
        model.fit(known, learned["label"].to_numpy())
        p = model.predict_proba(values[modalities][rows(validation["cell"])])
        temperature = fit_temperature(validation["label"].to_numpy(), model.classes_, p)
        p = model.predict_proba(values[modalities][rows(called["cell"])])
        run = {"method": method, "variant": variant, "seed": seed, "fold": fold}
        costs.append(run | {"temperature": temperature, "seconds": time.perf_counter() - begun})
        tables.append(calibrated_predictions(called, run, model.classes_, p, temperature))
        logger.info("fold %s: %s, %s, seed %d: %.1f s", fold, method, variant, seed,
                    costs[-1]["seconds"])  # fmt: skip
    return pd.concat(tables, ignore_index=True), pd.DataFrame(costs)


def values_of(cells: ad.AnnData) -> dict[str, sparse.csr_matrix]:
    """Return the normalised values that methods read, (cells, features), by modalities."""
    rna, promoter = cells.layers["rna_log"].tocsr(), cells.layers["promoter_log"].tocsr()
    return {RNA: rna, BOTH: sparse.hstack([rna, promoter], format="csr")}


def fit_weights(cells: ad.AnnData, splits: pd.DataFrame, fold: str) -> pd.DataFrame:
    """Fit logistic regression to one fold's training cells, whichever baselines a task has.

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
    # All labels are seen, so that the seed of their draw decides nothing.
    learned = parts(splits, fold, 1.0, None, 0)[0]
    known = values_of(cells)[BOTH][cells.obs_names.get_indexer(learned["cell"])]
    model = logistic(l1=False).fit(known, learned["label"].to_numpy())
    return weight_table(cells.var_names, model.classes_, logistic_weights(model))


def weight_table(genes: Sequence[str], classes: Sequence[str], weights: np.ndarray) -> pd.DataFrame:
    """Lay weights (classes, RNA of genes then promoters of genes) out: a row a gene and class."""
    parted = weights.reshape(len(classes), 2, -1)
    tables = [
        pd.DataFrame({"gene_id": genes, "class": name, "rna": part[0], "promoter": part[1]})
        for name, part in zip(classes, parted, strict=True)
    ]
    return pd.concat(tables, ignore_index=True)
