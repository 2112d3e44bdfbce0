"""From runs to tables: mean predictions, intervals, comparisons, few labels, new classes."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, roc_auc_score

from scdyn.errors import InputError
from scdyn.io.artefacts import read_parquet, write_parquet, writing_parquet
from scdyn.io.files import write_table
from scdyn.plotting import style
from scdyn.plotting import task as figures_task
from scdyn.settings import EvaluationSettings
from scdyn.tasks import evaluation, predictions
from scdyn.tasks.splits import read_splits

RNG = np.random.default_rng(0)
LABELS = np.array(list("aabbcc") * 10)
TASK = EvaluationSettings(model="m", label_shares=[0.1], left_out=["c"])
SPLIT = pd.concat(
    [
        *(
            pd.DataFrame(
                {"cell": [f"{fold}_{i}" for i in range(60)], "label": LABELS, "fold": fold}
            )
            for fold in "01"
        ),
        pd.DataFrame({"cell": ["q0", "q1", "q2", "q3"], "label": list("ab") + ["", "z"]}).assign(
            fold="predict"
        ),
    ],
    ignore_index=True,
).assign(unit=lambda split: "d" + split["fold"], validation="0")


def run(method, fold, seed=1, variant="scdynomics", accuracy=0.9, familiarity=None, classes="abc"):
    """Predictions of one fold of 60 cells, and of four cells that every fold predicts."""
    cells = SPLIT[SPLIT["fold"].isin([fold, "predict"])]
    true = np.array([[label == name for name in classes] for label in cells["label"]])
    wrong = RNG.random(len(cells)) > accuracy
    true[wrong] = np.roll(true[wrong], 1, axis=1)
    p = 0.1 + 0.7 * true + 0.05 * RNG.random(true.shape)
    p /= p.sum(1, keepdims=True)
    keys = {"method": method, "variant": variant, "seed": seed, "fold": fold}
    table = predictions.tabulate_calibrated_predictions(
        cells, keys, list(classes), p, 1.0, list("abc")
    )
    if familiarity is None:
        return table
    return table.assign(familiarity=familiarity, energy=np.float32(-seed))


def validate(fold, seed):
    """A run's predictions of forty validation cells of its fold."""
    rng = np.random.default_rng(seed)
    labels = [*"abc" * 13, "a"]
    p = np.eye(3)[np.arange(40) % 3] + 0.3 * rng.random((40, 3))
    p /= p.sum(1, keepdims=True)
    numbers = {"energy": rng.normal(size=40)} | {f"p_{c}": p[:, j] for j, c in enumerate("abc")}
    return pd.DataFrame({"cell": [f"{fold}_v{i}" for i in range(40)], "label": labels} | numbers)


@pytest.fixture(scope="module")
def runs():
    """Runs of a task, in the order of the workflow: models, then the baselines of each fold."""
    tables = [
        run("scdynomics", fold, seed, accuracy=0.95, familiarity=np.float32(seed / 4))
        for seed in (1, 2)
        for fold in "01"
    ]
    tables += [run("scdynomics_rna", fold, 1, "scdynomics_rna", 0.6) for fold in "01"]
    tables += [run("scdynomics", fold, 1, "labels_0.1", 0.7) for fold in "01"]
    # Cells of class c, and those that are predicted without a label, are unlike the others.
    unlike = np.where([*(LABELS == "c"), False, False, True, True], 0.01, 0.5).astype(np.float32)
    tables += [run("scdynomics", "0", 1, "without_0", familiarity=unlike, classes="ab")]
    for fold in "01":
        tables += [run("majority", fold, accuracy=0.3), run("logistic_regression", fold)]
        tables += [run("logistic_regression", fold, 1, "labels_0.1", 0.5)]
        tables += [run("mlp", fold, seed, accuracy=0.7) for seed in (1, 2)]
    return tables


@pytest.fixture(scope="module")
def files(runs, tmp_path_factory):
    """A file of each model, and one of each fold's baselines."""
    folder = tmp_path_factory.mktemp("runs")
    paths = [folder / f"{i}/predictions.parquet" for i in range(9)]
    for path, table in zip(paths, runs, strict=False):
        path.parent.mkdir()
        write_parquet(path, table)
        fold, seed = table[["fold", "seed"]].iloc[0]
        write_parquet(path.with_name("validation.parquet"), validate(fold, seed))
    for part in range(2):
        paths.append(folder / f"baselines_{part}.parquet")
        with writing_parquet(paths[-1]) as write:
            for table in runs[9 + 5 * part : 14 + 5 * part]:
                write(table)
    return paths


@pytest.fixture(scope="module")
def report(runs, files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    write_table(folder / "splits.tsv", SPLIT)
    rare = pd.DataFrame({"class": ["HSC $x$"], "reason": ["fewer than 5 cells"]})
    found = evaluation.evaluate(
        files,
        pd.DataFrame([table[predictions.RUN].iloc[0] for table in runs]).assign(
            seconds=2.0, n_training_cells=range(len(runs))
        ),
        read_splits(folder / "splits.tsv"),
        TASK.all_variants(),
        "donor",
        rare,
        predictions=folder / "predictions.parquet",
        runs=folder / "runs.parquet",
    )
    return found | {"folder": folder}


def concatenate(runs):
    """Put the compared runs into one table of plain text."""
    tables = [
        table.astype(dict.fromkeys(table.select_dtypes("category"), object)) for table in runs
    ]
    table = pd.concat(tables, ignore_index=True)
    return table[table["variant"].str.startswith("scdynomics")]


def combine(runs):
    """Compute the mean predictions from all runs in one table."""
    table = concatenate(runs)
    table["fold"] = table["fold"].where(table["part"] == "test", "mean")
    p = [f"p_{name}" for name in "abc"]
    means = table.groupby(["method", "cell", "fold", "part", "label"])[[*p, "familiarity"]].mean()
    return means.reset_index().assign(predicted=[list("abc")[i] for i in means[p].values.argmax(1)])


def test_the_mean_predictions_of_the_file_are_those_of_all_runs_in_one_table(report, runs):
    found = predictions.read_predictions(report["folder"] / "predictions.parquet")
    expected = combine(runs)
    is_ensemble = found["method"].str.endswith("_ensemble")
    found, ensembles = found[~is_ensemble], found[is_ensemble]
    assert len(found) == len(expected) == 5 * (120 + 4)
    found = found.sort_values(["method", "cell"], ignore_index=True)[list(expected)]
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-6)
    assert found["p_a"].dtype == np.float32
    assert found["familiarity"].notna().eq(found["method"] == "scdynomics").all()
    # A baseline's ensemble is the plain mean, the model's has a temperature of its own.
    for method in ("mlp", "scdynomics"):
        one = ensembles[ensembles["method"] == f"{method}_ensemble"].sort_values("cell")
        mean = expected[expected["method"] == method].sort_values("cell")
        held_out = (mean["part"] == "test").to_numpy()
        assert one["predicted"][held_out].tolist() == mean["predicted"][held_out].tolist()
        same = np.allclose(one["p_a"], mean["p_a"], rtol=1e-5)
        assert same == (method == "mlp") == one["familiarity"].isna().all()


def test_the_scores_of_a_run_are_those_of_scikit_learn(report, runs):
    scores = report["scores"]
    keys = [tuple(table[predictions.RUN].iloc[0]) for table in runs]
    tested = scores[(scores["part"] == "test") & ~scores["method"].str.endswith("_ensemble")]
    assert list(map(tuple, tested[predictions.RUN].to_numpy())) == keys  # in the order of the runs
    for (_, row), table in zip(tested.iterrows(), runs, strict=True):
        table = table[table["part"] == "test"]
        labels, called = (table[name].astype(str) for name in ("label", "predicted"))
        p = table[["p_a", "p_b", "p_c"]].fillna(0).to_numpy(float)
        true = np.array([[label == name for name in "abc"] for label in labels])
        assert row["accuracy"] == pytest.approx(accuracy_score(labels, called))
        assert row["macro_f1"] == pytest.approx(f1_score(labels, called, average="macro"))
        assert row["brier"] == pytest.approx(((p - true) ** 2).sum(1).mean())
        if row["variant"] != "without_0":
            p /= p.sum(1, keepdims=True)
            assert row["nll"] == pytest.approx(log_loss(labels, p), rel=1e-5)
        assert row["n_cells"] == 60 and row["seconds"] == 2.0


def test_predicted_cells_are_scored_where_their_label_is_a_class(report):
    counts = report["scores"].groupby("part")["n_cells"].unique()
    assert counts["test"].tolist() == [60] and counts["predict"].tolist() == [2]


def test_the_file_of_runs_has_every_compared_run(report, runs):
    found = predictions.read_predictions(report["folder"] / "runs.parquet")
    keys = ["method", "seed", "fold", "cell"]
    is_ensemble = found["method"].str.endswith("_ensemble")
    assert found[is_ensemble].groupby("method")["fold"].value_counts().tolist() == [64] * 4
    found, expected = (
        table.sort_values(keys, ignore_index=True)
        for table in (found[~is_ensemble], concatenate(runs))
    )
    assert list(found) == ["cell", *predictions.RUN, "part", "predicted"]
    for name in found:
        assert found[name].tolist() == expected[name].tolist(), name


def test_a_class_called_na_and_a_class_that_a_fold_does_not_know_are_kept(tmp_path):
    cells = SPLIT[SPLIT["fold"] == "0"].iloc[:2].assign(label=["NA", ""])
    split = pd.concat([cells, cells.assign(cell=["u", "v"], fold="1")], ignore_index=True)
    mean = predictions.MeanPredictions(split, ["NA", "b"])
    for fold, classes in (("0", ["b"]), ("1", ["NA", "b"])):
        keys = {"method": "m", "variant": "scdynomics", "seed": 1, "fold": fold}
        p = np.full((2, len(classes)), 1 / len(classes))
        part = split[split["fold"] == fold]
        table = predictions.tabulate_predictions(part, keys, classes, p, ["NA", "b"])
        write_parquet(tmp_path / "run.parquet", table)
        mean.add(*predictions.read_run(tmp_path / "run.parquet", 0, split))
    write_parquet(tmp_path / "mean.parquet", mean.tabulate("m"))
    found = predictions.read_predictions(tmp_path / "mean.parquet").set_index("cell")
    assert found["label"].tolist() == ["NA", "", "NA", ""]
    assert found["predicted"].tolist() == ["b", "b", "NA", "NA"]
    assert found["p_NA"].tolist() == [0, 0, 0.5, 0.5]


def test_only_the_columns_and_methods_asked_for_are_read(report):
    path = report["folder"] / "predictions.parquet"
    found = predictions.read_predictions(path, ["cell", "predicted"], ["majority"])
    assert list(found) == ["cell", "predicted"] and len(found) == 124
    assert found["predicted"].dtype == object
    # In a notebook, by pandas alone.
    plain = pd.read_parquet(path)
    whole = predictions.read_predictions(path)
    assert (plain["label"] == plain["predicted"]).sum() == (
        whole["label"] == whole["predicted"]
    ).sum()


def test_a_run_of_other_cells_is_refused_by_name(files, tmp_path):
    split = SPLIT.assign(fold=SPLIT["fold"].replace({"0": "1", "1": "0"}))
    with pytest.raises(InputError, match="0/predictions.parquet: its cells are not .*SPLITS"):
        predictions.read_run(files[0], 0, split)
    read_parquet(files[0])  # which is whole
    with pytest.raises(InputError, match="0/predictions.parquet: its cells are not"):
        evaluation.score_runs(files, split, {}, tmp_path / "a.parquet", tmp_path / "b.parquet")
    assert not list(tmp_path.iterdir())


def test_every_method_is_compared_with_the_best_of_the_others(report):
    summary = report["summary"]
    f1 = summary[(summary["part"] == "test") & (summary["score"] == "macro_f1")]
    f1 = f1.set_index("method")
    assert set(f1["best_baseline"].dropna()) == {"logistic_regression"}
    ours = f1.loc["scdynomics"]
    assert ours["n_runs"] == 4 and ours["low"] < ours["mean"] < ours["high"]
    assert f1.loc["logistic_regression", "n_runs"] == 2  # one seed
    assert ours["difference"] == pytest.approx(ours["mean"] - f1.loc["logistic_regression", "mean"])
    assert 0 < ours["p"] < 1
    assert np.isnan(f1.loc["logistic_regression", "p"])
    # Low is good of errors: the best has the smallest.
    nll = summary[(summary["part"] == "test") & (summary["score"] == "nll")]
    assert set(nll["best_baseline"].dropna()) == {"logistic_regression"}


def test_seeds_averaged_as_one_model_are_a_method_with_one_run_per_fold(report, runs):
    scores, summary = report["scores"], report["summary"]
    ensembles = scores[scores["method"].str.endswith("_ensemble")]
    # Not of a single seed, nor with fewer labels, of which each seed draws others.
    assert set(ensembles["method"]) == {"scdynomics_ensemble", "mlp_ensemble"}
    assert set(ensembles["variant"]) == {"scdynomics"} and set(ensembles["seed"]) == {1}
    assert len(ensembles) == 2 * 2 * 2  # methods, folds and parts
    assert set(ensembles["seconds"]) == {4.0}
    expected = combine(runs).query("method == 'mlp' and fold == '0'")
    found = ensembles.query("method == 'mlp_ensemble' and fold == '0' and part == 'test'")
    assert found["accuracy"].item() == (expected["label"] == expected["predicted"]).mean()
    f1 = summary[(summary["part"] == "test") & (summary["score"] == "macro_f1")]
    f1 = f1.set_index("method")
    assert f1.loc["scdynomics_ensemble", "n_runs"] == 2
    assert f1.loc["mlp_ensemble", "best_baseline"] == "logistic_regression"
    assert 0 < f1.loc["scdynomics_ensemble", "p"] < 1
    assert report["metrics"]["costs"]["mlp_ensemble"]["seconds"] == 4
    assert set(report["novelty"]["method"]) == {"scdynomics"}


def test_the_ensemble_of_a_baseline_can_be_the_best_of_them():
    f1 = {"scdynomics": 0.9, "mlp": 0.7}
    rows = [(method, s, f, f1[method] + s / 100) for method in f1 for s in (1, 2) for f in "01"]
    f1 = {"scdynomics_ensemble": 0.95, "mlp_ensemble": 0.8}
    rows += [(method, 1, f, f1[method] + int(f) / 100) for method in f1 for f in "01"]
    table = pd.DataFrame(rows, columns=["method", "seed", "fold", "macro_f1"])
    table = table.assign(variant="scdynomics", part="test", n_cells=9)
    found = evaluation.summarise_scores(table, 1.0).set_index("method")
    assert set(found["best_baseline"].dropna()) == {"mlp_ensemble"}
    assert found.loc["scdynomics_ensemble", "difference"] == pytest.approx(0.95 - 0.8)
    # The one ensemble of a fold pairs with each of its runs.
    assert found.loc["scdynomics", "difference"] == pytest.approx(0.915 - 0.805)


def test_seeds_of_a_fold_are_no_further_observations():
    scores = {"0": 0.8, "1": 0.9, "2": 0.82}
    rows = [("scdynomics", seed, fold, scores[fold]) for seed in (1, 2, 3) for fold in scores]
    rows += [("mlp", 1, fold, value - 0.1 - int(fold) / 50) for fold, value in scores.items()]
    table = pd.DataFrame(rows, columns=["method", "seed", "fold", "macro_f1"])
    table = table.assign(variant="scdynomics", part="test", n_cells=9)
    three = evaluation.summarise_scores(table, 0.5).set_index("method")
    once = evaluation.summarise_scores(table[table["seed"] == 1], 0.5).set_index("method")
    names = ["mean", "low", "high", "difference", "p"]
    np.testing.assert_allclose(
        three.loc["scdynomics", names].astype(float), once.loc["scdynomics", names].astype(float)
    )
    assert three["n_runs"].to_dict() == {"scdynomics": 9, "mlp": 3}


def test_few_labels_and_new_classes_have_tables_of_their_own(report, runs):
    curve = report["efficiency"]
    assert set(curve["method"]) == {"scdynomics", "logistic_regression"}
    assert sorted(curve["labels"].unique()) == [0.1, 1.0]
    assert set(curve["score"]) == {"macro_f1", "accuracy"}
    n_cells = curve[curve["score"] == "accuracy"].set_index(["method", "labels"])
    few = n_cells.loc[("logistic_regression", 0.1)]
    tested = report["scores"].query("part == 'test' and variant == 'labels_0.1'")
    tested = tested[tested["method"] == "logistic_regression"]
    assert few["mean"] == pytest.approx(tested["accuracy"].mean())
    n_cells = n_cells["n_training_cells"]
    assert n_cells["scdynomics"].to_dict() == {0.1: 6.5, 1.0: 1.5}  # the runs' mean
    assert n_cells["logistic_regression"].to_dict() == {0.1: 13.5, 1.0: 12.5}
    found = report["novelty"].set_index("by")
    assert list(report["novelty"]) == ["method", "by", "class", "auroc", "n_cells"]
    assert found.loc["familiarity", "auroc"] == 1 and set(found["class"]) == {"c"}
    table = runs[8][runs[8]["part"] == "test"]
    expected = roc_auc_score(table["label"] == "c", -table[["p_a", "p_b"]].max(axis=1))
    assert found.loc["confidence", "auroc"] == pytest.approx(expected)
    assert found.loc["confidence", "n_cells"] == 20


def test_the_page_of_a_task_has_all_its_tables_and_is_drawn(report, runs):
    assert report["metrics"]["split"] == "by donor: 2 units, each in one of 2 folds"
    assert report["metrics"]["n_held_out"] == 120 and report["metrics"]["n_predicted"] == 4
    assert report["metrics"]["costs"]["majority"] == {"seconds": 2.0, "n_training_cells": 11.5}
    assert report["metrics"]["test"]["scdynomics"]["macro_f1"] > 0.8
    ours = combine(runs).query("method == 'scdynomics' and part == 'test'")
    expected = pd.crosstab(ours["label"], ours["predicted"])
    assert report["confusion"].to_numpy().tolist() == expected.to_numpy().tolist()
    methods = ["scdynomics", "scdynomics_ensemble", "scdynomics_rna", "majority"]
    methods += ["logistic_regression", "mlp", "mlp_ensemble"]
    assert report["reliability"]["method"].unique().tolist() == methods
    f1 = report["classes"].set_index(["method", "class"])["f1"]
    assert f1["scdynomics"].to_dict() == pytest.approx(
        dict(zip("abc", f1_score(ours["label"], ours["predicted"], average=None), strict=True))
    )
    figure = figures_task.plot_task(report)
    titles = {axis.get_title() for axis in figure.axes}
    assert {"fewer labels", "detecting a left-out class", "reliability"} <= titles
    assert {"macro-F1", "accuracy"} <= {axis.get_xlabel() for axis in figure.axes}
    path = report["folder"] / "task.svg"
    style.save(figures_task.plot_task(report), path)
    assert "too rare: HSC $x$ (fewer than 5 cells)" in path.read_text()


def test_a_task_without_baselines_has_the_same_tables(report, runs, files, tmp_path):
    ours = runs[:9]
    found = evaluation.evaluate(
        files[:9],
        pd.DataFrame([table[predictions.RUN].iloc[0] for table in ours]).assign(n_training_cells=9),
        SPLIT,
        TASK.all_variants(),
        None,
        predictions=tmp_path / "predictions.parquet",
        runs=tmp_path / "runs.parquet",
    )
    for name in ("summary", "classes", "efficiency", "novelty"):
        assert list(found[name]) == list(report[name])
    missing = found["summary"][["best_baseline", "difference", "p"]].isna()
    assert missing.all(axis=None)
    style.save(figures_task.plot_task(found), tmp_path / "task.svg")


def test_costs_are_read_from_models_folders_and_from_tables(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/task.json").write_text('{"method": "m", "seed": 1, "seconds": 2.5}')
    (tmp_path / "costs.tsv").write_text("method\tseed\tseconds\nlr\t1\t0.5\n")
    costs = evaluation.read_costs([tmp_path / "model"], [tmp_path / "costs.tsv"])
    assert dict(zip(costs["method"], costs["seconds"], strict=True)) == {"m": 2.5, "lr": 0.5}
