"""Protocol between the benchmark and its workers: one repetition per line of standard input."""

import json
import resource
import sys
import time

import torch


def serve(repeat, n_cells, device):
    """Repeat the measurement for each line read, and print seconds, cells and memory."""
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        repeat()
        seconds = time.perf_counter() - begun
        answer = {"seconds": seconds, "cells": n_cells, "peak_gib": measure_peak_gib(device)}
        print(json.dumps(answer), flush=True)


def measure_peak_gib(device):
    """Measure the peak memory of the process so far, of the GPU if it runs there."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return torch.cuda.max_memory_allocated() / 2**30
