"""Estimate of the time that training takes on this machine's CPU.

The operations of a model are counted (:mod:`scdyn.model.architecture`), and the machine's rate of
matrix products is measured. The relative costs of the kinds of operations were fitted to times of
``architecture: paper``: training and inference at sizes S, M and F of ``benchmarks/sizes.py`` and
of a model of width 32, on one core of an AMD EPYC, with AVX-512 and with AVX2.
``benchmarks/costs.py`` prints the fit and the estimates with these constants: all 16 times are
within 15%. Two threads were 1.75 times as fast as one; more were not measured. The default
architecture was not fitted: of the demo's pretraining the estimate was a third to a half of the
time.
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

# Time per operation, relative to one operation of a large matrix product.
COST_OF_PRODUCTS, COST_OF_ATTENTION, COST_OF_ELEMENTS = 0.86, 5.0, 120.0
# The speed of n threads is n to this power.
SCALING = 0.8
# Threads of the training rules (workflow/rules), on machines with as many cores.
MOST_THREADS = 8
# Share of the genes with counts in either modality, the tokens of a cell.
EXPRESSED_SHARE = 0.2
# For longer training, a GPU or a smaller model is recommended.
LONG_SECONDS = 12 * 3600
REMEDY = "a model of this size needs a GPU; without one choose size: small"


def measure_product_rate(n: int = 1024, seconds: float = 0.5) -> float:
    """Measure the operations per second of one core in large float32 matrix products.

    In CPU time, so that other work on the machine does not count.
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
    """Estimate how long operations take on a CPU.

    Parameters
    ----------
    operations
        Numbers of operations.
    rate
        Operations per second of one core; see :func:`measure_product_rate`.
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
    """Make the architecture of a model for a vocabulary."""
    sizes = {"n_genes": n_genes, "n_tfs": n_tfs}
    return ModelConfig.from_dict(sizes | model.architecture_settings())


def count_queries(architecture: ModelConfig, share: float = 1.0) -> int:
    """Count the genes of a cell that a model computes; see :meth:`ModelConfig.count_operations`.

    Parameters
    ----------
    architecture
        Of the model.
    share
        Share of the expressed genes that ``paper`` predicts.
    """
    if architecture.architecture == "paper":
        return round(EXPRESSED_SHARE * share * architecture.n_genes)
    return round(EXPRESSED_SHARE * architecture.n_genes)


def count_pretraining_operations(
    model: PretrainingSettings, n_genes: int, n_tfs: int, n_cells: int
) -> Operations:
    """Count the operations of pretraining on ``n_cells`` cells."""
    architecture = make_architecture(model, n_genes, n_tfs)
    each = architecture.count_training_operations(count_queries(architecture, model.mask_share))
    is_paper = architecture.architecture == "paper"
    # Of half of the cells both parts of the counts are read, to compare their vectors.
    n_views = 1.5 if model.consistency and not is_paper else 1.0
    return each.times(n_views * n_cells * (1 - model.validation_share) * model.training.epochs)


def count_job_cores() -> int:
    """Count the cores of a training job on this machine."""
    return min(MOST_THREADS, len(os.sched_getaffinity(0)))


def describe_cost(work: str, seconds: float, n_threads: int, n_gpus: int) -> str:
    """Describe the time of a model or task, with a remedy if it is long."""
    cores = "1 core" if n_threads == 1 else f"{n_threads} cores"
    text = f"{work}: about {format_estimate(seconds)} on {cores} of this machine's CPU"
    if n_gpus:
        return f"{text}; the GPU of this machine is used instead"
    return f"{text}; {REMEDY}" if seconds > LONG_SECONDS else text


def list_used_gpus() -> Sequence[str]:
    """List the visible GPUs; none if the config's ``device`` is cpu."""
    return [] if os.environ.get(VARIABLE) == "cpu" else visible_gpus()
