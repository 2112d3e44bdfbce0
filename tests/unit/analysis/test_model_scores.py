"""What make collect-results writes of a task whose truth is that of a population."""

import sys
from pathlib import Path

import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def test_shares_of_predicted_fates_are_compared_with_the_types_by_stage(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])
    import model_scores

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
