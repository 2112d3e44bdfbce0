"""Whole runs of training in processes of their own: killed, shared, compiled, in bfloat16."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import scdyn

PROGRAM = Path(__file__).with_name("small_run.py")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(scdyn.__file__).parents[1])}


def start(folder, *settings, launcher=()):
    folder.mkdir(exist_ok=True)
    command = [sys.executable, *launcher, str(PROGRAM), str(folder), *settings]
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(command, env=ENVIRONMENT, stderr=log)


def finish(folder, *settings, **options):
    process = start(folder, *settings, **options)
    assert process.wait(timeout=300) == 0, (folder / "log.txt").read_text()
    history = json.loads((folder / "history.json").read_text())
    return load_file(folder / "model.safetensors"), history


# The score of the held-out cells, by architecture.
SCORES = {"expressed": "cell_loss", "paper": "masked_loss"}


@pytest.fixture(scope="module", params=SCORES)
def architecture(request):
    return request.param


OF_EXPRESSED = pytest.mark.parametrize("architecture", ["expressed"], indirect=True, scope="module")


# Of an odd batch two processes have other numbers of cells.
UNDIVIDED = ("dropout=0", "batch_size=7")


def setting(architecture):
    return f'architecture="{architecture}"'


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
        assert one["loss"] == other["loss"] and one["cell_loss"] == other["cell_loss"]
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


def assert_trained_alike(one, other):
    # Gradients are summed in another order.
    assert_same(one[0], other[0], rtol=1e-3, atol=1e-4)
    assert [record["step"] for record in one[1]] == [record["step"] for record in other[1]]
    for record, counterpart in zip(one[1], other[1], strict=True):
        assert record.keys() == counterpart.keys()
        for score in ("loss", *(set(SCORES.values()) & set(record))):
            assert record[score] == pytest.approx(counterpart[score], rel=1e-3)


@pytest.fixture(scope="module")
def undivided(architecture, tmp_path_factory):
    """A run of one process that takes each step's cells at once, without dropout's own draws."""
    return finish(tmp_path_factory.mktemp("undivided"), setting(architecture), *UNDIVIDED)


def test_two_processes_train_what_one_does(undivided, architecture, tmp_path):
    """In micro-batches of two cells, of which one process has two, and of three."""
    settings = (setting(architecture), *UNDIVIDED, "micro_batch=3", "n_processes=2")
    together = finish(tmp_path, *settings)
    assert_trained_alike(undivided, together)


@OF_EXPRESSED
def test_two_nodes_train_what_one_process_does(undivided, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    nodes = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1",
             "--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}",
             "--local-addr=localhost"]  # fmt: skip
    other = start(tmp_path, *UNDIVIDED, launcher=nodes)
    together = finish(tmp_path, *UNDIVIDED, launcher=nodes)
    assert other.wait(timeout=60) == 0
    assert_trained_alike(undivided, together)


def test_a_batch_too_small_for_the_gpus_is_refused(tmp_path):
    process = start(tmp_path, "batch_size=1", "n_processes=2")
    assert process.wait(timeout=300) != 0
    sentence = "training: a batch of 1 cells cannot be split over 2 GPUs; raise batch_size."
    assert f"InputError: {sentence} [SCD-TRAINING]" in (tmp_path / "log.txt").read_text()


@OF_EXPRESSED
@pytest.mark.parametrize("n_processes", [1, 2])
def test_a_run_asked_to_end_saves_and_goes_on(undivided, tmp_path, n_processes):
    settings = (*UNDIVIDED, f"n_processes={n_processes}")
    process = start(tmp_path, *settings, "checkpoint_seconds=3600", "pause=0.3")
    while not (tmp_path / "started").exists():
        assert process.poll() is None, (tmp_path / "log.txt").read_text()
        time.sleep(0.01)
    assert not list((tmp_path / "checkpoints").glob("step-*"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) != 0
    assert "Interrupted: stopped by a signal after step" in (tmp_path / "log.txt").read_text()
    (saved,) = (tmp_path / "checkpoints").glob("step-*")
    assert 0 < int(saved.name[5:]) < 45
    assert_trained_alike(undivided, finish(tmp_path, *settings))


def test_bfloat16_trains_and_keeps_float32_weights(straight, tmp_path):
    weights, history = finish(tmp_path, 'precision="bfloat16"')
    assert all(weight.dtype == torch.float32 for weight in weights.values())
    assert history[-1]["cell_loss"] == pytest.approx(straight[1][-1]["cell_loss"], rel=0.03)
    assert any(not torch.equal(weight, straight[0][name]) for name, weight in weights.items())


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_layers_train_what_eager_ones_do(tmp_path):
    """Of four layers three are compiled, of both kinds; 64 cells end in a batch of four."""
    # Dropout draws other numbers within compiled code.
    settings = (
        setting("paper"), "epochs=1", "dropout=0", "n_layers=4", "batch_size=12", "micro_batch=5",
    )  # fmt: skip
    eager, _ = finish(tmp_path / "eager", *settings)
    compiled, _ = finish(tmp_path / "compiled", *settings, "compiled=true")
    assert list(compiled) == list(eager)
    assert_same(eager, compiled, rtol=1e-3, atol=1e-4)
