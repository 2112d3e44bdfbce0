"""Time of a training step, and its lower bounds by operations and memory: prints JSON.

``python floors.py SIZE DEVICE``. The bounds are the operations of all matrix products divided by
the rate of one large product, and the bytes that do not stay in a cache divided by the rate of one
large copy, both measured on this device. Such bytes are tensors saved for the backward pass
(written and read once), and weights, gradients and two moments (read and written once). On a CPU,
CPU time on one core is measured, which other load on the machine hardly affects.
"""

import json
import sys
import time

import ours
import torch
from sizes import EXPRESSED_SHARE, MASK_SHARE
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from scdyn.model.architecture import ModelConfig
from scdyn.model.layers import attend
from scdyn.training import devices

N_TIMES = 3
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
}


def time_calls(function, device):
    """Return the median time of a call, after one call that is not counted."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    times = []
    for _ in range(N_TIMES + 1):
        begun = clock()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - begun)
    return sorted(times[1:])[N_TIMES // 2]


def measure_ceilings(device):
    """Measure the operations per second of a large product and bytes per second of a large copy."""
    n = 8192 if device == "cuda" else 2048
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    a, b = torch.randn(2, n, n, device=device, dtype=dtype)
    source = torch.randn(2**30 if device == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    return {
        "operations_per_second": 2 * n**3 / time_calls(lambda: a @ b, device),
        "bytes_per_second": 2 * source.nbytes / time_calls(lambda: target.copy_(source), device),
    }


def count_floors(step, n_cells, model):
    """Count the operations of a step's products, and the bytes that it must move."""
    saved = []

    def keep(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            saved.append(tensor)  # keep it, so that its memory is not reused
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in saved}
    weights = sum(p.nbytes for p in model.parameters())
    # A share of the genes that are not zero in either modality is masked.
    n_masked = round(MASK_SHARE * (1 - (1 - EXPRESSED_SHARE) ** 2) * model.config.n_genes)
    operations = model.config.count_training_operations(n_masked)
    return {
        "operations": n_cells * (operations.products + operations.attention),
        "bytes": 2 * sum(storages.values()) + 2 * 4 * weights,
        "exponentials": count_exponentials(model.config, n_cells),
    }


def count_exponentials(config: ModelConfig, n_cells):
    """Count the exponentials of the softmax, forward and backward, without the last layer's few."""
    n_latents = [min(config.n_latents, n) for n in (config.n_tfs, config.n_genes)]
    per_gene = config.n_heads * sum(n_latents[i % 2] for i in range(config.n_layers - 1))
    return 2 * n_cells * config.n_genes * per_gene


def time_attention(config, n_cells, device):
    """Time one Full layer's attention, forward and backward, with each implementation."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    head_width = config.width // config.n_heads
    shape = (n_cells, config.n_genes, config.n_heads, head_width)
    queries = torch.randn(shape, device=device, dtype=dtype, requires_grad=True)
    shape = (n_cells, config.n_latents, head_width)
    latents = torch.randn(shape, device=device, dtype=dtype, requires_grad=True)

    def both():
        attend(queries, latents).backward(queries)

    found = {"as trained": time_calls(both, device)}
    for name, backend in BACKENDS.items():
        try:
            with sdpa_kernel(backend):
                found[name] = time_calls(both, device)
        except RuntimeError:  # does not support this device or shape
            found[name] = None
    return found


def profile_step(step, device):
    """Profile a step: share of its time per operation, the largest twelve."""
    activities = [ProfilerActivity.CPU]
    activities += [ProfilerActivity.CUDA] if device == "cuda" else []
    with profile(activities=activities) as profiler:
        step()
    key = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    times = {event.key: getattr(event, key) for event in profiler.key_averages()}
    total = sum(times.values())
    largest = sorted(times, key=times.get, reverse=True)[:12]
    return {name: times[name] / total for name in largest}


def main():
    size, device = sys.argv[1:]
    if device == "cpu":
        devices.keep_memory()
        torch.set_num_threads(1)
    step, n_cells, model = ours.training_step(size, device)
    found = {"size": size, "cells": n_cells, "seconds": time_calls(step, device)}
    found |= {"split": profile_step(step, device), "ceilings": measure_ceilings(device)}
    found["attention_seconds"] = time_attention(model.config, n_cells, device)
    found |= count_floors(ours.training_step(size, device, compiled=False)[0], n_cells, model)
    rates = found["ceilings"]
    found["floor_seconds"] = {
        "operations": found["operations"] / rates["operations_per_second"],
        "bytes": found["bytes"] / rates["bytes_per_second"],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
