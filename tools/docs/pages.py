"""Write the generated blocks of all pages: ``make docs``; only compare them: ``--check``.

All content comes from committed files: JSON of benchmarks and of the demo, settings, rules, tables.
"""

from __future__ import annotations

import argparse
import ast
import csv
import difflib
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import benchmark_tables
import config_keys
import marks
import measured
import notebook
import outputs
import results_tables
import rule_resources
import tutorial

from scdyn.pp.obs_columns import MISSING

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = (
    "latest", "costs", "ingest", "scale", "grn",
    "ablations_demo", "ablations_cortex", "ablations_kang", "ablations_pancreas",
)  # fmt: skip
REFUSAL = """\
`make docs` would change these pages: {names}.
Run `make docs`, check `git diff -- README.md docs config profiles workflow/schemas`, and commit it.
"""


def read_json(path: str) -> Any:
    """Read a committed JSON file."""
    return json.loads((ROOT / path).read_text())


# Pages whose Python is run: where its output is kept, and the command that runs it.
EXECUTED = {
    "tutorial.md": ("docs/figures/outputs.json", "make docs-figures, after make demo,"),
    "notebook.md": ("docs/figures/notebook.json", "make docs-notebook"),
}


def list_pages() -> list[Path]:
    """List all pages."""
    fixed = [ROOT / "README.md", ROOT / "config/README.md", ROOT / "profiles/slurm/README.md"]
    return [*fixed, *sorted((ROOT / "docs").glob("*.md"))]


def tabulate_references() -> str:
    """List the annotation of each of Cell Ranger's references."""
    with (ROOT / "resources/catalogue.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    ranked = {row["genome"] for row in rows if row["kind"] == "rankings"}
    body = [
        [row["reference"], f"`{row['name']}`", row["genome"] if row["genome"] in ranked else "none"]
        for row in rows
        if row["reference"]
    ]
    head = ["reference of Cell Ranger", "annotation", "motif rankings of this build"]
    return marks.make_table(head, sorted(body), text=3)


def list_vulnerabilities() -> str:
    """List the known vulnerabilities that make audit leaves out, with their reasons."""
    lines = (ROOT / "tools/audit.ignore").read_text().splitlines()
    found = [line.split(" ", 1) for line in lines if line and not line.startswith("#")]
    return "\n".join(f"- {identity}: {reason}" for identity, reason in found) or "None so far."


def describe_versions() -> str:
    """Name the oldest supported version of Snakemake, and the one of the tests."""
    (oldest,) = re.findall(r'^min_version\("(.+)"\)$', (ROOT / "Snakefile").read_text(), re.M)
    (pinned,) = re.findall(r"snakemake==(\S+)", (ROOT / "envs/runner.yaml").read_text())
    return f"The Snakefile needs Snakemake {oldest} or later; the tests run with {pinned}."


def tabulate_packages() -> str:
    """List the packages of the library in the order of imports, each with its modules."""
    library = ROOT / "workflow/scripts/scdyn"
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    order = [name.removeprefix("scdyn.") for name in layers["contracts"][0]["layers"]][::-1]
    body = []
    for name in (name for name in order if (library / name).is_dir()):
        text = ast.get_docstring(ast.parse((library / name / "__init__.py").read_text())) or ""
        modules = (path.stem for path in sorted((library / name).glob("[!_]*.py")))
        purpose = text.splitlines()[0].removesuffix(".")
        body.append([f"`scdyn.{name}`", purpose, ", ".join(f"`{module}`" for module in modules)])
    return marks.make_table(["package", "purpose", "modules"], body, text=3)


def make_blocks() -> dict[str, str]:
    """Make the blocks of all pages except docs/files.md, whose index depends on the page."""
    found = {name: read_json(f"benchmarks/results/{name}.json") for name in BENCHMARKS}
    numbers = read_json("docs/figures/numbers.json")
    evaluation = read_json("benchmarks/results/evaluation.json")
    model = read_json("benchmarks/results/model.json")
    costs = found | {"demo": numbers, "evaluation": evaluation}
    return {
        **config_keys.tabulate_keys(),
        **{f"tutorial.{name}": text for name, text in tutorial.make_blocks(numbers).items()},
        **{f"measured.{name}": text for name, text in measured.make_blocks(costs).items()},
        **rule_resources.make_blocks(),
        **results_tables.make_blocks(evaluation),
        "comparison": results_tables.tabulate_comparison(evaluation),
        "model": results_tables.tabulate_model(model),
        "spaces": results_tables.tabulate_spaces(model),
        "speed": benchmark_tables.tabulate_speed(found["latest"]["rows"]),
        "speed.machine": benchmark_tables.describe_machine(found["latest"]),
        "speed.costs": benchmark_tables.tabulate_costs(found["costs"]),
        "speed.errors": benchmark_tables.tabulate_errors(found["latest"]["errors"]),
        "speed.step": benchmark_tables.tabulate_step(found["latest"]["profile"]),
        "ingest.fragments": benchmark_tables.tabulate_fragments(found["ingest"]["rows"]),
        "ingest.samples": benchmark_tables.tabulate_samples(found["ingest"]["rows"]),
        "ingest.machine": benchmark_tables.describe_machine(found["ingest"]),
        "grn.methods": benchmark_tables.tabulate_grn_methods(found["grn"]),
        "grn.speed": benchmark_tables.describe_grn_speed(found["grn"]),
        "grn.regulons": benchmark_tables.tabulate_regulons(found["grn"]),
        "grn.support": benchmark_tables.tabulate_support(found["grn"]),
        "grn.machine": benchmark_tables.describe_machine(found["grn"]),
        **{
            f"ablations.{name}": benchmark_tables.tabulate_ablations(
                found[f"ablations_{name}"]["runs"]
            )
            for name in ("demo", "cortex", "kang", "pancreas")
        },
        "audit": list_vulnerabilities(),
        "packages": tabulate_packages(),
        "references": tabulate_references(),
        "samples": f"```tsv\n{(ROOT / 'config/samples.tsv').read_text()}```",
        "snakemake": describe_versions(),
        "missing": ", ".join(
            f"`{word}`" for word in sorted(MISSING - {""}, key=lambda w: (w.lower(), w))
        ),
    }


def iter_pages() -> Iterator[tuple[Path, str, str]]:
    """Yield each page with its present and its generated text."""
    with ThreadPoolExecutor() as pool:
        index = pool.submit(outputs.make_index, (ROOT / "docs/files.md").read_text())
        found = make_blocks() | {"files": index.result()}
    unused = set(found)
    for page in list_pages():
        text = page.read_text()
        names = {name for _, name, _ in marks.BLOCK.findall(text)}
        if unknown := names - set(found):
            raise SystemExit(f"{page.relative_to(ROOT)}: nothing generates the blocks {unknown}.")
        unused -= names
        new = marks.fill(text, found)
        if page.name in EXECUTED:
            kept, command = EXECUTED[page.name]
            new = notebook.fill_outputs(new, read_json(kept), command)
        yield page, text, new
    for path, new in config_keys.iter_schemas():
        yield path, path.read_text(), new
    if unused:
        raise SystemExit(f"No page has the blocks {sorted(unused)}: add or delete them.")


def main() -> None:
    """Write or compare the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if a page would change")
    check = parser.parse_args().check
    changed = []
    for page, old, new in list(iter_pages()):
        name = str(page.relative_to(ROOT))
        if old != new:
            changed.append(name)
            lines = (text.splitlines(keepends=True) for text in (old, new))
            sys.stdout.writelines(difflib.unified_diff(*lines, name, f"{name} by make docs", n=0))
            if not check:
                page.write_text(new)
    if check and changed:
        raise SystemExit(REFUSAL.format(names=", ".join(changed)))
    print(f"Pages that changed: {', '.join(changed) or 'none'}.")


if __name__ == "__main__":
    main()
