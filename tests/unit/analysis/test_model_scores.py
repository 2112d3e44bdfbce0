"""What make collect-results writes of the model and its baselines."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def model_scores(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])
    import model_scores

    return model_scores


def test_studies_that_are_not_given_keep_their_scores(model_scores, tmp_path, monkeypatch):
    folder, output = tmp_path / "cortex", tmp_path / "model.json"
    task = folder / "finetune" / "cortex"
    task.mkdir(parents=True)
    rows = [
        (method, score, value + 0.01 * (score == "accuracy"))
        for method, value in {"scdynomics": 0.7, "knn": 0.6, "mlp": 0.65}.items()
        for score in ("macro_f1", "accuracy")
    ]
    table = pd.DataFrame(rows, columns=["method", "score", "mean"])
    table.assign(part="test").to_csv(task / "summary.tsv", sep="\t", index=False)
    table.assign(labels=1.0).to_csv(task / "label_efficiency.tsv", sep="\t", index=False)
    config = {
        "models": {"m": {"corpus": "c"}}, "tasks": {"cortex": {"model": "m", "label": "type"}}
    }  # fmt: skip
    (folder / "provenance.json").write_text(json.dumps({"commit": "abc", "config": config}))
    spaces = {
        "neighbour_accuracy": 0.7, "pca_neighbour_accuracy": 0.6,
        "pca_both_neighbour_accuracy": 0.65, "library_size_r2_within": 0.1,
        "pca_library_size_r2_within": 0.5, "pca_both_library_size_r2_within": 0.3,
    }  # fmt: skip
    scores = {
        f"{label}.{name}": value for label in ("batch", "type") for name, value in spaces.items()
    }
    scores["batch.neighbour_accuracy"] = 0.2
    (folder / "embed" / "m").mkdir(parents=True)
    (folder / "embed" / "m" / "c.scores.json").write_text(json.dumps(scores))
    before = {"cortex.macro_f1": 0.1, "cortex_10.macro_f1": 0.1, "kang.macro_f1": 0.8}
    output.write_text(json.dumps(before))
    monkeypatch.setattr(sys, "argv", ["", str(folder), "--output", str(output)])
    model_scores.main()
    found = json.loads(output.read_text())
    found.pop("commit")
    assert found == {
        "kang.macro_f1": 0.8, "cortex.commit": "abc", "cortex.macro_f1": 0.7,
        "cortex.accuracy": 0.71, "cortex.single_macro_f1": 0.7, "cortex.single_accuracy": 0.71,
        "cortex.best_baseline": "mlp", "cortex.best_baseline_macro_f1": 0.65,
        "cortex.best_baseline_accuracy": 0.66, "cortex.neighbour_accuracy": 0.7,
        "cortex.best_pca_neighbour_accuracy": 0.65, "cortex.depth_r2_within": 0.1,
        "cortex.best_pca_depth_r2_within": 0.3,
    }  # fmt: skip


def test_shares_of_predicted_fates_are_compared_with_the_types_by_stage(model_scores):
    def tabulate(method, part, label, predicted):
        columns = {"method": method, "part": part, "label": label, "predicted": predicted}
        return pd.DataFrame(columns)

    tables = []
    for method, early in {
        "scdynomics": ["Alpha", "Beta", "Beta", "Beta"],
        "scdynomics_random_start": ["Alpha", "Alpha", "Beta", "Beta"],
        "knn": ["Beta", "Beta", "Beta", "Beta"],
        "mlp": ["Alpha", "Alpha", "Alpha", "Beta"],
    }.items():
        # Wrong predictions of held-out cells do not count.
        tables.append(tabulate(method, "test", ["Alpha", "Alpha", "Beta", "Beta"], "Alpha"))
        tables.append(tabulate(method, "predict", "Ngn3-high EP", early))
        tables.append(tabulate(method, "predict", "late", ["Alpha", "Beta"]))
    found = model_scores.measure_shares(pd.concat(tables), "pancreas_fates")
    assert found["pancreas_fates.ngn3_high_ep.share_distance"] == pytest.approx(0.25)
    # A variant of the model is no baseline.
    assert found["pancreas_fates.ngn3_high_ep.best_baseline"] == "mlp"
    assert found["pancreas_fates.ngn3_high_ep.best_baseline_share_distance"] == pytest.approx(0.25)
    assert found["pancreas_fates.late.share_distance"] == 0
    assert found["pancreas_fates.late.best_baseline_share_distance"] == 0
