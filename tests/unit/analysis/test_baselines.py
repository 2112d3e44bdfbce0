"""Baselines of maintained libraries: they learn, they see the training part alone."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scdyn.io.artefacts import writing_parquet
from scdyn.settings import BaselineSettings
from scdyn.tasks import baselines, splits
from scdyn.tasks.predictions import read_predictions

TASK = BaselineSettings(seeds=[1, 2], folds=2, label_shares=[0.3], left_out=["x"])


@pytest.fixture(scope="module")
def cells():
    """160 cells of three classes; RNA tells x and y, promoters z."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["x", "y", "z", "y"], 40)
    rna, promoter = rng.random((2, 160, 12)) < 0.3
    rna[labels == "x", 0:3] = True
    rna[labels == "y", 3:6] = True
    promoter[labels == "z", 0:3] = True
    obs = pd.DataFrame({"type": labels}, index=[f"c{i}" for i in range(160)])
    data = ad.AnnData(sparse.csr_matrix(rna.astype(np.float32)), obs)
    data.layers["rna_log"] = data.X.copy()
    data.layers["promoter_log"] = sparse.csr_matrix(promoter.astype(np.float32))
    return data


@pytest.fixture(scope="module")
def split(cells):
    everyone, nobody = np.ones(160, dtype=bool), np.zeros(160, dtype=bool)
    return splits.make_splits(cells.obs, everyone, nobody, "type", None, 2, 1)[0].astype(str)


def fit(cells, split, folder):
    """All predictions, written to one file and read, and all costs."""
    costs = []
    with writing_parquet(folder / "0.parquet") as write:
        for table, cost in baselines.fit_baselines(cells, split, "0", TASK):
            write(table)
            costs.append(cost)
    return read_predictions(folder / "0.parquet"), pd.DataFrame(costs)


@pytest.fixture(scope="module")
def fitted(cells, split, tmp_path_factory):
    return fit(cells, split, tmp_path_factory.mktemp("baselines"))


def test_all_methods_learn_what_is_there(fitted):
    calls = fitted[0]
    main = calls[calls["variant"] == "scdynomics"]
    right = (main["label"] == main["predicted"]).groupby(main["method"]).mean()
    assert set(right.index) == set(baselines.METHODS)
    assert right["majority"] == pytest.approx(0.5)
    for method in ("logistic_regression", "logistic_regression_l1", "xgboost", "mlp"):
        assert right[method] > 0.9, method
    assert right["knn"] > 0.7 and right["logistic_regression_rna"] > 0.7


def test_seeds_and_variants_are_run_where_they_matter(fitted):
    calls, costs = fitted
    runs = costs.groupby(["variant", "method"]).size()
    assert runs["scdynomics", "mlp"] == 2 and runs["scdynomics", "xgboost"] == 1
    assert runs["labels_0.3", "logistic_regression"] == 2
    assert ("labels_0.3", "xgboost") not in runs
    without = calls[calls["variant"] == "without_0"]
    assert "x" not in set(without["predicted"]) and "x" in set(without["label"])
    assert without["p_x"].isna().all() and without["p_y"].notna().all()
    assert calls["p_y"].dtype == np.float32


def test_weights_are_largest_where_the_classes_differ(cells, split):
    weights = baselines.fit_weights(cells, split, "0").set_index(["class", "gene_id"])
    assert weights.loc["x", "rna"].nlargest(3).index.tolist() == ["0", "1", "2"] or set(
        weights.loc["x", "rna"].nlargest(3).index
    ) == {"0", "1", "2"}
    assert set(weights.loc["z", "promoter"].nlargest(3).index) == {"0", "1", "2"}


def test_nothing_is_learned_from_cells_that_are_called(cells, split, fitted, tmp_path):
    """Poison: labels and values of the called cells change, and no model does."""
    poisoned, table = cells.copy(), split.copy()
    is_called = (table["fold"] == "0").to_numpy()
    rows = cells.obs_names.get_indexer(table.loc[is_called, "cell"])
    for layer in ("rna_log", "promoter_log"):
        values = poisoned.layers[layer].toarray()
        values[rows] = 1e6
        poisoned.layers[layer] = sparse.csr_matrix(values)
    table.loc[is_called, "label"] = "poison"
    weights = baselines.fit_weights(cells, split, "0")
    pd.testing.assert_frame_equal(baselines.fit_weights(poisoned, table, "0"), weights)
    _, costs = fit(poisoned, table, tmp_path)
    pd.testing.assert_series_equal(costs["temperature"], fitted[1]["temperature"])


@pytest.mark.parametrize("method", sorted(baselines.METHODS))
def test_two_fits_of_a_method_are_one(method):
    rng = np.random.default_rng(0)
    values = sparse.csr_matrix(rng.poisson(1.0, (60, 30)).astype(np.float32))
    labels = np.where(rng.random(60) < 0.5, "x", "y")
    np.random.seed(None)  # nothing is to hang on numpy's own state
    found = []
    for _ in range(2):
        model = baselines.METHODS[method][1](3, values.shape)
        model.fit(values, labels)
        found.append(model.predict_proba(values))
    np.testing.assert_array_equal(*found)
