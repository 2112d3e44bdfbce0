"""The table in docs/reliability.md names tests that are there, and all of tests/faults."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[3]


def names_in(folder):
    texts = (path.read_text() for path in (ROOT / folder).rglob("test_*.py"))
    return {name for text in texts for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}


def rows():
    lines = (ROOT / "docs/reliability.md").read_text().splitlines()
    table = [line.strip("|").split("|") for line in lines if line.startswith("| ")]
    return table[1:]


def test_each_fault_has_a_test_that_is_there():
    assert len(rows()) > 10
    for fault, *_, named in rows():
        names = re.findall(r"`(\w+)`", named)
        assert names, fault
        assert set(names) <= names_in("tests"), fault


def test_each_test_of_faults_has_a_row():
    named = {name for row in rows() for name in re.findall(r"`(\w+)`", row[-1])}
    assert names_in("tests/faults") - named == set()
    assert len(names_in("tests/faults")) > 8


def test_the_disk_is_filled_in_every_stage_of_the_small_study():
    rules = {
        name
        for path in (ROOT / "workflow/rules").glob("*.smk")
        for name in re.findall(r"^\s*rule (\w+):", path.read_text(), re.MULTILINE)
    }
    stages = runpy.run_path(str(ROOT / "tests/faults/conftest.py"))["STAGES"]
    # The first two write nothing: they are targets.
    elsewhere = {"resources", "preflight", "fetch_resource"}
    elsewhere |= {"embed_scvi", "score_spaces", "fit_scanvi", "find_motifs_by_pyscenic"}
    assert rules - elsewhere == set(stages)
