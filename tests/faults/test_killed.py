"""A run that is killed outright, at any moment, and started again."""

import os
import random
import re
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import STAGES, command, differences, lay_out, log_of, remove, snakemake

N_KILLS = 30
LONGEST_WAIT = 8.0


def start(folder, log, *options):
    """Start a study in a process group of its own."""
    with log.open("w") as output:
        return subprocess.Popen(
            command(folder, *options), stdout=output, stderr=output, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def progress(log):
    """Jobs that a run has finished, and how many it has to do; None before it knows."""
    text = log.read_text()
    total = re.search(r"^total +(\d+)", text, re.MULTILINE)
    done = re.findall(r"^(\d+) of \d+ steps", text, re.MULTILINE)
    return (int(done[-1]) if done else 0, int(total[1])) if total else None


def processes_in(folder):
    """Processes that work in a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if Path(os.readlink(place)) == folder:
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


def jobs_in(folder, rule):
    """Processes that work on a rule's script in a folder."""
    found = []
    for pid in processes_in(folder):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        # The shell that started the script has its name in its command, too.
        if words[0].endswith("python") and words[-2].endswith(f".{rule}.py"):
            found.append(pid)
    return found


def wait_for(what, seconds=120):
    """Wait until a function returns something, and return it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def kill(process, folder):
    """Kill a run with all its jobs, as a power cut would, and see them gone."""
    with suppress(ProcessLookupError):  # it may just have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not processes_in(folder))


def leftovers(folder):
    """Temporary names under the results."""
    return [p for p in (folder / "results").rglob(".*") if p.name != ".snakemake_timestamp"]


@pytest.mark.slow
def test_a_study_killed_thirty_times_ends_as_one_that_was_not(finished, tmp_path):
    folder, log = lay_out(tmp_path / "study"), tmp_path / "log.txt"
    draw = random.Random(30)
    n_jobs, killed = None, []
    # Spread over the run by the jobs that are done; then some seconds more, in which jobs start,
    # work, write and end, or Snakemake itself is about to start.
    for share in sorted(draw.random() for _ in range(N_KILLS)):
        wait = draw.uniform(0, LONGEST_WAIT)
        process = start(folder, log)
        while process.poll() is None:
            seen = progress(log)
            if seen:
                n_jobs = n_jobs or seen[1]
                if n_jobs - (seen[1] - seen[0]) >= share * n_jobs:
                    break
            elif killed and killed[-1] >= share:
                break
            time.sleep(0.05)
        assert process.poll() is None, log.read_text()[-4000:]
        time.sleep(wait)
        kill(process, folder)
        seen = progress(log)
        killed.append(1 - (seen[1] - seen[0]) / n_jobs if seen else (killed or [0])[-1])
        if any(folder.glob(".snakemake/locks/*")):
            freed = snakemake(folder, "--unlock")
            assert freed.returncode == 0, freed.stdout
    assert len(killed) == N_KILLS and killed[0] < 0.2 and killed[-1] > 0.8
    done = snakemake(folder)
    assert done.returncode == 0, done.stdout[-4000:]
    assert differences(finished, folder) == []
    assert leftovers(folder) == []
    assert "Nothing to be done" in snakemake(folder, "--dry-run").stdout


def test_a_job_that_the_system_kills_for_its_memory_is_run_again(study, stages, tmp_path):
    model = STAGES["finetune"]
    log, checkpoints = tmp_path / "log.txt", (study / model).with_name("checkpoints")
    remove(study / model)
    process = start(study, log, model, "--notemp", "--retries", "1")
    wait_for(lambda: list(checkpoints.glob("step-*")))
    (job,) = jobs_in(study, "finetune")
    os.kill(job, signal.SIGKILL)
    assert process.wait() == 0, log.read_text()[-4000:]
    first, second = map(int, re.findall(r"mem_mb=(\d+)", log.read_text()))
    assert second == pytest.approx(2 * first, abs=2)
    assert "resuming from step" in (study / log_of("finetune", model)).read_text()
    assert differences(stages, study) == [] and leftovers(study) == []


def test_jobs_that_outlive_snakemake_do_no_harm(study, stages, tmp_path):
    model, log = STAGES["finetune"], tmp_path / "log.txt"
    remove(study / model)
    process = start(study, log, model, "--notemp")
    wait_for(lambda: jobs_in(study, "finetune"))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert jobs_in(study, "finetune")
    snakemake(study, "--unlock")
    run = snakemake(study, model, "--notemp")
    assert run.returncode == 0, run.stdout[-3000:]
    wait_for(lambda: not processes_in(study))
    assert differences(stages, study) == [] and leftovers(study) == []
