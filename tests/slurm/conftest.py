"""Runs of the workflow on a pretend Slurm, with the repository's profile and environments."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from pretend_slurm import Job, PretendSlurm, wait_for

REPOSITORY = Path(__file__).parents[2]
# Snakemake, but for how often it looks at its jobs: every second, where the executor waits ten
# seconds longer after each look that finds none ended, to spare a busy cluster.
IMPATIENT = """
from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

RemoteExecutor.next_seconds_between_status_checks = property(lambda self: 1, lambda *_: None)
main()
"""
SOON = (
    *("--slurm-init-seconds-before-status-checks", "1"),
    *("--max-status-checks-per-second", "1"),
)
# The pretend cluster keeps no accounts.
PATH = f"{REPOSITORY}/profiles/slurm/without-accounting:{os.environ['PATH']}"

# Too little at first, for the rule that needs the most beside the model.
TOO_LITTLE = ("--set-resources", "judge_embedding:mem_mb=400*attempt")


class Run:
    """A run of Snakemake with ``--profile slurm`` in a study's folder, and what it has said."""

    def __init__(self, folder, profiles, *options):
        self.folder = folder
        self.log = folder / f"said.{len(list(folder.glob('said.*')))}.txt"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-c", IMPATIENT,
                    "--use-conda", "--profile", "slurm", *SOON, *options,
                    "--snakefile", REPOSITORY / "Snakefile",
                    "--directory", folder,
                    "--configfile", folder / "config.yaml",
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


@pytest.fixture(scope="session")
def run_in(profiles):
    """Start runs that do not outlast the tests, whatever becomes of these."""
    runs = []

    def start(folder, *options, profiles=profiles):
        runs.append(Run(folder, profiles, *options))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()


def lay_out(folder):
    """Put the small study into a folder: all stages and rules, of one task without variants."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(REPOSITORY / "tests/workflow/samples.tsv", folder)
    config = yaml.safe_load((REPOSITORY / "tests/workflow/config.yaml").read_text())
    config["grn"]["left_out_share"] = 0
    del config["tasks"]["knockout"], config["studies"]["perturbation"]
    config["tasks"]["fate"] |= {"variants": {}, "label_shares": []}
    # Only its variants train more than a head.
    del config["tasks"]["fate"]["training"]["epochs"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@dataclass
class Record:
    """What was done to the run, and what was seen."""

    folder: Path
    seen: dict = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)

    def of(self, rule):
        return [job for job in self.jobs if job.rule == rule]


def running(slurm, rule):
    return [job for job in slurm.jobs() if job.rule == rule and job.state == "RUNNING"]


def alive(slurm):
    return [job for job in slurm.jobs() if job.state in ("RUNNING", "PENDING")]


@pytest.fixture(scope="session")
def record(slurm, run_in, tmp_path_factory):
    """Run the study once: killed, interrupted, cancelled, out of memory, without a controller."""
    folder = lay_out(tmp_path_factory.mktemp("study"))
    record = Record(folder)

    run = run_in(folder, *TOO_LITTLE)
    run.until(lambda: running(slurm, "infer_adjacencies"), "part of the GRN")
    run.end(signal.SIGKILL)
    record.seen["left by SIGKILL"] = alive(slurm)
    # As docs/cluster.md says: end what it left, unlock, and the same command again.
    refused = run_in(folder, *TOO_LITTLE)
    refused.process.wait(120)
    record.said["locked"] = refused.said()
    name = run_id(run.said())
    subprocess.run(["scancel", "--name", name], check=True)
    wait_for(slurm.is_idle, "cancelled jobs to end", 60)
    run_in(folder, *TOO_LITTLE, "--unlock").finish(120)

    run = run_in(folder, *TOO_LITTLE)
    run.until(lambda: running(slurm, "pretrain"), "pretraining")
    time.sleep(3)
    run.end(signal.SIGINT)
    wait_for(slurm.is_idle, "jobs that Ctrl-C cancels to end", 60)
    record.said["interrupted"] = run.said()
    record.seen["left by SIGINT"] = alive(slurm)

    run = run_in(folder, *TOO_LITTLE)
    cancelled = run.until(lambda: running(slurm, "finetune"), "fine-tuning")[0]
    subprocess.run(["scancel", str(cancelled.number)], check=True)
    record.seen["cancelled"] = cancelled

    def settled():
        """Jobs run, of which none is at its start, and the controller has saved all it knows."""
        moments = [m for job in slurm.jobs() for m in (job.submitted, job.start, job.end)]
        # What is expected to end stands there, too.
        last = max(moment for moment in moments if moment <= time.time())
        # At its start a job asks the controller for its step, for minutes if it is not there.
        saved = slurm.saved() > last + 1 and time.time() > last + 4
        return saved and running(slurm, "finetune")

    run.until(settled, "moment when all is saved")
    slurm.kill_controller()
    time.sleep(15)
    slurm.start_controller()
    run.finish()
    record.said["to the end"] = run.said()
    record.jobs = slurm.jobs()
    return record


def run_id(said):
    """The name of a run's jobs, as Snakemake prints it."""
    return said.split("SLURM run ID: ")[1].split()[0]
