"""Gene regulatory networks: in parts, yet those of pySCENIC."""

import csv
import os
import subprocess

import pytest
from conftest import REPOSITORY


def edges(*paths):
    """(TF, target) to importance."""
    found = {}
    for path in paths:
        with open(path) as file:
            for row in csv.DictReader(file, delimiter="\t"):
                edge = row["TF"], row["target"]
                assert edge not in found
                found[edge] = float(row["importance"])
    return found


def test_parts_together_are_the_adjacencies_of_pyscenic(small_study, tmp_path):
    grn = small_study / "results" / "grn" / "embryo"
    parts = list((grn / "runs" / "1").iterdir())
    assert len(parts) == 3
    of_pyscenic = tmp_path / "adjacencies.tsv"
    subprocess.run(
        [
            REPOSITORY / "tests" / "in_env.sh", "grn", "arboreto_with_multiprocessing.py",
            grn / "expression.tsv", grn / "tfs.txt", "--method", "grnboost2", "--seed", "1",
            "--num_workers", "2", "--output", of_pyscenic,
        ],
        check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    expected = edges(of_pyscenic)
    assert edges(*parts) == pytest.approx(expected, rel=1e-5)
    assert len(expected) > 1000
