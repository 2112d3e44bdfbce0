"""Baselines of maintained libraries: they learn, they see the training part alone."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from small_corpus import make_genes

from scdyn.data.corpus import Corpus
from scdyn.data.pca import open_pca
from scdyn.errors import InputError
from scdyn.io.artefacts import writing_parquet
from scdyn.settings import BaselineSettings
from scdyn.tasks import baselines, splits
from scdyn.tasks.predictions import read_predictions
from scdyn.tasks.weights import weigh_classes

TASK = BaselineSettings(seeds=[1, 2], folds=2, label_shares=[0.3], left_out=["x"])
LABELS = np.repeat(["x", "y", "z", "y"], 40)
NAMES = [f"s_{i}" for i in range(160)]
GENES = make_genes(12).assign(length=1000, n_tss=1)


def make_cells():
    """160 cells of three classes; RNA tells x and y, promoters z."""
    rng = np.random.default_rng(0)
    rna, promoter = (rng.random((2, 160, 12)) < 0.3).astype(np.int32)
    rna[LABELS == "x", 0:3] = 1
    rna[LABELS == "y", 3:6] = 1
    promoter[LABELS == "z", 0:3] = 1
    obs = {"sample": "s", "barcode": range(160), "promoter_source": "peaks"}
    cells = ad.AnnData(sparse.csr_matrix(rna), pd.DataFrame(obs, NAMES), GENES.set_index("gene_id"))
    cells.layers["promoter"] = sparse.csr_matrix(promoter)
    return cells


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return Corpus.write(tmp_path_factory.mktemp("corpus"), [make_cells()])


@pytest.fixture(scope="module")
def split():
    obs = pd.DataFrame({"type": LABELS}, NAMES)
    everyone, nobody = np.ones(160, dtype=bool), np.zeros(160, dtype=bool)
    return splits.make_splits(obs, everyone, nobody, "type", None, 2, 1)[0].astype(str)


def fit(corpus, split, folder):
    """All predictions, written to one file and read, and all costs."""
    costs = []
    with writing_parquet(folder / "0.parquet") as write:
        for table, cost in baselines.fit_baselines(corpus, open_pca(corpus), split, "0", TASK):
            write(table)
            costs.append(cost)
    return read_predictions(folder / "0.parquet"), pd.DataFrame(costs)


@pytest.fixture(scope="module")
def fitted(corpus, split, tmp_path_factory):
    return fit(corpus, split, tmp_path_factory.mktemp("baselines"))


def test_all_methods_learn_what_is_there(fitted):
    calls = fitted[0]
    main = calls[calls["variant"] == "scdynomics"]
    right = (main["label"] == main["predicted"]).groupby(main["method"]).mean()
    assert set(right.index) == set(baselines.METHODS)
    assert right["majority"] == pytest.approx(0.5)
    for method in ("logistic_regression", "logistic_regression_l1", "xgboost"):
        assert right[method] > 0.8, method
    for method in ("knn", "mlp", "logistic_regression_pca", "logistic_regression_rna"):
        assert right[method] > 0.7, method


def test_seeds_and_variants_are_run_where_they_matter(fitted):
    calls, costs = fitted
    runs = costs.groupby(["variant", "method"]).size()
    assert runs["scdynomics", "mlp"] == 2 and runs["scdynomics", "xgboost"] == 1
    for method in ("logistic_regression", "logistic_regression_pca", "knn", "mlp"):
        assert runs["labels_0.3", method] == 2 and runs["without_0", method] == 1
    assert ("labels_0.3", "xgboost") not in runs
    without = calls[calls["variant"] == "without_0"]
    assert "x" not in set(without["predicted"]) and "x" in set(without["label"])
    assert without["p_x"].isna().all() and without["p_y"].notna().all()
    assert calls["p_y"].dtype == np.float32


def test_components_of_scaled_and_of_unscaled_genes_weigh_the_same(corpus):
    components = baselines.read_components(corpus, open_pca(corpus))
    half = components.shape[1] // 2
    assert components.shape == (160, 2 * half) and components.dtype == np.float32
    assert [part.std() for part in (components[:, :half], components[:, half:])] == pytest.approx(
        [1, 1], rel=1e-5
    )


def test_weights_are_largest_where_the_classes_differ(corpus, split):
    weights = baselines.fit_weights(corpus, split, "0", 1, "sqrt").set_index(["class", "gene_id"])
    first = set(GENES["gene_id"][:3])
    assert set(weights.loc["x", "rna"].nlargest(3).index) == first
    assert set(weights.loc["z", "promoter"].nlargest(3).index) == first


def test_nothing_is_learned_from_cells_that_are_called(corpus, split, fitted, tmp_path):
    """Poison: labels and values of the called cells change, and no model does.

    Their totals stay, because the depth to which counts are scaled is that of all cells.
    """
    poisoned, table = make_cells(), split.copy()
    is_called = (table["fold"] == "0").to_numpy()
    rows = poisoned.obs_names.get_indexer(table.loc[is_called, "cell"])
    for layer in (None, "promoter"):
        values = poisoned.layers[layer].toarray() if layer else poisoned.X.toarray()
        values[rows] = np.random.default_rng(1).permuted(values[rows], axis=1)
        if layer:
            poisoned.layers[layer] = sparse.csr_matrix(values)
        else:
            poisoned.X = sparse.csr_matrix(values)
    poisoned = Corpus.write(tmp_path, [poisoned])
    table.loc[is_called, "label"] = "poison"
    weights = baselines.fit_weights(corpus, split, "0", 1, "sqrt")
    pd.testing.assert_frame_equal(baselines.fit_weights(poisoned, table, "0", 1, "sqrt"), weights)
    _, costs = fit(poisoned, table, tmp_path)
    # Components are of all cells, without their labels.
    others = ~costs["method"].isin(["knn", "mlp", "logistic_regression_pca"])
    pd.testing.assert_series_equal(costs["temperature"][others], fitted[1]["temperature"][others])
    _, costs = fit(corpus, table, tmp_path)
    pd.testing.assert_series_equal(costs["temperature"], fitted[1]["temperature"])


def test_of_many_training_cells_some_of_every_class_are_drawn(corpus, split, monkeypatch, tmp_path):
    monkeypatch.setattr(baselines, "MAX_TRAINING_CELLS", 50)
    monkeypatch.setattr(baselines, "MAX_FOR_TREES", 40)
    monkeypatch.setattr(baselines, "CELLS_AT_ONCE", 7)
    training = splits.split_cells(split, "0")[0]
    drawn = baselines.draw_training_cells(training, "knn", 1)
    assert drawn["label"].value_counts().to_dict() == {"y": 25, "x": 13, "z": 12}
    assert not drawn.equals(baselines.draw_training_cells(training, "knn", 2))
    calls, costs = fit(corpus, split, tmp_path)
    fitted_to = costs[costs["variant"] == "scdynomics"].set_index("method")["n_training_cells"]
    assert fitted_to.pop("xgboost") == 40 and set(fitted_to) == {50}
    assert costs.loc[costs["variant"] == "labels_0.3", "n_training_cells"].max() < 25
    # Every cell of the fold is predicted all the same.
    knn = calls[(calls["method"] == "knn") & (calls["variant"] == "scdynomics")]
    assert len(knn) == (split["fold"] == "0").sum()
    right = knn[knn["label"] == knn["predicted"]]
    assert len(right) > 0.6 * (split["fold"] == "0").sum()


def test_a_split_of_another_corpus_is_refused_and_not_read_as_other_cells(corpus, split):
    split = split.assign(cell=[*split["cell"][:-1], "z"])
    with pytest.raises(InputError, match="1 of the split's 160 cells are not in the corpus.* z"):
        next(baselines.fit_baselines(corpus, open_pca(corpus), split, "0", TASK))
    with pytest.raises(InputError, match="1 of the split's 160 cells are not in the corpus.* z"):
        baselines.fit_weights(corpus, split, "0", 1, "sqrt")


def is_dense(method):
    return baselines.METHODS[method][0] == baselines.COMPONENTS


def test_weights_of_classes_have_a_mean_of_one_over_cells():
    labels = np.array(["b", "a", "b", "b", "b"])
    assert weigh_classes(labels, "none").tolist() == [1, 1]
    assert weigh_classes(labels, "balanced").tolist() == pytest.approx([2.5, 0.625])
    sqrt = weigh_classes(labels, "sqrt")
    assert sqrt[0] / sqrt[1] == pytest.approx(2)  # four times as many cells
    assert sqrt[0] + 4 * sqrt[1] == pytest.approx(5)


@pytest.mark.parametrize("method", sorted(baselines.METHODS))
def test_a_rare_class_is_predicted_more_often_if_classes_are_weighted(method):
    """But for the methods without weights, whose predictions stay what they are."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["common", "rare"], [180, 20])
    values = rng.poisson(np.where(labels == "rare", 2.0, 1.0)[:, None], (200, 4))
    values = values.astype(np.float32)
    kind = np.array if is_dense(method) else sparse.csr_matrix
    found = {}
    for how in ("none", "sqrt", "balanced"):
        model = baselines.fit_method(method, 1, kind(values), labels, how)
        found[how] = model.predict_proba(kind(values))[:, model.classes_ == "rare"].mean()
    if method in baselines.UNWEIGHTED:
        assert found["none"] == found["sqrt"] == found["balanced"]
    else:
        assert found["none"] < found["sqrt"] < found["balanced"]


@pytest.mark.parametrize("method", sorted(baselines.METHODS))
def test_two_fits_of_a_method_are_one(method):
    rng = np.random.default_rng(0)
    values = rng.poisson(1.0, (60, 30)).astype(np.float32)
    kind = np.array if is_dense(method) else sparse.csr_matrix
    labels = np.where(rng.random(60) < 0.5, "x", "y")
    np.random.seed(None)  # nothing is to hang on numpy's own state
    found = []
    for _ in range(2):
        model = baselines.fit_method(method, 3, kind(values), labels, "sqrt")
        found.append(model.predict_proba(kind(values)))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("method", [baselines.LR, "logistic_regression_l1", "xgboost"])
def test_values_keep_their_precision_and_are_not_copied_to_scale_them(method):
    rng = np.random.default_rng(0)
    values = sparse.csr_matrix(rng.poisson(1.0, (60, 30)).astype(np.float32))
    largest = values.max(0).toarray().ravel()
    before = values.toarray()
    model = baselines.fit_method(
        method, 3, values, np.where(before[:, 0] > 1, "x", "y"), "balanced"
    )
    if method in (baselines.LR, "logistic_regression_l1"):
        np.testing.assert_allclose(values.toarray(), before / largest, rtol=1e-6)
        assert model[-1].coef_.dtype == np.float32
    else:
        np.testing.assert_array_equal(values.toarray(), before)
