"""The Snakefile, run for real in a folder of its own with the repository's environments."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def pytest_addoption(parser):
    parser.addoption(
        "--update-golden", action="store_true", help="write golden.json anew, from this run"
    )
    parser.addoption("--study", help="folder of a small study that was run to its end elsewhere")


def snakemake(folder, config, *options):
    """Run the workflow in ``folder``; returns the finished process with its output as text."""
    return subprocess.run(
        [
            "snakemake",
            *options,
            "--snakefile", REPOSITORY / "Snakefile",
            "--directory", folder,
            "--configfile", config,
            "--sdm", "conda",
            "--conda-prefix", REPOSITORY / ".snakemake" / "conda",
            "--cores", "2",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


@pytest.fixture(scope="session")
def small_study(tmp_path_factory, pytestconfig):
    """The small study, run to its end once for all tests, by the process that first needs it."""
    if pytestconfig.getoption("--study"):
        return Path(pytestconfig.getoption("--study"))
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent  # of all processes
    folder = place / "small_study"
    with (place / "small_study.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            folder.mkdir()
            # One of its samples is of RNA only.
            shutil.copy(REPOSITORY / "tests/workflow/samples.tsv", folder)
            shutil.copy(REPOSITORY / "tests/workflow/config.yaml", folder)
        # Where another process has run it already, nothing is left to do.
        run = snakemake(folder, folder / "config.yaml")
        assert run.returncode == 0, run.stdout[-6000:]
    return folder
