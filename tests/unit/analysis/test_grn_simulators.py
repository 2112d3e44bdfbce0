"""The simulators that make bench-grn compares the methods on."""

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def test_simulated_networks_have_the_regulators_that_are_asked_for_and_follow_from_the_seed(
    monkeypatch,
):
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])
    import grn_simulators

    for simulate in grn_simulators.SIMULATORS.values():
        expression, tfs, edges = simulate(60, 80, 12, 0)
        assert expression.shape == (60, 80) and len(tfs) == 12
        assert set(edges["tf"]) <= set(tfs) and (edges["tf"] != edges["target"]).all()
        assert not edges.duplicated().any()
        again, _, _ = simulate(60, 80, 12, 0)
        assert expression.equals(again)
