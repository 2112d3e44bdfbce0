"""Disks that are full, or may not be written to."""

import os
import re
import shutil
import subprocess

import pytest
from conftest import STAGES, differences, remove, snakemake, state

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
# One of each kind of writer: tables, zarr, safetensors and JSON, h5ad, figures and pages, pySCENIC.
QUICK = {"split_cells", "write_tokens", "embed", "make_spatial", "export_loom"}
EACH = [
    pytest.param(rule, marks=[] if rule in QUICK else pytest.mark.slow, id=rule) for rule in STAGES
]


@pytest.fixture
def on_small_disk(stages, tmp_path):
    """A copy of the study whose results are on a disk of their own."""
    folder = tmp_path / "study"
    shutil.copytree(stages, folder, symlinks=True, ignore=shutil.ignore_patterns("results"))
    results = folder / "results"
    results.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", results], check=True)
    try:
        shutil.copytree(stages / "results", results, symlinks=True, dirs_exist_ok=True)
        yield folder
    finally:
        subprocess.run(["umount", results], check=True)


def fill(place):
    """Fill a disk to its last byte; returns the file that does."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (2**20, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue
    assert shutil.disk_usage(place).free == 0
    return filler


@pytest.mark.parametrize("rule", EACH)
def test_a_full_disk_ends_a_stage_in_one_sentence_and_leaves_nothing(rule, on_small_disk, stages):
    folder, target = on_small_disk, STAGES[rule]
    remove(folder / target)
    before = state(folder)
    filler = fill(folder / "results")
    run = snakemake(folder, target, "--notemp")
    assert run.returncode != 0
    # Some rules are tried again, and say it again.
    said = {line for line in run.stdout.splitlines() if line.startswith("Error: ")}
    assert len(said) == 1, run.stdout[-3000:]
    assert re.search(r"No space left on device.*make room", "".join(said)) and "results" in "".join(
        said
    )
    filler.unlink()
    after = state(folder)
    changed = {name for name in after if before.get(name) != after[name]}
    assert not {name for name in changed if "/checkpoints/" not in name}
    assert not [path for path in (folder / "results").rglob(".*-*.*") if path.is_file()]
    run = snakemake(folder, target, "--notemp")
    assert run.returncode == 0, run.stdout[-3000:]
    assert differences(stages, folder) == []


@pytest.mark.parametrize("rule", ["split_cells", "embed", "write_tokens"])
def test_results_that_may_not_be_written_to_stop_a_run_and_stay_as_they_are(
    rule, on_small_disk, stages
):
    folder, target = on_small_disk, STAGES[rule]
    remove(folder / target)
    before, results = state(folder), folder / "results"
    subprocess.run(["mount", "-o", "remount,ro", results], check=True)
    run = snakemake(folder, target, "--notemp")
    assert run.returncode != 0
    said = [line for line in run.stdout.splitlines() if "Read-only file system" in line]
    assert said and "results" in said[-1], run.stdout[-3000:]
    assert state(folder) == before
    subprocess.run(["mount", "-o", "remount,rw", results], check=True)
    run = snakemake(folder, target, "--notemp")
    assert run.returncode == 0, run.stdout[-3000:]
    assert differences(stages, folder) == []
