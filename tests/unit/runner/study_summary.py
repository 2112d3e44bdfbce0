"""What a small study came to, in numbers, and what it came to when golden.json was written."""

import csv
import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
GOLDEN = REPOSITORY / "tests/workflow/golden.json"
# Run where pyarrow is.
READ_PARQUET = """
import sys
import pandas as pd
from scdyn.io.artefacts import read_parquet
table = read_parquet(sys.argv[1])
table.to_csv(sys.stdout, sep="\t", index=not isinstance(table.index, pd.RangeIndex))
"""
# Sums on another kind of CPU differ in their last digits, and training makes more of them.
TOLERANCE = {"rel": 0.1, "abs": 0.05}
# Intervals from two runs, and shares of a handful of genes, jump with those digits.
COARSE = ("_low", "_high", "recall20")


def read(path):
    """Rows of a table, as text."""
    if path.suffix == ".parquet":
        command = [REPOSITORY / "tests/in_env.sh", "analysis", "python", "-c", READ_PARQUET]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "workflow/scripts")}
        run = subprocess.run(
            [*command, path.resolve()], capture_output=True, text=True, check=True, env=environment
        )
        return list(csv.DictReader(run.stdout.splitlines(), delimiter="\t"))
    with path.open() as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def summary(results):
    """Counts of every stage and all scores, rounded."""
    qc = {path.name: read(path) for path in sorted(results.glob("ingest/*.qc.tsv"))}
    called = read(results / "finetune/fate/predictions.parquet")
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
