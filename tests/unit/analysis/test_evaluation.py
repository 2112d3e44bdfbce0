"""From runs to tables: combined predictions, intervals, comparisons, few labels, new classes."""

import numpy as np
import pandas as pd
import pytest

from scdyn.plotting import style
from scdyn.plotting import task as figures_task
from scdyn.settings import EvaluationSettings
from scdyn.tasks import evaluation

RNG = np.random.default_rng(0)
LABELS = np.array(list("aabbcc") * 10)


def run(method, fold, seed=1, variant="scdynomics", accuracy=0.9, familiarity=None):
    """Calls of one fold of 60 cells, and of four cells that every fold predicts."""
    names = [f"{fold}_{i}" for i in range(60)] + [f"q{i}" for i in range(4)]
    labels = [*LABELS, "a", "b", "", "z"]
    cells = pd.DataFrame({"cell": names, "label": labels, "fold": [fold] * 60 + ["predict"] * 4})
    true = np.array([[label == c for c in "abc"] for label in labels])
    wrong = RNG.random(64) > accuracy
    true[wrong] = np.roll(true[wrong], 1, axis=1)
    p = (0.1 + 0.7 * true) / (0.3 + 0.7 * true.sum(1, keepdims=True))
    keys = {"method": method, "variant": variant, "seed": seed, "fold": fold}
    table = evaluation.tabulate_calibrated_predictions(cells, keys, list("abc"), p, 1.0)
    return table if familiarity is None else table.assign(familiarity=familiarity)


def all_runs():
    tables = [
        run(method, fold, seed, accuracy=accuracy)
        for fold in "01"
        for method, seeds, accuracy in (
            ("scdynomics", (1, 2), 0.95),
            ("logistic_regression", (1,), 0.8),
            ("majority", (1,), 0.3),
        )
        for seed in seeds
    ]
    tables += [run("scdynomics_rna", fold, 1, "scdynomics_rna", 0.6) for fold in "01"]
    tables += [run("scdynomics", fold, 1, "labels_0.1", 0.7) for fold in "01"]
    tables += [run("logistic_regression", fold, 1, "labels_0.1", 0.5) for fold in "01"]
    seen = np.where([*(LABELS == "c"), False, False, True, True], 0.01, 0.5)
    tables.append(run("scdynomics", "0", 1, "without_0", familiarity=seen))
    return pd.concat(tables, ignore_index=True)


def test_folds_are_combined_by_mean_probability():
    cells = pd.DataFrame({"cell": ["t", "q"], "label": ["a", ""], "fold": ["0", "predict"]})
    keys = {"method": "m", "variant": "scdynomics", "seed": 1, "fold": "0"}
    first = evaluation.tabulate_predictions(
        cells, keys, ["a", "b"], np.array([[0.9, 0.1], [0.4, 0.6]])
    )
    cells = pd.DataFrame({"cell": ["u", "q"], "label": ["b", ""], "fold": ["1", "predict"]})
    keys["fold"] = "1"
    second = evaluation.tabulate_predictions(
        cells, keys, ["a", "b"], np.array([[0.7, 0.3], [0.8, 0.2]])
    )
    table = evaluation.combine(pd.concat([first, second])).set_index("cell")
    assert table.loc["q", "p_a"] == pytest.approx(0.6)
    assert table["predicted"].to_dict() == {"t": "a", "u": "a", "q": "a"}


def test_tables_come_back_from_their_files_with_missing_numbers_and_odd_names(tmp_path):
    runs = all_runs()
    runs.loc[0, ["label", "p_c"]] = "NA", np.nan
    runs.to_csv(tmp_path / "runs.tsv", sep="\t", index=False)
    found = evaluation.read_predictions(tmp_path / "runs.tsv")
    pd.testing.assert_frame_equal(found, runs, check_dtype=False)
    assert found["p_c"].dtype == float and found["seed"].dtype == int


def test_models_of_fewer_labels_or_classes_take_no_part_in_the_combined_predictions():
    runs = all_runs()
    predictions = evaluation.combine(runs)
    expected = {"scdynomics", "scdynomics_rna", "logistic_regression", "majority"}
    assert set(predictions["method"]) == expected
    assert not predictions.duplicated(["method", "cell"]).any()
    assert len(predictions) == 4 * (120 + 4)


def test_predicted_cells_are_scored_where_their_label_is_a_class():
    scores = evaluation.score_runs(all_runs())
    counts = scores.groupby("part")["n_cells"].unique()
    assert counts["test"].tolist() == [60] and counts["predict"].tolist() == [2]


def test_every_method_is_held_against_the_best_of_the_others():
    summary = evaluation.summarise_scores(evaluation.score_runs(all_runs()), 1.0)
    f1 = summary[(summary["part"] == "test") & (summary["score"] == "macro_f1")]
    f1 = f1.set_index("method")
    assert set(f1["best_baseline"].dropna()) == {"logistic_regression"}
    ours = f1.loc["scdynomics"]
    assert ours["n_runs"] == 4 and ours["low"] < ours["mean"] < ours["high"]
    assert f1.loc["logistic_regression", "n_runs"] == 2  # one seed, which pairs with both of ours
    assert ours["difference"] == pytest.approx(ours["mean"] - f1.loc["logistic_regression", "mean"])
    assert 0 < ours["p"] < 1
    assert np.isnan(f1.loc["logistic_regression", "p"])
    # Low is good of errors: the best has the smallest.
    nll = summary[(summary["part"] == "test") & (summary["score"] == "nll")]
    assert set(nll["best_baseline"].dropna()) == {"logistic_regression"}


def test_few_labels_and_new_classes_have_tables_of_their_own():
    runs = all_runs()
    scores = evaluation.score_runs(runs)
    curve = evaluation.compute_efficiency(scores, {"labels_0.1": 0.1})
    assert set(curve["method"]) == {"scdynomics", "logistic_regression"}
    assert sorted(curve["labels"].unique()) == [0.1, 1.0]
    found = evaluation.compute_novelty(runs, {"without_0": "c"}).set_index("by")
    assert found.loc["familiarity", "auroc"] == 1
    assert found.loc["confidence", "n_cells"] == 20


def test_the_page_of_a_task_has_all_its_tables_and_is_drawn(tmp_path):
    task = EvaluationSettings(model="m", label_shares=[0.1], left_out=["c"])
    runs = all_runs()
    split = pd.concat([pd.DataFrame({"fold": [fold] * 60, "unit": f"d{fold}"}) for fold in "01"])
    costs = runs[evaluation.RUN].drop_duplicates().assign(seconds=2.0)
    rare = pd.DataFrame({"class": ["HSC $x$"], "reason": ["fewer than 5 cells"]})
    report = evaluation.evaluate(runs, costs, split, task.all_variants(), "donor", rare)
    assert report["metrics"]["split"] == "by donor: 2 units, each in one of 2 folds"
    assert report["metrics"]["costs"]["majority"] == {"seconds": 2.0}
    assert report["metrics"]["test"]["scdynomics"]["macro_f1"] > 0.8
    assert set(report["runs"]["method"]) == set(report["predictions"]["method"])
    figure = figures_task.plot_task(report)
    titles = {axis.get_title() for axis in figure.axes}
    assert {"fewer labels", "detecting a left-out class", "reliability"} <= titles
    style.save(figures_task.plot_task(report), tmp_path / "task.svg")
    assert "too rare: HSC $x$ (fewer than 5 cells)" in (tmp_path / "task.svg").read_text()


def test_runs_and_costs_are_read_from_models_folders_and_from_tables(tmp_path):
    (tmp_path / "model").mkdir()
    header = "cell\tmethod\tvariant\tseed\tfold\tpart\tlabel\tpredicted\tp_NA\n"
    row = "\t1\t0\ttest\tNA\tNA\t"
    (tmp_path / "model/predictions.tsv").write_text(f"{header}a\tm\tm{row}0.5\n")
    (tmp_path / "model/task.json").write_text('{"method": "m", "seed": 1, "seconds": 2.5}')
    (tmp_path / "lr.tsv").write_text(f"{header}a\tlr\tlr{row}\n")
    (tmp_path / "costs.tsv").write_text("method\tseed\tseconds\nlr\t1\t0.5\n")
    runs = evaluation.read_runs([tmp_path / "model"], [tmp_path / "lr.tsv"])
    assert runs[["method", "label", "seed"]].values.tolist() == [["m", "NA", 1], ["lr", "NA", 1]]
    assert runs["p_NA"].iloc[0] == 0.5 and np.isnan(runs["p_NA"].iloc[1])
    costs = evaluation.read_costs([tmp_path / "model"], [tmp_path / "costs.tsv"])
    assert dict(zip(costs["method"], costs["seconds"], strict=True)) == {"m": 2.5, "lr": 0.5}
