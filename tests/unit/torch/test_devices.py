"""Where the model runs, and by how many processes, as the config says and as the machine has it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import scdyn
from scdyn import machine
from scdyn.errors import InputError
from scdyn.training import devices, distributed

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(scdyn.__file__).parents[1])}


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch, tmp_path):
    """Whatever this machine has."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(machine, "list_gpus", list)
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(machine, "FIRST_GPU", tmp_path / "nvidia0")
    for name in (machine.VISIBLE, devices.TAKEN):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)


def test_a_gpu_that_is_asked_for_and_is_not_there_is_refused(monkeypatch):
    monkeypatch.setenv(devices.VARIABLE, "gpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(InputError, match=r"device is gpu .* \(CUDA_VISIBLE_DEVICES is 3"):
        devices.choose_device()


@pytest.mark.parametrize(("asked", "said"), [("auto", "no GPU found"), ("cpu", "device: cpu")])
def test_the_cpu_is_taken_where_there_is_no_gpu_or_none_is_wanted(monkeypatch, caplog, asked, said):
    monkeypatch.setenv(devices.VARIABLE, asked)
    with caplog.at_level("INFO", logger="scdyn"):
        assert devices.choose_device() == torch.device("cpu")
    assert caplog.messages[0].startswith(f"{said}: running on the CPU with")


@pytest.mark.parametrize(
    ("cuda", "why"),
    [
        (None, "it is a build without CUDA; install a build for CUDA"),
        ("13.0", "the driver is too old for CUDA 13.0, or this job or container has no"),
    ],
)
def test_a_driver_that_torch_cannot_use_is_an_error_unless_the_cpu_is_wanted(
    monkeypatch, cuda, why
):
    machine.DRIVER.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.82.01\n")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setenv(devices.VARIABLE, "auto")
    with pytest.raises(InputError, match=r"has NVIDIA's driver 470.82.01") as error:
        devices.choose_device()
    assert why in str(error.value) and "set device: cpu" in str(error.value)
    with pytest.raises(InputError, match="driver"):
        distributed.take_processes(1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # which is the user's wish
    assert devices.choose_device() == torch.device("cpu")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv(devices.VARIABLE, "cpu")
    assert devices.choose_device() == torch.device("cpu")


JOB = """
import os, sys
from scdyn.training import devices
devices.take_gpus(int(sys.argv[1]))
devices.take_gpus(1)  # what is taken stays
# Another program takes this one's place, as torchrun does.
waits = "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); sys.stdin.read()"
os.execv(sys.executable, [sys.executable, "-c", waits])
"""


def test_jobs_side_by_side_take_gpus_of_their_own_until_they_end(tmp_path):
    environment = ENVIRONMENT | {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b,GPU-c"}
    environment |= {"TMPDIR": str(tmp_path)}

    def start(n):
        job = subprocess.Popen(
            [sys.executable, "-c", JOB, str(n)], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        return job, job.stdout.readline().strip()

    first, taken = start(1)
    assert taken == "GPU-a"
    second, taken = start(2)
    assert taken == "GPU-b,GPU-c"
    shared, taken = start(1)
    assert taken == "GPU-a"
    assert "0 of 3 GPUs are not in use by other jobs" in shared.communicate()[1]
    first.kill()  # however it ends
    first.communicate()
    last, taken = start(2)
    assert taken == "GPU-a,GPU-b"
    assert "1 of 3 GPUs" in last.communicate()[1]
    second.communicate()


def test_a_gpu_is_one_whatever_it_is_called(tmp_path, monkeypatch):
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(devices, "list_gpus", lambda: ["GPU-a", "GPU-b"])
    monkeypatch.setattr(devices, "_locks", [])
    assert devices.lock("GPU-a")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    devices.take_gpus(1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    for handle in devices._locks:
        os.close(handle)


FAULTS = """
import resource, sys
import torch
from torch import nn
from scdyn.training import devices
if sys.argv[1] == "kept":
    devices.keep_memory()
model = nn.Sequential(nn.Linear(64, 1024), nn.GELU(), nn.Linear(1024, 64))
cells = torch.ones(10_000, 64)
faults = []
for _ in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    model(cells).sum().backward()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
# The heap grows in the first steps.
print(sorted(faults[6:])[3])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_of_large_tensors_is_taken_from_the_system_once():
    plain = {name: value for name, value in ENVIRONMENT.items() if "MALLOC" not in name}
    faults = {}
    for how in ("kept", "given back"):
        run = subprocess.run(
            [sys.executable, "-c", FAULTS, how], env=plain, capture_output=True, check=True
        )
        faults[how] = int(run.stdout)
    assert faults["kept"] < 10 < 1000 < faults["given back"]


def test_several_nodes_are_started_by_slurm_and_refused_without_it():
    command = distributed.torchrun(2, 4, 8, "4711")
    assert command[0] == "srun" and {"--nodes=2", "--ntasks=2", "--cpus-per-task=8"} < set(command)
    assert {"--nnodes=2", "--nproc-per-node=4", "--rdzv-id=4711"} < set(command)
    assert distributed.torchrun(1, 4, 8, None)[-1] == "--standalone"
    with pytest.raises(InputError, match="nodes is 2, but this is not a Slurm job"):
        distributed.torchrun(2, 4, 8, None)
