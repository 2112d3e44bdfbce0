"""The compiled kernels against torch in float64, and without them the same model."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from scdyn import kernels
from scdyn.model import ModelConfig, ScDynOmics, feed_forward

compiled = pytest.mark.skipif(
    kernels.library("feed_forward") is None, reason="no C compiler makes the kernels here"
)


def relative_error(result, exact):
    return ((result.double() - exact).norm() / exact.norm()).item()


def gradients(function, tensors, grad_output):
    """Output and gradients of a function of tensors."""
    tensors = [tensor.detach().requires_grad_() for tensor in tensors]
    output = function(*tensors)
    return [output, *torch.autograd.grad(output, tensors, grad_output.to(output))]


def compare(function, reference, tensors, grad_output, names):
    """Hold a kernel's errors to those that torch makes in float32 (differences cancel digits)."""
    exact = gradients(reference, [tensor.double() for tensor in tensors], grad_output)
    found = gradients(function, tensors, grad_output)
    torchs = gradients(reference, tensors, grad_output)
    for name, a, b, c in zip(["output", *names], found, torchs, exact, strict=True):
        error, usual = relative_error(a, c), relative_error(b, c)
        print(f"{name}: relative error {error:.2g}, torch's {usual:.2g}")
        assert error < 4 * usual + 2e-6, name


@compiled
@pytest.mark.parametrize("head_width", [4, 8, 16, 24])
@pytest.mark.parametrize("n_latents", [1, 16, 63])
@pytest.mark.parametrize("size", [0.1, 3.0])
def test_attention_equals_float64(head_width, n_latents, size):
    torch.manual_seed(head_width + n_latents)
    queries = size * torch.randn(3, 101, head_width)  # neither a multiple of a group
    latents = size * torch.randn(3, n_latents, head_width)

    def reference(q, k):
        return torch.softmax(q @ k.transpose(1, 2) / head_width**0.5, -1) @ k

    if n_latents == 1:  # the softmax is one, so the queries' gradient is zero
        output = kernels.Attention.apply(queries, latents)
        torch.testing.assert_close(output, latents.expand_as(queries))
        return
    names = ["queries", "latents"]
    grad_output = torch.randn(3, 101, head_width)
    compare(kernels.Attention.apply, reference, (queries, latents), grad_output, names)


@compiled
@pytest.mark.parametrize(("width", "hidden"), [(96, 768), (64, 128), (16, 80), (32, 48)])
@pytest.mark.parametrize("n_rows", [1, 64, 1001])
def test_feed_forward_equals_float64(width, hidden, n_rows):
    torch.manual_seed(n_rows)
    shapes = [(n_rows, width), (hidden, width), (hidden,), (width, hidden), (width,)]
    scales = [3.0, width**-0.5, 1.0, hidden**-0.5, 1.0]
    tensors = [scale * torch.randn(shape) for shape, scale in zip(shapes, scales, strict=True)]

    def reference(x, w1, b1, w2, b2):
        return functional.linear(functional.gelu(functional.linear(x, w1, b1)), w2, b2)

    names = ["x", "w1", "b1", "w2", "b2"]
    grad_output = torch.randn(n_rows, width)
    compare(kernels.FeedForward.apply, reference, tensors, grad_output, names)


def test_without_gradients_and_kernels_onednn_gives_the_same(monkeypatch):
    monkeypatch.setattr(kernels, "library", lambda *_: None)
    torch.manual_seed(0)
    inner, outer = torch.nn.Linear(96, 768), torch.nn.Linear(768, 96)
    tokens = torch.randn(3, 50, 96)
    exact = outer.double()(functional.gelu(inner.double()(tokens.double()))).detach()
    inner.float(), outer.float()
    with torch.no_grad():
        assert relative_error(feed_forward(tokens, inner, outer), exact) < 2e-6
    assert relative_error(feed_forward(tokens, inner, outer), exact) < 2e-6


@compiled
def test_only_the_input_wants_a_gradient():
    torch.manual_seed(0)
    x = torch.randn(70, 16, requires_grad=True)
    weights = torch.randn(32, 16), torch.randn(32), torch.randn(16, 32), torch.randn(16)
    frozen = torch.autograd.grad(kernels.FeedForward.apply(x, *weights).sum(), x)[0]
    trained = [weight.clone().requires_grad_() for weight in weights]
    full = torch.autograd.grad(kernels.FeedForward.apply(x, *trained).sum(), x)[0]
    assert torch.equal(frozen, full)


@compiled
def test_not_a_number_is_not_hidden():
    queries, latents = torch.randn(1, 20, 8), torch.randn(1, 5, 8)
    latents[0, 3, 2] = float("nan")
    assert kernels.Attention.apply(queries, latents).isnan().any(-1).all()
    x = torch.zeros(3, 16)
    x[1] = float("nan")
    weights = torch.randn(16, 16), torch.zeros(16), torch.randn(16, 16), torch.zeros(16)
    output = kernels.FeedForward.apply(x, *weights)
    assert output[1].isnan().all() and output[[0, 2]].isfinite().all()


@compiled
def test_results_do_not_depend_on_the_number_of_threads():
    torch.manual_seed(0)
    queries, latents = torch.randn(2, 500, 8), torch.randn(2, 40, 8)
    weights = torch.randn(48, 16), torch.randn(48), torch.randn(16, 48), torch.randn(16)
    cases = [
        (kernels.Attention.apply, (queries, latents), torch.randn(2, 500, 8)),
        (kernels.FeedForward.apply, (torch.randn(900, 16), *weights), torch.randn(900, 16)),
    ]
    before = torch.get_num_threads()
    for function, tensors, grad_output in cases:
        results = []
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            results.append(gradients(function, tensors, grad_output))
        torch.set_num_threads(before)
        for one, two in zip(*results, strict=True):
            assert torch.equal(one, two)


PROGRAM = """
import sys
import torch
from scdyn.model import ModelConfig, ScDynOmics

torch.manual_seed(0)
model = ScDynOmics(ModelConfig(40, 9, width=32, n_layers=2, n_heads=4, n_latents=7, ffn_width=64))
rna = torch.arange(120).reshape(3, 40) % 7
output = model.eval()(rna, rna // 2)
output.square().sum().backward()
grads = [p.grad for p in model.parameters() if p.grad is not None]
torch.save([output.detach(), *grads], sys.argv[1])
"""


@compiled
def test_the_model_is_the_same_without_the_kernels(tmp_path, monkeypatch):
    results = []
    for value in ("0", "1"):
        monkeypatch.setenv("SCDYN_KERNELS", value)
        monkeypatch.setenv("PYTHONPATH", str(Path(kernels.__file__).parents[2]))
        path = tmp_path / f"{value}.pt"
        subprocess.run([sys.executable, "-c", PROGRAM, str(path)], check=True)
        results.append(torch.load(path, weights_only=True))
    for plain, fast in zip(*results, strict=True):
        torch.testing.assert_close(plain, fast, rtol=1e-4, atol=1e-4)


def test_without_a_compiler_the_model_runs_all_the_same(monkeypatch, caplog):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CC", "cc")
    kernels.library.cache_clear()
    try:
        with caplog.at_level("INFO", logger="scdyn"):
            config = ModelConfig(20, 5, width=16, n_layers=2, n_heads=2, n_latents=4, ffn_width=16)
            rna = torch.ones(1, 20, dtype=torch.uint8)
            assert ScDynOmics(config).eval()(rna, rna).isfinite().all()
        assert "no C compiler" in caplog.text
    finally:
        kernels.library.cache_clear()
