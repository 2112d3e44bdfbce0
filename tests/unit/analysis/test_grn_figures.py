"""Figures in docs/grn.md are those of the committed benchmark."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("lay_out", ["method_table", "regulon_table", "support_table"])
def test_figures_are_those_of_the_last_benchmark(lay_out, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks")])
    import bench_grn

    result = json.loads((ROOT / "benchmarks" / "results" / "grn.json").read_text())
    assert getattr(bench_grn, lay_out)(result) in (ROOT / "docs" / "grn.md").read_text()


def test_simulated_networks_are_what_they_say(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks")])
    import grn_simulators

    for simulate in grn_simulators.SIMULATORS.values():
        expression, tfs, edges = simulate(60, 80, 12, 0)
        assert expression.shape == (60, 80) and len(tfs) == 12
        assert set(edges["tf"]) <= set(tfs) and (edges["tf"] != edges["target"]).all()
        assert not edges.duplicated().any()
        again, _, _ = simulate(60, 80, 12, 0)
        assert expression.equals(again)
