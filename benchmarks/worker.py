"""The talk between the benchmark and its workers: one repetition a line on standard input."""

import json
import resource
import sys
import time

import torch


def serve(repeat, n_cells, device):
    """Repeat what is measured at each line read, and answer with seconds, cells and memory."""
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        repeat()
        seconds = time.perf_counter() - begun
        answer = {"seconds": seconds, "cells": n_cells, "peak_gib": peak_gib(device)}
        print(json.dumps(answer), flush=True)


def peak_gib(device):
    """The most memory that the process has held so far, on the GPU if it works there."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return torch.cuda.max_memory_allocated() / 2**30
