"""Where a training step's time goes, against what it must compute and move: prints JSON.

``python floors.py SIZE DEVICE``. The floors are those of the step as it is written: the products'
operations over the rate of one large product, and the bytes that cannot stay in a cache (what the
backward pass needs is written and read once; a weight, its gradient and its two moments are read
and written once each) over the rate of one large copy, both measured on this device. On a CPU all
is measured on one core by the processor's time, which other work on the machine hardly changes.
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
from scdyn.model.transformer import attend
from scdyn.training import devices

N_TIMES = 3
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
}


def seconds(function, device):
    """Median time of a call, after one that is not counted."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    times = []
    for _ in range(N_TIMES + 1):
        begun = clock()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - begun)
    return sorted(times[1:])[N_TIMES // 2]


def ceilings(device):
    """Operations and bytes a second of one large product and of one large copy."""
    n = 8192 if device == "cuda" else 2048
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    a, b = torch.randn(2, n, n, device=device, dtype=dtype)
    source = torch.randn(2**30 if device == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    return {
        "operations_per_second": 2 * n**3 / seconds(lambda: a @ b, device),
        "bytes_per_second": 2 * source.nbytes / seconds(lambda: target.copy_(source), device),
    }


def floors(step, n_cells, model):
    """Operations of a step's products, and the fewest bytes that it moves."""
    saved = []

    def keep(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            saved.append(tensor)  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in saved}
    weights = sum(p.nbytes for p in model.parameters())
    # Hidden genes are a share of those that either modality has.
    n_predicted = round(MASK_SHARE * (1 - (1 - EXPRESSED_SHARE) ** 2) * model.config.n_genes)
    operations = model.config.count_training_operations(n_predicted)
    return {
        "operations": n_cells * (operations.products + operations.attention),
        "bytes": 2 * sum(storages.values()) + 2 * 4 * weights,
        "exponentials": exponentials(model.config, n_cells),
    }


def exponentials(config: ModelConfig, n_cells):
    """Exponentials of the softmax, forward and again backward; the last layer's are few."""
    n_latents = [min(config.n_latents, n) for n in (config.n_tfs, config.n_genes)]
    per_gene = config.n_heads * sum(n_latents[i % 2] for i in range(config.n_layers - 1))
    return 2 * n_cells * config.n_genes * per_gene


def attention_times(config, n_cells, device):
    """Seconds, forward and backward, of one Full layer's attention by each way there is."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    head_width = config.width // config.n_heads
    shape = (n_cells, config.n_genes, config.n_heads, head_width)
    queries = torch.randn(shape, device=device, dtype=dtype, requires_grad=True)
    shape = (n_cells, config.n_latents, head_width)
    latents = torch.randn(shape, device=device, dtype=dtype, requires_grad=True)

    def both():
        attend(queries, latents).backward(queries)

    found = {"as trained": seconds(both, device)}
    for name, backend in BACKENDS.items():
        try:
            with sdpa_kernel(backend):
                found[name] = seconds(both, device)
        except RuntimeError:  # not for this device or shape
            found[name] = None
    return found


def split(step, device):
    """Share of a step's time by operation, the largest twelve."""
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
    found = {"size": size, "cells": n_cells, "seconds": seconds(step, device)}
    found |= {"split": split(step, device), "ceilings": ceilings(device)}
    found["attention_seconds"] = attention_times(model.config, n_cells, device)
    found |= floors(ours.training_step(size, device, compiled=False)[0], n_cells, model)
    rates = found["ceilings"]
    found["floor_seconds"] = {
        "operations": found["operations"] / rates["operations_per_second"],
        "bytes": found["bytes"] / rates["bytes_per_second"],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
