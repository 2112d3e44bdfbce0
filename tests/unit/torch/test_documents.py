"""Figures in docs/ablations.md are those of the committed runs."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("study", ["demo", "cortex"])
def test_the_tables_of_ablations_are_those_of_their_runs(study, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks")])
    import ablations

    runs = json.loads((ROOT / f"benchmarks/results/ablations_{study}.json").read_text())["runs"]
    assert len(runs) == 3 * len(ablations.VARIANTS)
    assert ablations.summarise(runs) in (ROOT / "docs" / "ablations.md").read_text()
