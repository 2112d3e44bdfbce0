"""Files that appear whole or not at all, whatever happens to the process or the disk."""

import errno
import os
import socket
import subprocess
import sys

import pandas as pd
import pytest

from scdyn.errors import InputError
from scdyn.io import files
from scdyn.io.files import atomic, write_json, write_table

HOST = socket.gethostname().partition(".")[0]


@pytest.fixture
def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_raises_leaves_what_stood_there(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(KeyError), atomic(path) as temporary:
        temporary.write_text("half of the ne")
        raise KeyError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["out.txt"]


def test_a_folder_takes_the_place_of_another_as_a_whole(tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").touch()
    with atomic(path) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert os.listdir(path) == ["new"] and os.listdir(tmp_path) == ["out"]


def test_leftovers_of_killed_jobs_go_and_what_others_are_at_stays(tmp_path, dead):
    path = tmp_path / "out.tsv"
    gone = [f".{HOST}-{dead}.out.tsv", f".{HOST}-{dead}-old.out.tsv", ".elsewhere-7.out.tsv"]
    kept = [
        f".{HOST}-{os.getppid()}.out.tsv",  # alive
        f".{HOST}-{dead}.out.tsv.sha256",  # of another output
        f".{HOST}-{dead}.1.out.tsv",
        ".out.tsv",
    ]
    for name in [*gone, *kept]:
        (tmp_path / name).touch()
    (tmp_path / gone[0]).unlink()
    (tmp_path / gone[0]).mkdir()
    with atomic(path) as temporary:
        temporary.touch()
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "out.tsv"])


def test_a_job_that_is_killed_while_it_writes_leaves_nothing_the_next_does_not_remove(tmp_path):
    path = tmp_path / "out.txt"
    work = (
        "import os, signal, sys; from scdyn.io.files import atomic\n"
        "with atomic(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": "workflow/scripts"}
    killed = subprocess.run([sys.executable, "-c", work, path], env=environment)
    assert killed.returncode == -9
    assert not path.exists() and len(os.listdir(tmp_path)) == 1
    with atomic(path) as temporary:
        temporary.write_text("whole")
    assert os.listdir(tmp_path) == ["out.txt"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device.*make room"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "Disk quota exceeded.*make room"),
        (RuntimeError("write failed, errno = 28: No space left on device"), "make room"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), "Read-only file system.*for writing"),
    ],
)
def test_a_disk_that_refuses_is_named_with_the_file_and_what_to_do(tmp_path, error, words):
    with pytest.raises(InputError, match=f"out.tsv: cannot be written .*{words}"):
        with atomic(tmp_path / "out.tsv"):
            raise error
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_to_blame_for_what_its_victim_does_not_explain(tmp_path, monkeypatch):
    usage = files.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage._replace(free=0))
    with pytest.raises(InputError, match="No space left on device"):
        with atomic(tmp_path / "figure.png"):
            raise OSError("encoder error -2 when writing image file")


def test_what_the_disk_is_not_to_blame_for_stays_what_it_is(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic(tmp_path / "out.tsv"):
        _ = 1 / 0
    with (
        pytest.raises(InputError, match=r"^a sentence \[SCD-SHEET\]$"),
        atomic(tmp_path / "out.tsv"),
    ):
        raise InputError("SHEET", "a sentence")


def test_objects_and_tables_are_read_by_anyone(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": 2})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": 2,\n  "b": 1\n}\n'
    write_table(tmp_path / "a.tsv", pd.DataFrame({"a": [1 / 3]}))
    assert (tmp_path / "a.tsv").read_text() == "a\n0.3333333\n"
