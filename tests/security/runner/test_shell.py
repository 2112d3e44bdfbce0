"""Promise: a shell runs no name; folders are quoted where that is ours, and refused elsewhere.

Runs in the runner's environment. The rules themselves are run in such a folder, on such files, by
tests/workflow/test_hostile_names.py.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scdyn.config import check_environments_folder
from scdyn.errors import InputError

ROOT = Path(__file__).parents[3]
MARKS = ["'", '"', "`", "$", "\\", "\n"]
DEFINITION = (
    f"dependencies:\n  - python={sys.version_info.major}.{sys.version_info.minor}\n  - pip\n"
)


def run(*words, **options):
    return subprocess.run(words, capture_output=True, text=True, **options)


@pytest.mark.parametrize("mark", MARKS)
def test_no_environment_is_made_where_a_shell_acts_on_the_name(tmp_path, mark):
    with pytest.raises(InputError, match="special character .* give another folder"):
        check_environments_folder(tmp_path / f"a{mark}b" / "conda")
    (tmp_path / "env.yaml").write_text(DEFINITION)
    prefix = tmp_path / f"a{mark}b"
    command = [ROOT / "tools/venv-conda/bin/conda", "env", "create", "-p", prefix, "-f"]
    answer = run(*command, tmp_path / "env.yaml")
    assert answer.returncode and "no environment can be made in a folder with" in answer.stderr
    assert not prefix.exists()


def test_a_folder_of_environments_may_have_a_space(tmp_path):
    check_environments_folder(tmp_path / "a b;c&d" / "conda")
    (tmp_path / "env.yaml").write_text(DEFINITION)
    prefix = tmp_path / "a b"
    conda = ROOT / "tools/venv-conda/bin/conda"
    answer = run(conda, "env", "create", "-p", prefix, "-f", tmp_path / "env.yaml")
    assert not answer.returncode, answer.stderr
    activate = json.loads(run(conda, "info", "--json").stdout)["conda_prefix"] + "/bin/activate"
    # As Snakemake writes it; pip is a program that begins with a line of its path.
    answer = run("bash", "-c", f"source {activate} '{prefix}'; pip --version; echo $CONDA_PREFIX")
    assert str(prefix) in answer.stdout.splitlines()[0], answer.stderr
    assert answer.stdout.splitlines()[1] == str(prefix)
