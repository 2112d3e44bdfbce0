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
        ("docs/speed.md", "costs_table", "costs"),
        ("docs/speed.md", "error_table", "errors"),
    ],
)
def test_figures_are_those_of_the_last_benchmark(document, lay_out, key):
    bench = runpy.run_path(str(ROOT / "benchmarks" / "bench.py"))
    results = ROOT / "benchmarks" / "results"
    found = json.loads((results / "latest.json").read_text())
    found["costs"] = json.loads((results / "costs.json").read_text())
    assert bench[lay_out](found[key]) in (ROOT / document).read_text()


def test_every_figure_of_speed_names_the_instructions_it_was_measured_with():
    results = ROOT / "benchmarks" / "results"
    found = json.loads((results / "latest.json").read_text())
    parts = [*found["rows"], found["profile"], *json.loads((results / "costs.json").read_text())]
    parts += [json.loads((results / f"{n}.json").read_text())["machine"] for n in ("ingest", "grn")]
    assert {part["instructions"] for part in parts} <= {"AVX512", "AVX2", "DEFAULT"}
