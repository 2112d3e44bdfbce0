"""What a small study came to, in numbers, and what it came to when golden.json was written."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[2] / "workflow/golden.json"
# Sums on another kind of CPU differ in their last digits, and training makes more of them.
TOLERANCE = {"rel": 0.1, "abs": 0.05}
# Intervals from two runs, and shares of a handful of genes, jump with those digits.
COARSE = ("_low", "_high", "recall20")


def read(path):
    with path.open() as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def summary(results):
    """Counts of every stage and all scores, rounded."""
    qc = {path.name: read(path) for path in sorted(results.glob("ingest/*.qc.tsv"))}
    called = read(results / "finetune/fate/predictions.tsv")
    ours = [row for row in called if row["method"] == "scdynomics"]
    attributed = read(results / "explain/fate/drivers.tsv")
    return {
        "n_genes": len(read(results / "reference/genes.tsv")),
        "n_kept": {name: sum(row["kept"] == "True" for row in rows) for name, rows in qc.items()},
        "n_edges": len(read(results / "grn/embryo/adjacencies.tsv")),
        "n_regulons": len({row["regulon"] for row in read(results / "grn/embryo/regulons.tsv")}),
        "predicted": dict(Counter(row["predicted"] for row in ours)),
        "n_drivers": len(attributed),
        "scores": {
            name: round(value, 2)
            for name, value in json.loads((results / "scores.json").read_text()).items()
            if not name.endswith(COARSE)
        },
    }


def numbers(content, name=""):
    """Every number of a summary by its name."""
    if isinstance(content, dict):
        return {k: v for key in content for k, v in numbers(content[key], f"{name}/{key}").items()}
    return {name: content}


def differences(found, golden):
    """Values of ``found`` that are not those of ``golden``, with both."""
    found, golden = numbers(found), numbers(golden)
    return {
        name: (value, golden.get(name))
        for name, value in found.items()
        if name not in golden or value != pytest.approx(golden[name], **TOLERANCE)
    }
