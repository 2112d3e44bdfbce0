"""Every output of every rule has its place in docs/files.md, and nothing else stands there."""

import re
import subprocess
from pathlib import Path

import pytest
from file_contracts import contracts, pattern

ROOT = Path(__file__).parents[3]
# Written by no rule: the report, what stands in folders that are outputs, and what is removed; and
# of a run in several parts, which the embedded study's is not.
NO_OUTPUT = re.compile(
    r"report\.html|.*/checkpoints|tokens/{corpus}/.*|.*/model/predictions\.tsv|.*-of-{parts}\.tsv"
)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """All outputs of the embedded study with everything that can be asked for besides."""
    more = tmp_path_factory.mktemp("config") / "more.yaml"
    more.write_text("grn: {loom: true}\n")
    configs = ["config/demo/config.yaml", "config/demo/five.yaml", more]
    run = subprocess.run(
        ["snakemake", "--dry-run", "--forceall", "--configfile", *configs],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    lines = re.findall(r"^    output: (.+)$", run.stdout + run.stderr, re.M)
    paths = {path.removesuffix(" (temp)") for line in lines for path in line.split(", ")}
    return {path.removeprefix("results/") for path in paths}


def test_every_output_is_described_and_every_description_is_of_an_output(outputs):
    named = contracts()
    assert len(outputs) > 100
    unsaid = [path for path in outputs if not any(pattern(name).match(path) for name in named)]
    assert not unsaid, "these need a place in docs/files.md"
    gone = [
        name
        for name in named
        if not NO_OUTPUT.fullmatch(name) and not any(pattern(name).match(p) for p in outputs)
    ]
    assert not gone, "no rule writes these"
