"""Estimated CPU time of the configured models and tasks on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from scdyn.model.architecture import Operations
from scdyn.pp.preflight_findings import Finding
from scdyn.settings import EncodingSettings, EvaluationSettings, ModelSettings, VariantSettings
from scdyn.training import cost
from scdyn.training.cost import (
    count_pretraining_operations,
    count_queries,
    estimate_cpu_seconds,
    make_architecture,
)


def finetuning_operations(
    settings: VariantSettings,
    folds: int,
    model: ModelSettings,
    n_genes: int,
    n_tfs: int,
    n_cells: int,
) -> Operations:
    """Count the operations of fine-tuning on all folds but one, if all cells have labels.

    None where a head alone is trained, see :func:`encoding_operations`.

    Parameters
    ----------
    settings
        Of a variant.
    folds
        Of the task.
    model
        One entry of the config's ``models``.
    n_genes, n_tfs, n_cells
        Of the corpus.
    """
    architecture = make_architecture(model, n_genes, n_tfs)
    is_paper = architecture.architecture == "paper"
    if settings.is_head_only(architecture.architecture):
        return Operations(0, 0, 0)
    # Classification reads all genes of the paper's model.
    n_queries = None if is_paper else count_queries(architecture)
    count = architecture.count_operations
    if settings.trained != "none":
        count = architecture.count_training_operations
    # Fewer labels get more epochs (scdyn.tasks.finetuning.scale_epochs).
    passes = settings.training.epochs * settings.labels**0.5
    # The two cells without counts are encoded with each batch.
    batch = 1 + 2 / settings.training.batch_size * is_paper
    return count(n_queries).times(n_cells * (1 - 1 / folds) * passes * batch)


def encoding_operations(
    settings: EncodingSettings, model: ModelSettings, n_genes: int, n_tfs: int, n_cells: int
) -> Operations:
    """Count the operations of encoding all cells once per view; see :func:`finetuning_operations`.

    An upper bound, because the cells of most views are thinned.
    """
    architecture = make_architecture(model, n_genes, n_tfs)
    operations = architecture.count_operations(count_queries(architecture))
    return operations.times(n_cells * settings.n_views)


def estimate(
    models: Mapping[str, ModelSettings],
    tasks: Mapping[str, EvaluationSettings],
    n_cells: Mapping[str, int],
    n_genes: int,
    n_tfs: int,
    rate: float,
    n_threads: int,
) -> Iterator[tuple[str, str, float]]:
    """Estimate the time on a CPU of each model's pretraining and of each task's fine-tunings.

    Parameters
    ----------
    models, tasks
        Of the config.
    n_cells
        Cells of each corpus.
    n_genes, n_tfs
        Of the vocabulary.
    rate
        See :func:`measure_product_rate`.
    n_threads
        Cores of a job.

    Yields
    ------
    subject : str
        ``models.NAME`` or ``tasks.NAME``.
    work : str
        A description of the work.
    seconds : float
        Its duration if the jobs run one after the other.
    """
    for name, model in models.items():
        cells = n_cells[model.corpus]
        operations = count_pretraining_operations(model, n_genes, n_tfs, cells)
        epochs = model.training.epochs
        work = f"pretraining on {cells:,} cells, {epochs} epochs"
        yield f"models.{name}", work, estimate_cpu_seconds(operations, rate, n_threads)
    for name, task in tasks.items():
        model = models[task.model]
        cells = n_cells[model.corpus]
        n_runs, seconds = 0, 0.0
        for variant, settings in task.all_variants().items():
            n = len(task.runs_of(variant))
            operations = finetuning_operations(settings, task.folds, model, n_genes, n_tfs, cells)
            n_runs += n
            seconds += n * estimate_cpu_seconds(operations, rate, n_threads)
            if task.find_encoded(variant, model.architecture) == variant:
                encoding = encoding_operations(settings, model, n_genes, n_tfs, cells)
                seconds += estimate_cpu_seconds(encoding, rate, n_threads)
        work = f"{n_runs} fine-tunings on up to {cells:,} cells"
        yield f"tasks.{name}", work, seconds


def examine_models(
    models: Mapping[str, ModelSettings],
    tasks: Mapping[str, EvaluationSettings],
    n_cells: Mapping[str, int],
    genes: pd.DataFrame,
) -> list[Finding]:
    """Report the estimated time of the configured models on this machine; nothing is refused.

    Parameters
    ----------
    models, tasks
        Of the config.
    n_cells
        Cells of each corpus, as :func:`scdyn.pp.preflight.count_cells` counts them.
    genes
        The vocabulary.
    """
    n_threads, n_gpus = cost.count_job_cores(), len(cost.list_used_gpus())
    found = estimate(
        models,
        tasks,
        n_cells,
        len(genes),
        int(genes["is_tf"].sum()),
        cost.measure_product_rate(),
        n_threads,
    )
    return [
        Finding(subject, "time", cost.describe_cost(work, seconds, n_threads, n_gpus))
        for subject, work, seconds in found
    ]
