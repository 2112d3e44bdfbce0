"""What a machine's GPUs mean for a run on it: found, limited by them, or none."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scdyn import machine

ROOT = Path(__file__).resolve().parents[3]
LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-11111111-aaaa-bbbb-cccc-000000000000)
  MIG 1g.5gb     Device  0: (UUID: MIG-33333333-aaaa-bbbb-cccc-000000000000)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-22222222-aaaa-bbbb-cccc-000000000000)
"""
UUIDS = ["GPU-11111111-aaaa-bbbb-cccc-000000000000", "GPU-22222222-aaaa-bbbb-cccc-000000000000"]


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """An nvidia-smi that lists two GPUs, first on PATH."""
    pretended = tmp_path / "bin" / "nvidia-smi"
    pretended.parent.mkdir()
    pretended.write_text(f"#!/bin/sh\ncat <<'END'\n{LISTED}END\n")
    pretended.chmod(0o755)
    monkeypatch.setenv("PATH", f"{pretended.parent}:{os.environ['PATH']}")
    monkeypatch.delenv(machine.VISIBLE, raising=False)


def test_gpus_are_those_of_nvidia_smi_or_those_the_user_left_visible(two_gpus, monkeypatch):
    assert machine.visible_gpus() == machine.list_gpus() == UUIDS
    assert machine.nvidia_driver() == "driver"
    for told, seen in [("", []), ("-1", []), ("1", ["1"]), ("0, 1", ["0", "1"]), ("1,-1", ["1"])]:
        monkeypatch.setenv(machine.VISIBLE, told)
        assert machine.visible_gpus() == seen
        assert machine.hidden_gpus() == (not seen)


def test_the_driver_is_named_as_linux_has_it(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "list_gpus", list)
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(machine, "FIRST_GPU", tmp_path / "nvidia0")
    assert machine.nvidia_driver() == ""
    machine.FIRST_GPU.touch()
    assert machine.nvidia_driver() == "driver"
    line = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14  Release Build\n"
    machine.DRIVER.write_text(line)
    assert machine.nvidia_driver() == "driver 550.54.14"


def gpus_asked_for(tmp_path, *options):
    """What the plan gives pretraining, whose model asks for four GPUs."""
    more = tmp_path / "more.yaml"
    more.write_text(yaml.safe_dump({"models": {"hybrid": {"gpus": 4}}}))
    plan = subprocess.run(
        ["snakemake", "--dryrun", "--forceall", "--cores", "2",
         "--configfile", "config/demo/config.yaml", more, *options],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "Using workflow specific profile profiles/default" in plan.stderr
    (job,) = [part for part in plan.stdout.split("\n\n") if "rule pretrain:" in part]
    return job.split("gpu=")[1].split(",")[0]


def test_one_machine_gives_away_as_many_gpus_as_it_has(tmp_path, two_gpus, monkeypatch):
    assert gpus_asked_for(tmp_path) == "2"
    assert gpus_asked_for(tmp_path, "--resources", "gpu=3") == "3"
    # None is visible: nothing is limited, and nothing waits for a GPU that never comes.
    monkeypatch.setenv(machine.VISIBLE, "")
    assert gpus_asked_for(tmp_path) == "4"


def test_the_profile_that_is_always_loaded_takes_nothing_from_a_sites_own():
    own = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())
    assert own == {"rerun-incomplete": True, "keep-going": True}


def test_threads_wait_without_spinning_on_the_cpu_alone(two_gpus, monkeypatch):
    def policy(**environment):
        code = "import os, scdyn.training.openmp; print(os.environ.get('OMP_WAIT_POLICY'))"
        own = {key: os.environ[key] for key in os.environ if key != "OMP_WAIT_POLICY"}
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={**own, "PYTHONPATH": str(ROOT / "workflow/scripts"), **environment},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return run.stdout.strip()

    monkeypatch.delenv(machine.VARIABLE, raising=False)
    assert policy() == policy(SCDYN_DEVICE="gpu") == "None"
    assert policy(SCDYN_DEVICE="cpu") == policy(CUDA_VISIBLE_DEVICES="") == "passive"
    assert policy(SCDYN_DEVICE="cpu", OMP_WAIT_POLICY="active") == "active"


def test_scripts_of_torch_say_how_threads_wait_before_torch_is_imported():
    text = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    rules = [part for part in re.split(r"^rule ", text, flags=re.M) if "gpu=" in part]
    assert len(rules) > 5
    for rule in rules:
        script = ROOT / "workflow/scripts" / re.search(r"scripts/(\w+\.py)", rule)[1]
        imports = [n for n in ast.parse(script.read_text()).body if "Import" in type(n).__name__]
        ours = [ast.unparse(node) for node in imports if "scdyn" in ast.unparse(node)]
        assert ours[0] == "import scdyn.training.openmp", script.name


def test_estimates_are_of_the_threads_that_training_asks_for():
    source = (ROOT / "workflow/scripts/scdyn/training/cost.py").read_text()
    (most,) = re.findall(r"^MOST_THREADS = (\d+)$", source, re.M)
    rules = ROOT / "workflow/rules"
    pretraining = (rules / "pretrain.smk").read_text().split("rule pretrain:")[1]
    assert re.search(r"threads: (\d+)", pretraining)[1] == most
    finetuning = (rules / "common.smk").read_text().split("def choose_threads")[1]
    assert re.search(r"return 1 if .* else (\d+)", finetuning)[1] == most
