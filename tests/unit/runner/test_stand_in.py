import json
import os
import signal
import subprocess
import sys
import time
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
CONDA = ROOT / "tools/venv-conda/bin/conda"
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
MINIMAL = "channels:\n  - conda-forge\ndependencies:\n  - python={python}\n  - pip\n"


def conda(*words, **options):
    return subprocess.run([CONDA, *words], capture_output=True, text=True, **options)


def create(folder, definition, **options):
    """Ask for an environment; return the answer and the place it was to have."""
    file, prefix = folder / "env.yaml", folder / "prefix"
    file.write_text(definition)
    return conda("env", "create", "--file", file, "--prefix", prefix, **options), prefix


def pins(file):
    """Read an environment as YAML, by other means than the stand-in's."""
    dependencies = yaml.safe_load(file.read_text())["dependencies"]
    (section,) = (d["pip"] for d in dependencies if isinstance(d, dict))
    return dict(requirement.split("==") for requirement in section)


def this_python():
    return "{}.{}".format(*sys.version_info[:2])


@pytest.fixture(scope="module")
def stand_in():
    """Load the program as a module; it has no .py at its end."""
    loader = SourceFileLoader("stand_in", str(CONDA))
    module = module_from_spec(spec_from_loader("stand_in", loader))
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", ENVIRONMENTS, ids=lambda file: file.stem)
def test_reads_the_shipped_environments_as_yaml_does(stand_in, file):
    python, requirements = stand_in.read(file)
    assert python == "3.11"
    assert dict(r.split("==") for r in requirements) == pins(file)


def test_environments_agree_on_what_passes_between_them():
    # What analysis writes torch reads, and the other way round. grn is apart: it is called
    # through its command line, and its pandas and numpy are of another age.
    analysis, torch = (pins(ROOT / f"envs/{name}.yaml") for name in ("analysis", "torch"))
    shared = analysis.keys() & torch.keys()
    assert {"anndata", "numpy", "pandas", "zarr", "scikit-learn", "pytest"} <= shared
    assert {name: analysis[name] for name in shared} == {name: torch[name] for name in shared}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  - samtools=1.21", "'samtools=1.21' needs a real conda"),
        ("  - samtools", "'samtools' needs a real conda"),
        ("  - pip:\n      - numpy", "'numpy' is not pinned"),
        ("  - pip:\n      - numpy>=2", "'numpy>=2' is not pinned"),
        ("  - pip:\n      - --pre", "'--pre' is not pinned"),
        ("  - pip:\n      - six==1.17.0\n  - samtools", "'samtools' needs a real conda"),
        ("prefix: /somewhere", "does not understand 'prefix: /somewhere'"),
    ],
)
def test_refuses_what_it_cannot_install_in_one_sentence(tmp_path, line, said):
    answer, prefix = create(tmp_path, MINIMAL.format(python=this_python()) + line + "\n")
    assert answer.returncode != 0
    assert said in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert "env.yaml, line " in answer.stderr
    assert not prefix.exists()


def test_refuses_a_python_that_is_not_there(tmp_path):
    answer, prefix = create(tmp_path, MINIMAL.format(python="3.1"))
    assert answer.returncode != 0
    assert answer.stderr.strip().endswith("asks for Python 3.1, and no python3.1 is on PATH.")
    assert not prefix.exists()


def test_refuses_a_definition_that_is_not_there(tmp_path):
    file = tmp_path / "none.yaml"
    answer = conda("env", "create", "-f", file, "-p", tmp_path / "prefix")
    assert answer.stderr.strip() == f"{file} cannot be read: No such file or directory."


def test_refuses_an_environment_without_a_python(tmp_path):
    answer, _ = create(tmp_path, "dependencies:\n  - pip\n")
    assert "'python=X.Y' is missing" in answer.stderr


def test_a_failed_installation_leaves_nothing_and_says_why(tmp_path):
    definition = MINIMAL.format(python=this_python()) + "  - pip:\n      - scdyn-nowhere==0\n"
    # Without an index no package can be found, and nothing outside is asked.
    answer, prefix = create(tmp_path, definition, env={**os.environ, "PIP_NO_INDEX": "1"})
    assert answer.returncode != 0
    assert "scdyn-nowhere" in answer.stderr
    assert not prefix.exists()


def test_terminated_in_the_middle_it_leaves_nothing(tmp_path):
    file, prefix = tmp_path / "env.yaml", tmp_path / "prefix"
    file.write_text(MINIMAL.format(python=this_python()))
    running = subprocess.Popen([CONDA, "env", "create", "-f", file, "-p", prefix])
    while running.poll() is None and not prefix.exists():
        time.sleep(0.01)
    running.send_signal(signal.SIGTERM)
    assert running.wait() != 0
    assert not prefix.exists()


def test_never_touches_an_environment_that_is_there(tmp_path):
    (tmp_path / "prefix").mkdir()
    (tmp_path / "prefix/mine").touch()
    answer, prefix = create(tmp_path, MINIMAL.format(python=this_python()))
    assert "exists already" in answer.stderr
    assert (prefix / "mine").exists()


def test_makes_an_environment_that_activates_under_strict_bash(tmp_path):
    answer, prefix = create(tmp_path, MINIMAL.format(python=this_python()))
    assert answer.returncode == 0, answer.stderr
    activate = Path(json.loads(conda("info", "--json").stdout)["conda_prefix"]) / "bin/activate"
    strict = f"set -euo pipefail; source {activate} '{prefix}'; which python; echo $CONDA_PREFIX"
    answer = subprocess.run(["bash", "-c", strict], capture_output=True, text=True)
    assert answer.stdout.splitlines() == [f"{prefix}/bin/python", str(prefix)], answer.stderr


def test_answers_what_snakemake_asks_and_nothing_else():
    assert conda("--version").stdout.count(".") == 2
    priority = json.loads(conda("config", "--get", "channel_priority", "--json").stdout)
    assert priority == {"get": {"channel_priority": "strict"}}
    assert conda("clean", "-y", "--tarballs").returncode == 0
    answer = conda("install", "samtools")
    assert answer.returncode != 0
    assert answer.stderr.strip() == "The stand-in for conda has no 'conda install samtools'."
