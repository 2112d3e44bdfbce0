"""Threads, memory, time and GPUs of each rule, for the pages on clusters.

They are those of Snakemake's own dry run of the embedded study with all extras.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml
from marks import table

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ["config/demo/config.yaml", "config/demo/five.yaml"]
HEAD = ["rule", "threads", "`mem_mb`", "`runtime`, minutes", "GPUs"]
JOB = re.compile(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", re.M)


@dataclass(frozen=True)
class Asked:
    """The resources of a rule's job; amounts that follow from its input are None."""

    threads: int
    memory_mb: int | None
    runtime: int | None
    gpus: int


def plan(attempt: int) -> str:
    """Ask Snakemake for its plan, as if each job were at its n-th attempt."""
    with tempfile.TemporaryDirectory() as folder:
        sheet = Path(folder, "config/demo/samples.tsv")
        sheet.parent.mkdir(parents=True)
        shutil.copy(ROOT / "config/demo/samples.tsv", sheet)
        command = ["snakemake", "--dry-run", "--cores=64", f"--attempt={attempt}"]
        command += ["--snakefile", ROOT / "Snakefile", "--directory", folder]
        # Extras that the demo does without.
        more = Path(folder, "more.yaml")
        command += ["--configfile", *CONFIGS, more]
        text = ""
        for motifs in ("fast", "pyscenic"):
            more.write_text(f"grn: {{loom: true, method: grnboost2, motifs: {motifs}}}\n")
            text += run(command)
        return text


def run(command: Sequence[str | Path]) -> str:
    """Run Snakemake in the repository and return what it prints.

    Raises
    ------
    SystemExit
        With its message, if it fails.
    """
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


def asked(text: str) -> dict[str, Asked]:
    """Read the resources of the jobs of each rule; rules that Snakemake runs itself have none.

    Raises
    ------
    ValueError
        If two jobs of a rule ask for different things.
    """
    found: dict[str, Asked] = {}
    for rule, body in JOB.findall(text):
        values = dict(re.findall(r"(\w+)=([^,\s]+)", body))
        if "mem_mb" not in values:
            continue
        threads = re.search(r"threads: (\d+)", body)
        job = Asked(
            threads=int(threads[1]) if threads else 1,
            memory_mb=amount(values["mem_mb"]),
            runtime=amount(values["runtime"]),
            gpus=int(values.get("gpu", 0)),
        )
        if found.setdefault(rule, job) != job:
            raise ValueError(f"jobs of {rule} ask for {found[rule]} and for {job}")
    return found


def amount(text: str) -> int | None:
    """Read an amount."""
    return None if text == "<TBD>" else int(text)


def grown(first: int | None, second: int | None) -> str:
    """Say how an amount grows with a job's attempts."""
    if first is None or second is None:
        return "from the pilot"
    return f"{first:,}" if first == second else f"{first:,} × attempt"


def blocks() -> dict[str, str]:
    """Lay out the table, in the order of the rules' files."""
    with ThreadPoolExecutor() as pool:
        first, second = map(asked, pool.map(plan, (1, 2)))
    files = re.findall('include: "(.*)"', (ROOT / "Snakefile").read_text())
    text = "".join((ROOT / file).read_text() for file in files)
    first = dict(sorted(first.items(), key=lambda row: text.index(f"rule {row[0]}:")))
    rows = [
        [
            *(rule, str(job.threads), grown(job.memory_mb, second[rule].memory_mb)),
            *(grown(job.runtime, second[rule].runtime), str(job.gpus or "")),
        ]
        for rule, job in first.items()
    ]
    on_gpu = [rule for rule, job in first.items() if job.gpus]
    by_name = {rule: {"slurm_partition": "my_gpu_partition"} for rule in on_gpu}
    by_gres = {rule: {"gpu": 0, "gres": "gpu:1"} for rule in on_gpu}
    return {
        "rules": table(HEAD, rows),
        "partition": settings(by_name),
        "gres": settings(by_gres),
    }


def settings(resources: dict[str, dict[str, str | int]]) -> str:
    """Write rules' resources as a profile has them."""
    text = yaml.safe_dump({"set-resources": resources}, sort_keys=False)
    return f"```yaml\n{text}```"
