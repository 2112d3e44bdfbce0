"""Threads, memory, time and GPUs of each rule, for the pages on clusters.

They come from a dry run of the embedded study with all optional rules.
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
from marks import make_table

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ["config/demo/config.yaml", "config/demo/five.yaml"]
HEAD = ["rule", "threads", "`mem_mb`", "`runtime`, minutes", "GPUs"]
JOB = re.compile(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", re.M)


@dataclass(frozen=True)
class JobResources:
    """The resources of a rule's job; None if they depend on its input."""

    threads: int
    memory_mb: int | None
    runtime: int | None
    gpus: int


def plan_jobs(attempt: int) -> str:
    """Return Snakemake's plan, as if each job were at the given attempt."""
    with tempfile.TemporaryDirectory() as folder:
        sheet = Path(folder, "config/demo/samples.tsv")
        sheet.parent.mkdir(parents=True)
        shutil.copy(ROOT / "config/demo/samples.tsv", sheet)
        command = ["snakemake", "--dry-run", "--cores=64", f"--attempt={attempt}"]
        command += ["--snakefile", ROOT / "Snakefile", "--directory", folder]
        # Optional rules that the demo does not have.
        more = Path(folder, "more.yaml")
        command += ["--configfile", *CONFIGS, more]
        text = ""
        for motifs in ("fast", "pyscenic"):
            more.write_text(f"grn: {{loom: true, method: grnboost2, motifs: {motifs}}}\n")
            text += run(command)
        return text


def run(command: Sequence[str | Path]) -> str:
    """Run Snakemake in the repository and return its output.

    Raises
    ------
    SystemExit
        With Snakemake's output, if it fails.
    """
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


def read_resources(text: str) -> dict[str, JobResources]:
    """Read the resources of each rule's jobs from a plan, except for local rules.

    The memory is None if jobs of a rule request different ones, which follow from their inputs; of
    the others it is the largest request.
    """
    found: dict[str, JobResources] = {}
    for rule, body in JOB.findall(text):
        values = dict(re.findall(r"(\w+)=([^,\s]+)", body))
        if "mem_mb" not in values:
            continue
        threads = re.search(r"threads: (\d+)", body)
        job = JobResources(
            threads=int(threads[1]) if threads else 1,
            memory_mb=read_amount(values["mem_mb"]),
            runtime=read_amount(values["runtime"]),
            gpus=int(values.get("gpu", 0)),
        )
        first = found.setdefault(rule, job)
        times = [each.runtime for each in (first, job)]
        found[rule] = JobResources(
            threads=max(first.threads, job.threads),
            memory_mb=first.memory_mb if first.memory_mb == job.memory_mb else None,
            runtime=None if None in times else max(times),
            gpus=max(first.gpus, job.gpus),
        )
    return found


def read_amount(text: str) -> int | None:
    """Read an amount; None if Snakemake does not know it yet."""
    return None if text == "<TBD>" else int(text)


def format_growth(first: int | None, second: int | None) -> str:
    """Format an amount, given its values at the first and second attempt."""
    if first is None or second is None:
        return "from its inputs"
    return f"{first:,}" if first == second else f"{first:,} × attempt"


def make_blocks() -> dict[str, str]:
    """Make the blocks of the pages, with rules in the order of their files."""
    with ThreadPoolExecutor() as pool:
        first, second = map(read_resources, pool.map(plan_jobs, (1, 2)))
    files = re.findall('include: "(.*)"', (ROOT / "Snakefile").read_text())
    text = "".join((ROOT / file).read_text() for file in files)
    first = dict(sorted(first.items(), key=lambda row: text.index(f"rule {row[0]}:")))
    rows = [
        [
            *(rule, str(job.threads), format_growth(job.memory_mb, second[rule].memory_mb)),
            *(format_growth(job.runtime, second[rule].runtime), str(job.gpus or "")),
        ]
        for rule, job in first.items()
    ]
    on_gpu = [rule for rule, job in first.items() if job.gpus]
    by_name = {rule: {"slurm_partition": "my_gpu_partition"} for rule in on_gpu}
    by_gres = {rule: {"gpu": 0, "gres": "gpu:1"} for rule in on_gpu}
    return {
        "rules": make_table(HEAD, rows),
        "partition": format_settings(by_name),
        "gres": format_settings(by_gres),
    }


def format_settings(resources: dict[str, dict[str, str | int]]) -> str:
    """Format the resources of rules as in a profile."""
    text = yaml.safe_dump({"set-resources": resources}, sort_keys=False)
    return f"```yaml\n{text}```"
