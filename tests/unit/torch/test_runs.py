"""Whole runs of training in processes of their own: killed, shared, compiled, in bfloat16."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scdyn import kernels

PROGRAM = Path(__file__).with_name("small_run.py")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(kernels.__file__).parents[2])}


def start(folder, *settings, launcher=(), environment=None):
    folder.mkdir(exist_ok=True)
    command = [sys.executable, *launcher, str(PROGRAM), str(folder), *settings]
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(command, env=environment or ENVIRONMENT, stderr=log)


def finish(folder, *settings, **options):
    process = start(folder, *settings, **options)
    assert process.wait(timeout=300) == 0, (folder / "log.txt").read_text()
    history = json.loads((folder / "history.json").read_text())
    return load_file(folder / "model.safetensors"), history


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Weights and history of a run that nothing interrupts."""
    return finish(tmp_path_factory.mktemp("straight"))


def assert_same(weights, others, **tolerance):
    for name, weight in weights.items():
        if tolerance:
            torch.testing.assert_close(weight, others[name], **tolerance)
        else:
            assert torch.equal(weight, others[name]), name


def test_a_run_killed_anywhere_ends_with_the_same_weights(straight, tmp_path):
    reached = []
    for n_more in (2, 9, 17):  # in the first, second and fourth of five epochs of eight steps
        before = reached[-1] if reached else 0
        process = start(tmp_path)
        while True:
            steps = [int(p.name[5:]) for p in (tmp_path / "checkpoints").glob("step-*")]
            if max(steps, default=0) >= before + n_more:
                break
            assert process.poll() is None, (tmp_path / "log.txt").read_text()
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = sorted((tmp_path / "checkpoints").glob("step-*"))
        assert 1 <= len(kept) <= 3  # two, and a third if it was killed before the oldest went
        reached.append(int(kept[-1].name[5:]))
    assert reached == sorted(reached) and reached[-1] < 40
    weights, history = finish(tmp_path)
    assert_same(straight[0], weights)
    for one, other in zip(straight[1], history, strict=True):
        assert one["loss"] == other["loss"] and one["masked_loss"] == other["masked_loss"]
    records = (tmp_path / "checkpoints" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(record) for record in records] == history
    assert len(list((tmp_path / "checkpoints").glob("step-*"))) == 2


def test_a_damaged_checkpoint_is_passed_over(straight, tmp_path):
    process = start(tmp_path)
    while len(list((tmp_path / "checkpoints").glob("step-*"))) < 2:
        time.sleep(0.001)
    process.kill()
    process.wait()
    newest = max((tmp_path / "checkpoints").glob("step-*"))
    (newest / "state.safetensors").write_bytes(b"cut short")
    assert_same(straight[0], finish(tmp_path)[0])


@pytest.mark.parametrize("launcher", [(), ("-m", "torch.distributed.run", "--nproc-per-node=2")])
def test_two_processes_train_what_one_does(tmp_path, launcher):
    alone, history = finish(tmp_path / "alone", "micro_batch=4")
    settings = ["micro_batch=4"] if launcher else ["micro_batch=4", "n_processes=2"]
    together, joint = finish(tmp_path / "together", *settings, launcher=launcher)
    # Gradients are summed in another order.
    assert_same(alone, together, rtol=1e-3, atol=1e-4)
    assert [record["step"] for record in joint] == [record["step"] for record in history]
    assert joint[-1]["masked_loss"] == pytest.approx(history[-1]["masked_loss"], rel=1e-3)


def test_a_batch_too_small_for_the_gpus_is_refused(tmp_path):
    process = start(tmp_path, "batch_size=1", "n_processes=2")
    assert process.wait(timeout=300) != 0
    assert "InputError: training: a batch of 1" in (tmp_path / "log.txt").read_text()


def test_bfloat16_trains_and_keeps_float32_weights(straight, tmp_path):
    weights, history = finish(tmp_path, 'precision="bfloat16"')
    assert all(weight.dtype == torch.float32 for weight in weights.values())
    assert history[-1]["masked_loss"] == pytest.approx(straight[1][-1]["masked_loss"], rel=0.03)
    assert any(not torch.equal(weight, straight[0][name]) for name, weight in weights.items())


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_layers_train_what_eager_ones_do(tmp_path):
    plain = ENVIRONMENT | {"SCDYN_KERNELS": "0"}
    settings = ("epochs=1", "dropout=0")  # dropout draws other numbers within compiled code
    eager, _ = finish(tmp_path / "eager", *settings, environment=plain)
    compiled, _ = finish(tmp_path / "compiled", *settings, "compiled=true", environment=plain)
    assert list(compiled) == list(eager)
    assert_same(eager, compiled, rtol=1e-3, atol=1e-4)
