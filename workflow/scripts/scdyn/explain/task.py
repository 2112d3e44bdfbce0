"""Attributions of a fine-tuned task in one call, for notebooks."""

from __future__ import annotations

import pandas as pd

from scdyn.data.corpus import Corpus
from scdyn.explain.runs import explain_task
from scdyn.log import logger
from scdyn.settings import ExplanationSettings
from scdyn.tasks.finetuned import FineTuned


def attribute(
    task: FineTuned, corpus: Corpus, settings: ExplanationSettings | None = None
) -> pd.DataFrame:
    """Attribute the correct predictions of held-out cells to genes, per class and modality.

    Parameters
    ----------
    task
        Fine-tuned on this corpus.
    corpus
        The cells.
    settings
        How many cells, and where the paths of Integrated Gradients start; the defaults if None.

    Returns
    -------
    DataFrame
        See :func:`scdyn.explain.attribution_tables.attribution_table`.

    Raises
    ------
    InputError
        If no model predicts cells of two classes correctly.
    """
    table, checks = explain_task(
        corpus.store,
        corpus.store.vocabulary,
        task.folders,
        task.pretrained.folder,
        settings or ExplanationSettings(),
    )
    logger.info(
        "%d paths of %d models; completeness error: median %.2g, 95%% of the paths below %.2g",
        *(checks["n_paths"], checks["n_runs"]),
        *(checks["completeness"]["median"], checks["completeness"]["percentile_95"]),
    )
    return table
