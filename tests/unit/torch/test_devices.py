"""Where the model runs, as the config says and as the machine has it."""

import pytest
import torch

from scdyn import devices
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
