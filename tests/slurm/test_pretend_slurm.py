"""The Slurm of these tests touches no other, and is gone when they end, even if they are killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pretend_slurm
import pytest
from pretend_slurm import PretendSlurm, wait_for

HERE = Path(__file__).parent
# Start it where the test says, and wait to be killed.
START = """
import sys, time
from pathlib import Path
import pretend_slurm
pretend_slurm.CONF, pretend_slurm.LOCK = Path(sys.argv[1]), Path(sys.argv[2])
with pretend_slurm.PretendSlurm(sys.argv[3]):
    print("started", flush=True)
    time.sleep(600)
"""
UNPRIVILEGED = """
import os
import pretend_slurm
os.setuid(65534)
pretend_slurm.PretendSlurm("folder")
"""


# A job's, by which it is told from other programs.
SECONDS = "611.7"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Its link and its lock in other places, so that it can start beside the one of other tests."""
    monkeypatch.setattr(pretend_slurm, "CONF", tmp_path / "etc/slurm.conf")
    monkeypatch.setattr(pretend_slurm, "LOCK", tmp_path / "lock")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "etc/slurm.conf"))
    (tmp_path / "etc").mkdir()
    return tmp_path


def programs(folder):
    """Numbers of the running programs that were started with a folder's settings."""
    found = subprocess.run(["pgrep", "-f", f"{folder}/"], capture_output=True, text=True)
    return [int(number) for number in found.stdout.split() if int(number) != os.getpid()]


def sleeping():
    return subprocess.run(["pgrep", "-fx", f"sleep {SECONDS}"], capture_output=True).stdout


def test_it_is_gone_when_a_test_fails(elsewhere):
    folder = elsewhere / "slurm"
    with pytest.raises(ZeroDivisionError), PretendSlurm(folder) as slurm:
        assert slurm.is_idle()
        assert len(programs(folder)) >= 4
        subprocess.run(["sbatch", "--wrap", f"sleep {SECONDS}"], cwd=elsewhere, check=True)
        wait_for(sleeping, "a job")
        _ = 1 / 0
    assert not programs(folder)
    assert not sleeping()
    assert not list((elsewhere / "etc").iterdir())


def test_what_killed_tests_have_left_is_ended_by_the_next(elsewhere):
    first, second = elsewhere / "first", elsewhere / "second"
    arguments = [pretend_slurm.CONF, pretend_slurm.LOCK, first]
    process = subprocess.Popen(
        [sys.executable, "-c", START, *arguments], cwd=HERE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"started\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert programs(first)
    with PretendSlurm(second) as slurm:
        assert slurm.is_idle()
        time.sleep(1)
        assert not programs(first)
    assert not programs(second)


def test_another_slurm_is_left_alone(elsewhere):
    pretend_slurm.CONF.write_text("ClusterName=real\n")
    with pytest.raises(RuntimeError, match="will not touch .*slurm.conf"):
        PretendSlurm(elsewhere / "slurm").__enter__()
    assert pretend_slurm.CONF.read_text() == "ClusterName=real\n"


def test_two_at_once_are_refused(elsewhere):
    with (
        PretendSlurm(elsewhere / "slurm"),
        pytest.raises(RuntimeError, match="is running already"),
    ):
        PretendSlurm(elsewhere / "other").__enter__()


def test_without_root_it_says_so():
    done = subprocess.run([sys.executable, "-c", UNPRIVILEGED], cwd=HERE, capture_output=True)
    assert b"run it as root" in done.stderr
