"""The index of docs/files.md: the files of each rule, from a dry run."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from marks import make_table
from rule_resources import CONFIGS, JOB, run

HEADING = re.compile(r"^### (.+)$", re.M)
# Files that are no outputs of the embedded study's rules: the report, files in folders that are
# outputs, temporary files, and parts of a run.
NO_OUTPUT = re.compile(
    r"report\.html|.*/checkpoints|.*\.parts|tokens/{corpus}/.*"
    r"|.*/model/(predictions|validation)\.parquet|.*-of-{parts}\.npz"
)


def make_pattern(name: str) -> re.Pattern[str]:
    """Make the regular expression of a path with words in braces."""
    before_a_suffix = re.sub(r"\\\{\w+\\\}(?=\\\.)", "[^/.]+", re.escape(name))
    return re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", before_a_suffix) + "$")


def list_planned() -> dict[str, list[str]]:
    """List the outputs of each rule of the embedded study with all optional rules."""
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


def make_index(page: str) -> str:
    """Lay out the files of each rule.

    Raises
    ------
    SystemExit
        If a file has no section on the page, or no rule writes the file of a section.
    """
    named = [name for heading in HEADING.findall(page) for name in re.findall("`(.+?)`", heading)]
    rules = list_planned()
    outputs = [path for paths in rules.values() for path in paths]
    unsaid = [path for path in outputs if not any(make_pattern(name).match(path) for name in named)]
    gone = [
        name
        for name in named
        if not NO_OUTPUT.fullmatch(name) and not any(map(make_pattern(name).match, outputs))
    ]
    if unsaid or gone:
        raise SystemExit(
            f"docs/files.md: no section describes {unsaid}; no rule writes {gone}. "
            "Each output of a rule needs a section."
        )
    body = []
    for rule, paths in rules.items():
        files = (name for name in named if any(map(make_pattern(name).match, paths)))
        body.append([rule, ", ".join(f"`{name}`" for name in dict.fromkeys(files))])
    return make_table(["rule", "files"], sorted(body), text=2)
