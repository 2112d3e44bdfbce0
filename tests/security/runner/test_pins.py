"""Promise: every package is pinned, with everything it pulls in, in environments and hooks.

Runs in the runner's environment, and asks the environments of the rules what they hold.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ENVIRONMENTS = sorted([*Path("envs").glob("*.yaml"), Path("tools/audit.yaml")])
# pip, and in an older Python setuptools, come with the Python itself.
OF_PYTHON = {"pip", "setuptools"}
# The CUDA packages of a torch release, which it pins itself (envs/torch.yaml).
OF_TORCH = r"nvidia-.*|cuda-.*|triton"


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path):
    definition = yaml.safe_load(path.read_text())
    *others, packages = definition["dependencies"]
    assert others == ["python=3.11", "pip"]
    return packages["pip"]


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=str)
def test_every_package_is_pinned(path):
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line) for line in pins(path))
    names = [plain(line.split("==")[0]) for line in pins(path)]
    assert len(names) == len(set(names)) > 8


@pytest.fixture(scope="module")
def prefixes():
    listed = subprocess.run(
        [
            *("snakemake", "--configfile", "config/demo/config.yaml", "config/demo/five.yaml"),
            *("--sdm", "conda", "--cores", "1", "--list-conda-envs"),
        ],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    rows = [line.split("\t") for line in listed.splitlines()]
    return {Path(row[0]).stem: Path(row[2]) for row in rows if row[0].startswith("envs/")}


@pytest.mark.parametrize("name", ["analysis", "torch", "grn", "scvi", "runner"])
def test_what_packages_pull_in_is_pinned_too(name, prefixes):
    prefix = Path(".snakemake/runner") if name == "runner" else prefixes[name]
    if not (prefix / "bin/python").exists():
        pytest.skip(f"the environment {name} is not built here")
    listed = subprocess.run(
        # What PYTHONPATH adds, such as coverage's own, is no part of it.
        [prefix / "bin/python", "-E", "-m", "pip", "list", "--format=json"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    # Builds of a release differ in a local part, such as 2.13.0+cpu.
    found = {plain(row["name"]): row["version"].split("+")[0] for row in json.loads(listed)}
    pinned = dict(line.split("==") for line in pins(Path(f"envs/{name}.yaml")))
    pinned = {plain(key): version for key, version in pinned.items()}
    free = {key for key in found.keys() - pinned.keys() if not re.fullmatch(OF_TORCH, key)}
    assert free <= OF_PYTHON
    assert {key: found.get(key) for key in pinned} == pinned


def test_hooks_before_a_commit_are_those_of_make_lint():
    pinned = dict(line.split("==") for line in pins(Path("envs/runner.yaml")))
    hooks = yaml.safe_load(Path(".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    asked = [line.split("==") for hook in hooks for line in hook["additional_dependencies"]]
    assert {name for name, _ in asked} == {"ruff", "snakefmt"}
    assert all(pinned[name] == version for name, version in asked)


def test_exceptions_of_the_audit_have_a_reason():
    for line in Path("tools/audit.ignore").read_text().splitlines():
        if not line.startswith("#"):
            identity, reason = line.split(" ", 1)
            assert re.fullmatch(r"[A-Z]+-[\w-]+", identity) and len(reason) > 20


def test_the_catalogue_is_told_what_works():
    usage = yaml.safe_load(Path(".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) == {"software-stack-deployment", "report"}
    ways = usage["software-stack-deployment"]
    assert set(ways) == {"conda", "apptainer", "apptainer+conda"} and ways["conda"] is True
