"""Figures in docs/input.md are those of the committed benchmark."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("lay_out", ["fragment_table", "sample_table"])
def test_figures_are_those_of_the_last_benchmark(lay_out, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks")])
    import bench_ingest

    rows = json.loads((ROOT / "benchmarks" / "results" / "ingest.json").read_text())["rows"]
    assert getattr(bench_ingest, lay_out)(rows) in (ROOT / "docs" / "input.md").read_text()
