"""Cost of each kind of operation, for scdyn.training.cost: ``make bench-costs``.

Trains and runs models of four sizes on one core, and fits the time per operation of each kind,
relative to a large matrix product, to the CPU time, which other load on the machine hardly affects.
Measured with all instructions of this machine and, if it has AVX-512, without. Writes
``results/costs.json``.
"""

import json
import sys
import time
from statistics import median

import numpy as np
import ours
import torch
from bench import AVX2, HERE, describe_machine, find_instructions, read_commit, run_json
from scipy.optimize import nnls
from sizes import EXPRESSED_SHARE, MASK_SHARE, SIZES

from scdyn.training import cost, devices

NARROW = {"n_genes": 1500, "n_tfs": 120, "n_latents": 64, "n_layers": 4, "ffn_width": 128}


def time_calls(function, n_times):
    """Return the median CPU time of a call, after one call that is not counted."""
    times = []
    for _ in range(n_times + 1):
        begun = time.process_time()
        function()
        times.append(time.process_time() - begun)
    return median(times[1:])


def measure(size, n_times):
    """Measure operations and seconds per cell, of training and inference."""
    step, n_cells, model = ours.training_step(size, "cpu")
    n_masked = round(MASK_SHARE * (1 - (1 - EXPRESSED_SHARE) ** 2) * model.config.n_genes)
    yield (
        "train",
        model.config.count_training_operations(n_masked),
        time_calls(step, n_times) / n_cells,
    )
    forward, _ = ours.infer(size, None, "cpu")
    yield "infer", model.config.count_operations(), time_calls(forward, n_times) / n_cells


def measure_all():
    torch.set_num_threads(1)
    devices.keep_memory()
    rate, rows = cost.measure_product_rate(), []
    for size, n_times in (("32 wide", 9), ("S", 5), ("M", 3), ("F", 1)):
        if size not in SIZES:
            SIZES[size] = NARROW | {"batch": 16}
        ours.WIDTH, ours.N_HEADS = (32, 4) if size == "32 wide" else (96, 12)
        for what, operations, measured in measure(size, n_times):
            rows.append({"what": what, "size": size, "seconds": measured, **vars(operations)})
    terms = np.array([[row[kind] for kind in vars(operations)] for row in rows])
    measured = np.array([row["seconds"] for row in rows])
    # Minimise relative errors, so that all sizes have equal weight.
    fitted, _ = nnls(terms / rate / measured[:, None], np.ones(len(rows)))
    for row, counted in zip(rows, terms, strict=True):
        row["fitted"] = float(counted @ fitted / rate)
        row["estimated"] = cost.estimate_cpu_seconds(type(operations)(*counted), rate, 1)
    return {
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "rate": rate,
        "costs": dict(zip(vars(operations), fitted, strict=True)),
        "rows": rows,
    }


def main():
    if sys.argv[1:] == ["one"]:
        print(json.dumps(measure_all()))
        return
    found = []
    has_avx512 = find_instructions("cpu", {}) != find_instructions("cpu", AVX2)
    for limit in ({}, AVX2) if has_avx512 else ({},):
        costs = run_json("costs.py", "one", limit=limit)
        found.append(costs | {"commit": read_commit(), "machine": describe_machine()})
    output = HERE / "results" / "costs.json"
    output.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written to {output}; run make docs to update the pages")


if __name__ == "__main__":
    main()
