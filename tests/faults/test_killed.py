"""A run that is killed outright, at any moment, and started again."""

import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import command, differences, lay_out, snakemake

N_KILLS = 30
LONGEST_WAIT = 8.0


def start(folder, log):
    """Start a study in a process group of its own."""
    with log.open("w") as output:
        return subprocess.Popen(
            command(folder), stdout=output, stderr=output, start_new_session=True,
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


def kill(process, folder):
    """Kill a run with all its jobs, as a power cut would, and see them gone."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(100):
        if not processes_in(folder):
            return
        time.sleep(0.1)
    raise AssertionError(f"processes {processes_in(folder)} of the run are still there")


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
        if any((folder / ".snakemake/locks").iterdir()):
            freed = snakemake(folder, "--unlock")
            assert freed.returncode == 0, freed.stdout
    assert len(killed) == N_KILLS and killed[0] < 0.2 and killed[-1] > 0.8
    done = snakemake(folder)
    assert done.returncode == 0, done.stdout[-4000:]
    assert differences(finished, folder) == []
    assert leftovers(folder) == []
    assert "Nothing to be done" in snakemake(folder, "--dry-run").stdout
