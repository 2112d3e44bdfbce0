"""What training the configured models will take on this machine's CPU, before it is tried.

Of every model the operations are counted (:mod:`scdyn.model.architecture`), and the machine's rate
of matrix products is measured; what each kind of operation costs against these was fitted to
training and inference at sizes S, M and F of ``benchmarks/sizes.py`` and of a model 32 wide, on one
core of an AMD EPYC, with AVX-512 and with AVX2. ``benchmarks/costs.py`` prints the fit and what
these constants come to: all sixteen times are met within 15%. Two threads were 1.75 times as fast
as one, more were not tried. Take an estimate to a factor of two.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from scdyn.log import format_estimate
from scdyn.machine import VARIABLE, visible_gpus
from scdyn.model.architecture import ModelConfig, Operations
from scdyn.settings import PretrainingSettings

# An operation's time, in those of one operation of a large product.
COST_OF_PRODUCTS, COST_OF_ATTENTION, COST_OF_ELEMENTS = 0.86, 5.0, 120.0
# n threads are as fast as n to this power.
SCALING = 0.8
# Threads that the rules that train ask for (workflow/rules); a machine with fewer cores has fewer.
MOST_THREADS = 8
# Share of the genes that are hidden, and so asked of the last layer, in a cell that expresses a
# fifth of them in either modality; little depends on it.
EXPRESSED_SHARE = 0.2
# Past this a model is said to be too large for a CPU.
LONG_SECONDS = 12 * 3600
REMEDY = "a model of this size wants a GPU; without one choose size: small"


def measure_product_rate(n: int = 1024, seconds: float = 0.5) -> float:
    """Measure the operations a second that one core does in large float32 products.

    By the processor's time, so that other work on the machine does not count.
    """
    factor = np.random.default_rng(0).random((n, n), dtype=np.float32)
    with threadpool_limits(1):
        factor @ factor
        begun, n_products = time.process_time(), 0
        while (passed := time.process_time() - begun) < seconds or not n_products:
            factor @ factor
            n_products += 1
    return 2 * n**3 * n_products / passed


def estimate_cpu_seconds(operations: Operations, rate: float, n_threads: int) -> float:
    """Say how long operations take on a CPU.

    Parameters
    ----------
    operations
        What is computed.
    rate
        Of one core; see :func:`measure_product_rate`.
    n_threads
        Cores that share the work.
    """
    in_products = (
        COST_OF_PRODUCTS * operations.products
        + COST_OF_ATTENTION * operations.attention
        + COST_OF_ELEMENTS * operations.elements
    )
    return in_products / rate / n_threads**SCALING


def make_architecture(model: PretrainingSettings, n_genes: int, n_tfs: int) -> ModelConfig:
    """Return a model's architecture on a vocabulary."""
    return ModelConfig.from_dict({"n_genes": n_genes, "n_tfs": n_tfs, **model.architecture()})


def count_pretraining_operations(
    model: PretrainingSettings, n_genes: int, n_tfs: int, n_cells: int
) -> Operations:
    """Count what pretraining takes, if no cell is left out by quality control or ``cells``."""
    n_hidden = round(EXPRESSED_SHARE * model.mask_share * n_genes)
    each = make_architecture(model, n_genes, n_tfs).count_training_operations(n_hidden)
    return each.times(n_cells * (1 - model.validation_share) * model.training.epochs)


def count_job_cores() -> int:
    """Count the cores that a job that trains has here."""
    return min(MOST_THREADS, len(os.sched_getaffinity(0)))


def describe_cost(work: str, seconds: float, n_threads: int, n_gpus: int) -> str:
    """Say what a model or task will take, and what to do where that is long."""
    cores = "1 core" if n_threads == 1 else f"{n_threads} cores"
    text = f"{work}: about {format_estimate(seconds)} on {cores} of this machine's CPU"
    if n_gpus:
        return f"{text}; the GPU here is used instead"
    return f"{text}; {REMEDY}" if seconds > LONG_SECONDS else text


def list_used_gpus() -> Sequence[str]:
    """List the GPUs of this machine that the config's ``device`` lets the model run on."""
    return [] if os.environ.get(VARIABLE) == "cpu" else visible_gpus()
