"""The index of docs/files.md: which rule writes which file, by Snakemake's own dry run."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from asked import CONFIGS, JOB, run
from marks import table

HEADING = re.compile(r"^### (.+)$", re.M)
# Not written by a rule of the embedded study: the report, files in folders that are outputs
# themselves, files that are removed again, and those of a run in several parts.
NO_OUTPUT = re.compile(
    r"report\.html|.*/checkpoints|tokens/{corpus}/.*|.*/model/predictions\.tsv|.*-of-{parts}\.tsv"
)


def pattern(name: str) -> re.Pattern[str]:
    """Turn a path with words in braces into the pattern of what it stands for."""
    before_a_suffix = re.sub(r"\\\{\w+\\\}(?=\\\.)", "[^/.]+", re.escape(name))
    return re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", before_a_suffix) + "$")


def planned() -> dict[str, list[str]]:
    """List the outputs of each rule, below results/, of the embedded study with all extras."""
    with tempfile.TemporaryDirectory() as folder:
        more = Path(folder, "more.yaml")
        more.write_text("grn: {loom: true}\n")
        command = ["snakemake", "--dry-run", "--forceall", "--nolock"]
        text = run([*command, "--configfile", *CONFIGS, more])
    found: dict[str, list[str]] = {}
    for rule, body in JOB.findall(text):
        for line in re.findall(r"^    output: (.+)$", body, re.M):
            paths = (path.removesuffix(" (temp)") for path in line.split(", "))
            found.setdefault(rule, []).extend(path.removeprefix("results/") for path in paths)
    return found


def index(page: str) -> str:
    """Lay out the files of each rule.

    Raises
    ------
    SystemExit
        If a file has no section on the page, or a section no file.
    """
    named = [name for heading in HEADING.findall(page) for name in re.findall("`(.+?)`", heading)]
    rules = planned()
    outputs = [path for paths in rules.values() for path in paths]
    unsaid = [path for path in outputs if not any(pattern(name).match(path) for name in named)]
    gone = [
        name
        for name in named
        if not NO_OUTPUT.fullmatch(name) and not any(map(pattern(name).match, outputs))
    ]
    if unsaid or gone:
        raise SystemExit(
            f"docs/files.md: no section describes {unsaid}; no rule writes {gone}. "
            "Each output of a rule has a section there."
        )
    body = []
    for rule, paths in rules.items():
        files = (name for name in named if any(map(pattern(name).match, paths)))
        body.append([rule, ", ".join(f"`{name}`" for name in dict.fromkeys(files))])
    return table(["rule", "files"], sorted(body), text=2)
