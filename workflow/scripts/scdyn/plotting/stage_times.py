"""Time per stage of a run, from Snakemake's record of each job."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from scdyn.log import format_duration


class JobTime(NamedTuple):
    """Rule, start and end of a job, in seconds since the epoch."""

    rule: str
    begun: float
    ended: float


def read_jobs(folder: str | Path, since: float) -> list[JobTime]:
    """Read the jobs that ended since a time.

    Parameters
    ----------
    folder
        Snakemake's records, one per output: ``.snakemake/metadata``.
    since
        Seconds since the epoch; jobs that began earlier belong to another run.

    Returns
    -------
    list of JobTime
        One per job, in order of their start. Records that cannot be read are skipped.
    """
    jobs: dict[tuple[str, ...], JobTime] = {}
    # Snakemake splits long names of outputs into folders.
    for path in Path(folder).rglob("*"):
        try:
            record = json.loads(path.read_text())
            job = JobTime(record["rule"], float(record["starttime"]), float(record["endtime"]))
            key = (job.rule, *record["log"])
        except (OSError, ValueError, TypeError, KeyError):
            continue
        if job.begun >= since:
            known = jobs.get(key, job)
            jobs[key] = JobTime(job.rule, min(job.begun, known.begun), max(job.ended, known.ended))
    return sorted(jobs.values(), key=lambda job: job.begun)


def summarise(jobs: Iterable[JobTime], stages: Mapping[str, str]) -> str:
    """Summarise the time per stage.

    Parameters
    ----------
    jobs
        Jobs of one run.
    stages
        Rule to its stage, in the order of the stages.

    Returns
    -------
    str
        A line per stage: number of jobs, sum of their times (jobs may run in parallel), and the
        rule with the largest share. Empty without jobs.
    """
    jobs = list(jobs)
    if not jobs:
        return ""
    rows = [("stage", "jobs", "total time", "longest rule")]
    for stage in dict.fromkeys(stages.values()):
        by_rule: dict[str, list[float]] = {}
        for job in jobs:
            if stages.get(job.rule) == stage:
                by_rule.setdefault(job.rule, []).append(job.ended - job.begun)
        if by_rule:
            longest = max(by_rule, key=lambda rule: sum(by_rule[rule]))
            seconds = [time for times in by_rule.values() for time in times]
            rows.append((stage, str(len(seconds)), format_duration(sum(seconds)), longest))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"  {stage:{widths[0]}}  {number:>{widths[1]}}  {time:>{widths[2]}}  {longest}"
        for stage, number, time, longest in rows
    ]
    took = format_duration(max(job.ended for job in jobs) - jobs[0].begun)
    return "\n".join([f"{len(jobs)} jobs in {took}:", *lines])
