"""The talk between the benchmark and its workers: one repetition a line on standard input."""

import json
import resource
import sys
import time


def serve(repeat, n_cells):
    """Repeat what is measured at each line read, and answer with seconds, cells and memory."""
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        repeat()
        seconds = time.perf_counter() - begun
        # The most the process has held so far, in GiB.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"seconds": seconds, "cells": n_cells, "peak_gib": peak}), flush=True)
