"""Attention and feed-forward for the CPU, compiled where a C compiler is found.

Both give what torch gives (tests hold them to float64) without writing scores or hidden layers to
memory. The C source beside this file is compiled for the machine at hand at first use, which
takes about two seconds, and is never required: without a compiler the model runs in torch alone.
``SCDYN_KERNELS=0`` in the environment asks for that.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from scdyn.log import logger

SOURCE = Path(__file__).parent
FLAGS = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC"]
# Floats of the kernels' vectors, of which the feed-forward's widths must be multiples.
LANES = 16
# Sums are taken part by part; how many parts decides their last bits, threads do not.
N_PARTS = 16


@cache
def library(name: str, *definitions: str) -> ctypes.CDLL | None:
    """Compile and load the kernels of one source file.

    Parameters
    ----------
    name
        ``attention`` or ``feed_forward``.
    definitions
        Macros, ``NAME=value``.

    Returns
    -------
    CDLL or None
        None where they are switched off or could not be compiled or loaded; the log says why.
    """
    if os.environ.get("SCDYN_KERNELS") == "0":
        return None
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        logger.info("no C compiler found: %s runs in torch alone, which is slower", name)
        return None
    macros = [f"-D{definition}" for definition in definitions]
    compilation = [compiler, *FLAGS, *macros, "-c", str(SOURCE / f"{name}.c"), "-o", "kernel.o"]
    # Linked without -fopenmp: the threads it asks for are then torch's own.
    linking = [compiler, "-shared", "kernel.o", "-lm", "-o", "kernel.so"]
    with tempfile.TemporaryDirectory(prefix="scdyn-") as folder:
        try:
            for command in (compilation, linking):
                subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
            return ctypes.CDLL(str(Path(folder) / "kernel.so"))
        except subprocess.CalledProcessError as error:
            reason = (error.stderr.strip().splitlines() or ["no message"])[0]
        except OSError as error:
            reason = str(error)
    logger.info("%s could not be compiled (%s) and runs in torch alone", name, reason)
    return None


def attention_library(head_width: int) -> ctypes.CDLL | None:
    """Return the attention kernels for heads of one width."""
    return library("attention", f"HEAD_WIDTH={head_width}")


def feed_forward_method(hidden: int, width: int) -> Callable[..., Tensor] | None:
    """Return the fastest way to run a feed-forward network here, None if that is torch's own."""
    if library("feed_forward") and hidden % LANES == width % LANES == 0:
        return FeedForward.apply
    backward = torch.is_grad_enabled()
    if torch.backends.mkldnn.is_available() and not (backward or torch.compiler.is_compiling()):
        return onednn_feed_forward
    return None


def onednn_feed_forward(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """Run :class:`FeedForward` by oneDNN, which comes with torch; without gradients.

    Torch leaves float32 products to MKL, which is half as fast on processors not Intel's.
    """
    x, w1, b1, w2, b2 = (tensor.to_mkldnn() for tensor in (x, w1, b1, w2, b2))
    hidden = functional.gelu(functional.linear(x, w1, b1))
    return functional.linear(hidden, w2, b2).to_dense()


def on_float32_cpu(tensor: Tensor) -> bool:
    """Tell whether a tensor is of the kind that the kernels take."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def _call(kernels: ctypes.CDLL | None, name: str, *arguments: Tensor | int | None) -> None:
    """Call a C function with tensors as pointers, integers as long, and torch's thread count."""
    if kernels is None:
        raise RuntimeError(f"{name} is not compiled: ask for its library before it is used")
    converted: list[ctypes.c_void_p | ctypes.c_long] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            converted.append(ctypes.c_void_p(argument.data_ptr()))
        else:
            converted.append(ctypes.c_void_p() if argument is None else ctypes.c_long(argument))
    function = getattr(kernels, name)
    function.restype = None
    function(*converted, ctypes.c_long(torch.get_num_threads()))


class Attention(torch.autograd.Function):
    """Softmax attention of queries (B, Q, D) to latents (B, L, D) that are keys and values."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, latents: Tensor) -> Tensor:
        """Return (B, Q, D)."""
        queries, latents = queries.contiguous(), latents.contiguous()
        output, logsumexp = torch.empty_like(queries), queries.new_empty(queries.shape[:2])
        n_cells, n_queries, head_width = queries.shape
        _call(
            *(attention_library(head_width), "attend_forward"),
            *(queries, latents, output, logsumexp),
            *(n_cells, n_queries, latents.shape[1], N_PARTS),
        )
        ctx.save_for_backward(queries, latents, output, logsumexp)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of queries and latents."""
        queries, latents, output, logsumexp = ctx.saved_tensors
        n_cells, n_queries, head_width = queries.shape
        grad_queries = torch.empty_like(queries)
        grad_latents = latents.new_empty(n_cells, N_PARTS, *latents.shape[1:])
        _call(
            *(attention_library(head_width), "attend_backward"),
            *(queries, latents, output, logsumexp, grad_output.contiguous()),
            *(grad_queries, grad_latents),
            *(n_cells, n_queries, latents.shape[1], N_PARTS),
        )
        return grad_queries, grad_latents.sum(1)


class FeedForward(torch.autograd.Function):
    """gelu(x W1' + b1) W2' + b2 of rows (N, W) with H hidden units."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        """Return (N, W) from w1 (H, W), b1 (H,), w2 (W, H), b2 (W,)."""
        x, w1, b1, w2, b2 = (tensor.contiguous() for tensor in (x, w1, b1, w2, b2))
        output = torch.empty_like(x)
        _call(
            *(library("feed_forward"), "feed_forward"),
            *(x, w1, b1, w2, b2, output),
            *(*x.shape, len(w1)),
        )
        ctx.save_for_backward(x, w1, b1, w2)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x and, where any of them is wanted, of the weights."""
        x, w1, b1, w2 = ctx.saved_tensors
        grad_output, grad_x = grad_output.contiguous(), torch.empty_like(x)
        grad_w1 = grad_b1 = grad_w2t = None
        if any(ctx.needs_input_grad[1:]):
            grad_w1, grad_w2t = w1.new_zeros(2, N_PARTS, *w1.shape)
            grad_b1 = b1.new_zeros(N_PARTS, len(b1))
        _call(
            *(library("feed_forward"), "feed_forward_backward"),
            *(x, w1, b1, w2, grad_output, grad_x, grad_w1, grad_b1, grad_w2t),
            *(*x.shape, len(w1), N_PARTS),
        )
        if grad_w1 is None or grad_b1 is None or grad_w2t is None:
            return grad_x, None, None, None, None
        # Contiguous: of a transposed view the optimiser's first step would make a copy.
        grad_w2 = grad_w2t.sum(0).t().contiguous()
        return grad_x, grad_w1.sum(0), grad_b1.sum(0), grad_w2, grad_output.sum(0)
