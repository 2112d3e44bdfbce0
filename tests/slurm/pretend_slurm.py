"""A real Slurm of two pretend nodes with a pretend GPU each, on this machine.

All of it stands in one folder but for a link from /etc/slurm/slurm.conf, where Slurm's programs
look inside a job: the executor hands on no variable named SLURM_..., thus no SLURM_CONF either.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

CONF = Path("/etc/slurm/slurm.conf")
LOCK = Path("/tmp/scdyn-test-slurm.lock")
MARK = "# Written by tests/slurm; gone when these tests end.\n"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "sinfo", "squeue")
NODES = ("node1", "node2")
# More than there are: a job asks for what its data may need at most, and uses little here.
CPUS, MEMORY_MB = 16, 1_000_000

# Memory is enforced without cgroups: what a step uses is read once a second.
SETTINGS = """\
ClusterName=pretend
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SchedulerParameters=batch_sched_delay=1,sched_interval=5
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
MinJobAge=86400
KillWait=10
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
PartitionName=cpu Nodes={nodes} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={nodes} MaxTime=INFINITE State=UP
"""
NODE = (
    "NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={cpus} "
    "RealMemory={memory} Gres=gpu:1\n"
)


@dataclass(frozen=True)
class Job:
    """What Slurm recorded of a job; times in seconds, -1 where there is none yet."""

    number: int
    rule: str
    wildcards: str
    state: str
    partition: str
    submitted: float
    start: float
    end: float
    nodes: str
    n_nodes: int
    n_cpus: int
    n_gpus: int
    memory_mb: int


class PretendSlurm:
    """Starts when entered, ends when left, and leaves nothing behind but its folder.

    Raises
    ------
    RuntimeError
        If it cannot be: without root or the programs, beside another Slurm, or twice at once.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        missing = sorted(program for program in PROGRAMS if not find(program))
        if os.getuid():
            raise RuntimeError("make test-slurm starts a Slurm of its own: run it as root.")
        if missing:
            raise RuntimeError(
                f"make test-slurm needs {', '.join(missing)}: apt-get install "
                "--no-install-recommends slurm-wlm munge."
            )

    def __enter__(self):
        self.stack = ExitStack()
        try:
            self.lock()
            self.write_settings()
            self.start_munge()
            self.stack.callback(self.stop, "slurmctld")
            self.start_controller()
            for name in NODES:
                self.stack.callback(self.stop, f"slurmd.{name}")
                self.start("slurmd", "-N", name)
            wait_for(self.is_idle, f"two idle nodes (see {self.folder}/*.log)")
            self.stack.callback(self.end_jobs)
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_):
        self.stack.close()

    def lock(self):
        lock = self.stack.enter_context(LOCK.open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError("make test-slurm is running already on this machine.") from None

    def write_settings(self):
        if os.path.lexists(CONF):
            if not CONF.is_symlink() or (CONF.exists() and MARK not in CONF.read_text()):
                raise RuntimeError(
                    f"make test-slurm starts a Slurm of its own and will not touch {CONF}, which "
                    "is not of its making: run it on another machine."
                )
            # Of tests that were killed: their Slurm may still run.
            before, self.folder = self.folder, CONF.readlink().parent
            for name in (*(f"slurmd.{name}" for name in NODES), "slurmctld", "munge/"):
                self.stop(name)
            self.folder = before
            CONF.unlink()
        for name in ("state", "munge", *(f"spool.{name}" for name in NODES)):
            (self.folder / name).mkdir(parents=True)
        controller, *ports = free_ports(1 + len(NODES))
        text = MARK
        for name, port in zip(NODES, ports, strict=True):
            text += NODE.format(name=name, port=port, cpus=CPUS, memory=MEMORY_MB)
        text += SETTINGS.format(folder=self.folder, port=controller, nodes=",".join(NODES))
        (self.folder / "slurm.conf").write_text(text)
        # A device of no use stands for a GPU.
        (self.folder / "gpu0").symlink_to("/dev/null")
        gres = (f"NodeName={name} Name=gpu File={self.folder}/gpu0\n" for name in NODES)
        (self.folder / "gres.conf").write_text("".join(gres))
        CONF.parent.mkdir(exist_ok=True)
        CONF.symlink_to(self.folder / "slurm.conf")
        self.stack.callback(CONF.unlink)

    def start_munge(self):
        folder = self.folder / "munge"
        (folder / "key").write_bytes(secrets.token_bytes(1024))
        (folder / "key").chmod(0o400)
        options = [
            f"--{option}={folder}/{name}"
            for option, name in (
                ("key-file", "key"),
                ("socket", "socket"),
                ("pid-file", ".pid"),
                ("seed-file", "seed"),
                ("log-file", "log"),
            )
        ]
        self.stack.callback(self.stop, "munge/")
        subprocess.run([find("munged"), "--force", *options], check=True)
        wait_for((folder / "socket").exists, "munged")

    def start(self, program, *options):
        # Each of them goes into the background once it is up.
        subprocess.run([find(program), "-f", self.folder / "slurm.conf", *options], check=True)

    def start_controller(self):
        self.start("slurmctld")

    def kill_controller(self):
        """End it as a crash would: nothing is saved, nobody is told."""
        os.kill(int((self.folder / "slurmctld.pid").read_text()), signal.SIGKILL)

    def saved(self):
        """Time when the controller last wrote down its jobs; it does so every five seconds."""
        return (self.folder / "state/job_state").stat().st_mtime

    def stop(self, name):
        """End a program by its file of that name, with force if it does not go by itself."""
        file = self.folder / f"{name}.pid"
        if not file.exists() or str(self.folder) not in command_of(int(file.read_text())):
            return
        number = int(file.read_text())
        for sign, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 1)):
            for step in range(seconds * 10):
                try:
                    os.kill(number, sign if step == 0 else 0)
                except ProcessLookupError:
                    return
                time.sleep(0.1)

    def end_jobs(self):
        subprocess.run(["scancel", "--user=root"], check=False, timeout=60)
        wait_for(self.is_idle, "jobs to end", 60)

    def is_idle(self):
        """Tell whether all nodes are up and none of them has a job."""
        asked = subprocess.run(["sinfo", "-hN", "-o", "%N %T"], capture_output=True, text=True)
        return set(asked.stdout.split("\n")) == {*(f"{name} idle" for name in NODES), ""}

    def jobs(self):
        """All jobs so far, waiting, running or ended, in the order of their submission."""
        shown = subprocess.run(
            ["scontrol", "show", "job", "--details", "--oneliner"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return [job_from(line) for line in shown.stdout.splitlines() if line.startswith("JobId=")]


def command_of(number):
    """The command of a process; after a restart its number may be another's, or nobody's."""
    file = Path(f"/proc/{number}/cmdline")
    return file.read_text() if file.exists() else ""


def job_from(line):
    """Read a job from Slurm's own words for it."""
    values = dict(part.split("=", 1) for part in line.split() if "=" in part)
    # The executor's comment is rule_NAME_wildcards_VALUES.
    rule, _, wildcards = values.get("Comment", "").removeprefix("rule_").partition("_wildcards_")
    return Job(
        number=int(values["JobId"]),
        rule=rule,
        wildcards=wildcards,
        state=values["JobState"],
        partition=values["Partition"],
        submitted=seconds_of(values["SubmitTime"]),
        start=seconds_of(values["StartTime"]),
        end=seconds_of(values["EndTime"]),
        nodes=values["NodeList"],
        n_nodes=int(values["NumNodes"].split("-")[0]),
        n_cpus=int(values["NumCPUs"].split("-")[0]),
        n_gpus=sum(map(int, re.findall(r"gpu:(?:\w+:)?(\d+)", values.get("JOB_GRES", "")))),
        memory_mb=megabytes_of(values["MinMemoryNode"]),
    )


def seconds_of(text):
    return -1.0 if text == "Unknown" else datetime.fromisoformat(text).timestamp()


def megabytes_of(text):
    number = float(text.rstrip("MG"))
    return round(number * 1024 if text.endswith("G") else number)


def find(program):
    """Full path of a program; Debian keeps some where a user's PATH does not look."""
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for(condition, what, seconds=30):
    """Wait until a condition holds; what it was waited for is said if it never does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.2)
