"""Figures in the README are those of the committed benchmark."""

import json
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_readme_has_the_table_of_the_last_benchmark():
    table = runpy.run_path(str(ROOT / "benchmarks" / "bench.py"))["table"]
    rows = json.loads((ROOT / "benchmarks" / "results" / "latest.json").read_text())["rows"]
    assert table(rows) in (ROOT / "README.md").read_text()
