"""Figures in docs/results.md are those that the studies came to."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_tables_are_those_of_the_collected_results(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks")])
    import collect_results

    content = json.loads((ROOT / "benchmarks" / "results" / "evaluation.json").read_text())
    page = (ROOT / "docs" / "results.md").read_text()
    assert collect_results.fill(page, collect_results.blocks(content)) == page
    for study in ("embedded", "cortex", "bone_marrow", "spatial", "chimera"):
        assert study in content and f"<!-- {study}." in page
