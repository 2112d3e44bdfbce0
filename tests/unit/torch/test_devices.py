"""Where the model runs, and by how many processes, as the config says and as the machine has it."""

import pytest
import torch

from scdyn import devices, distributed
from scdyn.errors import InputError


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """Whatever this machine has."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


def test_a_gpu_that_is_asked_for_and_is_not_there_is_refused(monkeypatch):
    monkeypatch.setenv(devices.VARIABLE, "gpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(InputError, match=r"device: gpu is asked .* \(CUDA_VISIBLE_DEVICES is 3"):
        devices.choose_device()


@pytest.mark.parametrize(
    ("asked", "said"), [("auto", "no GPU found"), ("cpu", "as the config says")]
)
def test_the_cpu_is_taken_where_there_is_no_gpu_or_none_is_wanted(monkeypatch, caplog, asked, said):
    monkeypatch.setenv(devices.VARIABLE, asked)
    with caplog.at_level("INFO", logger="scdyn"):
        assert devices.choose_device() == torch.device("cpu")
    assert caplog.messages[0].startswith(f"{said}: running on the CPU with")


def test_several_nodes_are_started_by_slurm_and_refused_without_it():
    command = distributed.torchrun(2, 4, 8, "4711")
    assert command[0] == "srun" and {"--nodes=2", "--ntasks=2", "--cpus-per-task=8"} < set(command)
    assert {"--nnodes=2", "--nproc-per-node=4", "--rdzv-id=4711"} < set(command)
    assert distributed.torchrun(1, 4, 8, None)[-1] == "--standalone"
    with pytest.raises(InputError, match="2 nodes are asked for, but this is no job of Slurm"):
        distributed.torchrun(2, 4, 8, None)
