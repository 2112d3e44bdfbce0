"""Figures in README and docs are those of the committed benchmark."""

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("document", "lay_out", "key"),
    [
        ("README.md", "table", "rows"),
        ("docs/speed.md", "error_table", "errors"),
    ],
)
def test_figures_are_those_of_the_last_benchmark(document, lay_out, key):
    bench = runpy.run_path(str(ROOT / "benchmarks" / "bench.py"))
    found = json.loads((ROOT / "benchmarks" / "results" / "latest.json").read_text())
    assert bench[lay_out](found[key]) in (ROOT / document).read_text()
