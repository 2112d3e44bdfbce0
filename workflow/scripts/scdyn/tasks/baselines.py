"""Baselines on the same splits as the fine-tuned models, from maintained libraries."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.base import ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import LabelEncoder, MaxAbsScaler, StandardScaler

from scdyn.data.corpus import CELLS_AT_ONCE, Corpus
from scdyn.data.pca import Pca
from scdyn.log import logger
from scdyn.pp.selection import draw_cells
from scdyn.settings import MAIN, BaselineSettings, ClassWeights
from scdyn.tasks.metrics import fit_temperature
from scdyn.tasks.predictions import tabulate_calibrated_predictions
from scdyn.tasks.splits import require_cells, require_other_classes, split_cells
from scdyn.tasks.weights import weigh_classes

LR, LR_RNA, LR_PCA = "logistic_regression", "logistic_regression_rna", "logistic_regression_pca"
# Most training cells of a fit, because the methods hold their training set in memory. With 22,000
# genes and 5,500 values per cell each takes less than 4 GiB.
MAX_TRAINING_CELLS = 20_000
MAX_FOR_TREES = 8000
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

    def fit(
        self,
        values: sparse.csr_matrix,
        labels: np.ndarray,
        sample_weight: np.ndarray | None = None,
    ) -> BoostedTrees:
        """Fit to (cells, features), class names (cells,) and weights (cells,)."""
        self.trees.fit(values, self.names.fit_transform(labels), sample_weight=sample_weight)
        self.classes_ = self.names.classes_
        return self

    def predict_proba(self, values: sparse.csr_matrix) -> np.ndarray:
        """Return probabilities, (cells, classes)."""
        return self.trees.predict_proba(values)


def make_knn(n_cells: int) -> ClassifierMixin:
    """15 nearest neighbours by distance, or fewer if there are fewer cells."""
    return KNeighborsClassifier(min(15, n_cells), weights="distance")


def make_mlp(seed: int) -> ClassifierMixin:
    """One hidden layer of width 128, trained until the training loss no longer falls.

    On genes, or with less weight decay, it is weaker.
    """
    return MLPClassifier((128,), alpha=1.0, batch_size=64, max_iter=500, random_state=seed)


def make_logistic_regression(l1: bool) -> ClassifierMixin:
    """Multinomial logistic regression, each feature scaled by its largest training value.

    Values are scaled in place, because a copy would take as much memory as they do.
    """
    if l1:
        # The solver draws cells at random.
        model = LogisticRegression(
            l1_ratio=1.0, solver="saga", max_iter=200, tol=1e-3, random_state=0
        )
    else:
        model = LogisticRegression(max_iter=2000)
    return make_pipeline(MaxAbsScaler(copy=False), model)


def make_logistic_regression_pca() -> ClassifierMixin:
    """Multinomial logistic regression on standardised components."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=2000))


# What a method reads: log-normalised values of the RNA or of both modalities, or principal
# components of both (read_components).
RNA, BOTH, COMPONENTS = "rna", "both", "components"
LAYERS = {RNA: ["rna_log"], BOTH: ["rna_log", "promoter_log"]}
# Method to what it reads, and a function of seed and number of training cells that creates it.
METHODS: dict[str, tuple[str, Callable[[int, int], ClassifierMixin]]] = {
    "majority": (RNA, lambda seed, n_cells: DummyClassifier(strategy="prior")),
    LR: (BOTH, lambda seed, n_cells: make_logistic_regression(l1=False)),
    LR_RNA: (RNA, lambda seed, n_cells: make_logistic_regression(l1=False)),
    "logistic_regression_l1": (BOTH, lambda seed, n_cells: make_logistic_regression(l1=True)),
    LR_PCA: (COMPONENTS, lambda seed, n_cells: make_logistic_regression_pca()),
    "knn": (COMPONENTS, lambda seed, n_cells: make_knn(n_cells)),
    "xgboost": (BOTH, lambda seed, n_cells: BoostedTrees(seed)),
    "mlp": (COMPONENTS, lambda seed, n_cells: make_mlp(seed)),
}
# Methods whose result depends on the seed; the others are run once.
SEEDED = {"mlp"}
# Methods that are also fitted to a share of the labels, and without one class: those of seconds.
WITH_FEWER_LABELS = {LR, LR_RNA, LR_PCA, "knn", "mlp"}
# Methods whose libraries take no weights of cells.
UNWEIGHTED = {"majority", "knn"}


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


def draw_training_cells(training: pd.DataFrame, method: str, seed: int) -> pd.DataFrame:
    """Draw the training cells of a fit, of all labels in proportion.

    Parameters
    ----------
    training
        Of :func:`scdyn.tasks.splits.split_cells`.
    method
        Its number of cells is at most :data:`MAX_FOR_TREES` for XGBoost, and otherwise
        :data:`MAX_TRAINING_CELLS`.
    seed
        Seed of the draw.
    """
    most = MAX_FOR_TREES if method == "xgboost" else MAX_TRAINING_CELLS
    return training.iloc[draw_cells(training[["label"]], most, seed)]


def iter_values(corpus: Corpus, rows: np.ndarray, modalities: str) -> Iterator[sparse.csr_matrix]:
    """Yield log-normalised values of cells in blocks, (cells, features) of float32.

    Parameters
    ----------
    corpus
        The cells.
    rows
        Rows of the cells.
    modalities
        ``RNA`` or ``BOTH``, the RNA first.
    """
    for block in corpus.iter_blocks(rows, LAYERS[modalities], CELLS_AT_ONCE):
        yield sparse.hstack(list(block.layers.values()), format="csr")


def read_values(corpus: Corpus, rows: np.ndarray, modalities: str) -> sparse.csr_matrix:
    """Read the values of :func:`iter_values` at once."""
    return sparse.vstack(list(iter_values(corpus, rows, modalities)), format="csr")


def read_components(corpus: Corpus, pca: Pca) -> np.ndarray:
    """Read the principal components of all cells, (cells, components) of float32.

    Those of scaled genes are better where few of many genes tell the classes apart, those of
    unscaled genes where many genes are noise. Both are here side by side, with equal variance. They
    are of all cells of the corpus, those of the test set included, without their labels.
    """
    rows = np.arange(len(corpus))
    spaces = [pca.select(rows, space) for space in ("both_scaled", "both")]
    return np.concatenate([values / values.std() for values in spaces], axis=1)


def fit_method(
    method: str,
    seed: int,
    values: sparse.csr_matrix | np.ndarray,
    labels: np.ndarray,
    class_weights: ClassWeights,
) -> Any:
    """Fit a method to training cells.

    Parameters
    ----------
    method, seed
        The method, and its seed.
    values
        (cells, features) of what it reads; may be scaled in place.
    labels
        (cells,) class names.
    class_weights
        See :func:`scdyn.tasks.weights.weigh_classes`; nearest neighbours and the commonest class
        have none.

    Returns
    -------
    ClassifierMixin
        With scikit-learn's ``predict_proba`` and ``classes_``.
    """
    model = METHODS[method][1](seed, len(labels))
    if method in UNWEIGHTED:
        return model.fit(values, labels)
    targets = np.unique(labels, return_inverse=True)[1]
    last = f"{model.steps[-1][0]}__" if isinstance(model, Pipeline) else ""
    weights = weigh_classes(labels, class_weights)[targets]
    return model.fit(values, labels, **{f"{last}sample_weight": weights})


def predict_probabilities(
    model: ClassifierMixin,
    corpus: Corpus,
    components: np.ndarray,
    rows: np.ndarray,
    features: str,
) -> np.ndarray:
    """Predict cells, which are read in blocks: (cells, classes)."""
    blocks: Iterable[sparse.csr_matrix | np.ndarray] = (
        components[rows[start : start + CELLS_AT_ONCE]]
        for start in range(0, len(rows), CELLS_AT_ONCE)
    )
    if features != COMPONENTS:
        blocks = iter_values(corpus, rows, features)
    return np.concatenate([model.predict_proba(values) for values in blocks])


def fit_baselines(
    corpus: Corpus, pca: Pca, splits: pd.DataFrame, fold: str, task: BaselineSettings
) -> Iterator[tuple[pd.DataFrame, dict[str, Any]]]:
    """Fit the task's baselines on one fold, one after the other.

    Of many training cells a draw is fitted to (:func:`draw_training_cells`), by the seed of the
    run; all other cells are read and predicted in blocks.

    Parameters
    ----------
    corpus, pca
        The cells and their principal components (:func:`scdyn.data.pca.open_pca`).
    splits, fold
        The split, and the fold of the test set.
    task
        Baselines, weights of classes, variants and runs of the task.

    Yields
    ------
    predictions : DataFrame
        Of one method, variant and seed, as
        :func:`scdyn.tasks.predictions.tabulate_calibrated_predictions`, with a column of each class
        of the whole training set.
    cost : dict
        ``method``, ``variant``, ``seed``, ``fold``, ``n_training_cells``, ``temperature``,
        ``seconds``.

    Raises
    ------
    InputError
        If the split is of another corpus.
    """
    require_cells(splits, corpus.obs.index)
    splits = splits.assign(row=corpus.find_rows(splits["cell"]))
    variants = {MAIN: (1.0, None), **task.reduced_variants()}
    classes = np.unique(split_cells(splits, fold)[0]["label"].to_numpy()).tolist()
    components = read_components(corpus, pca)
    for method, variant, seed in list_fits(task, int(fold)):
        training, validation, predicted = split_cells(splits, fold, *variants[variant], seed)
        require_other_classes(training, variants[variant][1])
        training = draw_training_cells(training, method, seed)
        features = METHODS[method][0]
        started = time.perf_counter()
        rows = training["row"].to_numpy()
        # Each fit reads its cells itself, since logistic regression scales them in place.
        values = components[rows] if features == COMPONENTS else read_values(corpus, rows, features)
        labels = training["label"].to_numpy()
        model = fit_method(method, seed, values, labels, task.class_weights)
        p, p_predicted = (
            predict_probabilities(model, corpus, components, part["row"].to_numpy(), features)
            for part in (validation, predicted)
        )
        temperature = fit_temperature(validation["label"].to_numpy(), model.classes_, p)
        seconds = time.perf_counter() - started
        run = {"method": method, "variant": variant, "seed": seed, "fold": fold}
        cost = run | {
            "n_training_cells": len(training), "temperature": temperature, "seconds": seconds,
        }  # fmt: skip
        logger.info("fold %s: %s, %s, seed %d, %d training cells: %.1f s", fold, method, variant,
                    seed, len(training), seconds)  # fmt: skip
        yield (
            tabulate_calibrated_predictions(
                predicted, run, model.classes_, p_predicted, temperature, classes
            ),
            cost,
        )


def fit_weights(
    corpus: Corpus, splits: pd.DataFrame, fold: str, seed: int, class_weights: ClassWeights
) -> pd.DataFrame:
    """Fit logistic regression to one fold's training cells, even if it is not a baseline.

    Parameters
    ----------
    corpus, splits, fold
        See :func:`fit_baselines`.
    seed
        Seed of :func:`draw_training_cells`.
    class_weights
        See :func:`scdyn.tasks.weights.weigh_classes`.

    Returns
    -------
    DataFrame
        ``gene_id``, ``class``, ``rna``, ``promoter``: weights on scaled features.
    """
    require_cells(splits, corpus.obs.index)
    training = draw_training_cells(split_cells(splits, fold)[0], LR, seed)
    values = read_values(corpus, corpus.find_rows(training["cell"]), BOTH)
    model = fit_method(LR, seed, values, training["label"].to_numpy(), class_weights)
    return tabulate_weights(corpus.genes["gene_id"], model.classes_, get_logistic_weights(model))


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
