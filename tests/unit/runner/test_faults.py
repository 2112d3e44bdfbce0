"""The tests of faults know every rule."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_disk_is_filled_in_every_rule_of_the_small_study():
    rules = {
        name
        for path in (ROOT / "workflow/rules").glob("*.smk")
        for name in re.findall(r"^\s*rule (\w+):", path.read_text(), re.MULTILINE)
    }
    stages = runpy.run_path(str(ROOT / "tests/faults/conftest.py"))["STAGES"]
    # Targets that write nothing, downloads, peers, and what the small study does without.
    elsewhere = {"resources", "preflight", "fetch_resource", "find_motifs_by_pyscenic"}
    elsewhere |= {"embed_scvi", "score_spaces", "fit_scanvi"}
    assert rules - elsewhere == set(stages)
