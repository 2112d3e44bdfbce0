"""Runs of the workflow on a pretend Slurm, with the repository's profile and environments."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from pretend_slurm import PretendSlurm

REPOSITORY = Path(__file__).parents[2]
# To look at jobs sooner than a busy cluster would like.
SOON = ("--slurm-init-seconds-before-status-checks", "5")
# The pretend cluster keeps no accounts.
PATH = f"{REPOSITORY}/profiles/slurm/without-accounting:{os.environ['PATH']}"


class Run:
    """A run of Snakemake with ``--profile slurm`` in a study's folder, and what it has said."""

    def __init__(self, folder, profiles, *options, config=None):
        self.folder = folder
        self.log = folder / f"said.{len(list(folder.glob('said.*')))}.txt"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    "snakemake", "--use-conda", "--profile", "slurm", *SOON, *options,
                    "--snakefile", REPOSITORY / "Snakefile",
                    "--directory", folder,
                    "--configfile", config or folder / "config.yaml",
                    "--conda-prefix", REPOSITORY / ".snakemake" / "conda",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "XDG_CONFIG_HOME": str(profiles), "PATH": PATH},
                start_new_session=True,
                # Ignored by what is started in the background, and then by all that it starts.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )  # fmt: skip

    def said(self):
        return self.log.read_text()

    def until(self, condition, what, seconds=600):
        """Wait while it runs; returns what the condition found."""
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert self.process.poll() is None, f"ended before {what}: {self.said()[-3000:]}"
            assert time.monotonic() < end, f"no {what} in {seconds} s: {self.said()[-3000:]}"
            time.sleep(0.3)
        return found

    def end(self, sign, seconds=120):
        """Send a signal; returns the status that it ends with."""
        self.process.send_signal(sign)
        return self.process.wait(seconds)

    def finish(self, seconds=1500):
        """Wait for its end, which has to be a good one."""
        assert self.process.wait(seconds) == 0, self.said()[-6000:]
        return self


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    with PretendSlurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(scope="session")
def profiles(tmp_path_factory):
    """A user's configuration, where ``make slurm-profile`` has put the profile."""
    folder = tmp_path_factory.mktemp("xdg")
    environment = {**os.environ, "XDG_CONFIG_HOME": str(folder)}
    subprocess.run(["make", "slurm-profile"], cwd=REPOSITORY, env=environment, check=True)
    return folder


@pytest.fixture
def run_in(profiles):
    """Start runs that end with the test, whatever becomes of it."""
    runs = []

    def start(folder, *options, **named):
        runs.append(Run(folder, named.pop("profiles", profiles), *options, **named))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()


def lay_out(folder):
    """Put the small study's config and sheet into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.yaml", "samples.tsv"):
        shutil.copy(REPOSITORY / "tests/workflow" / name, folder)
    return folder
