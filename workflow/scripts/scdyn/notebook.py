"""Pretraining and fine-tuning in one call each, on a :class:`scdyn.Corpus`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from scdyn.data.corpus import Corpus
from scdyn.data.tokens import regulon_weights
from scdyn.errors import InputError
from scdyn.io.files import write_table
from scdyn.model.pretrained import Pretrained
from scdyn.settings import (
    MAIN,
    SIZES,
    FineTuningSettings,
    PretrainingSettings,
    SplitSettings,
    TrainingSettings,
    VariantSettings,
)
from scdyn.tasks.finetuned import FineTuned
from scdyn.tasks.finetuning import finetune_run
from scdyn.tasks.splits import read_splits, split_task
from scdyn.training import pretraining


def pretrain(
    corpus: Corpus, folder: str | Path, settings: PretrainingSettings | None = None
) -> Pretrained:
    """Pretrain a model on the cells of a corpus, by predicting hidden values.

    A run that is interrupted continues from its last checkpoint when it is called again.

    Parameters
    ----------
    corpus
        Cells, vocabulary and regulons.
    folder
        Where the model is written: the same files as the workflow's
        ``results/pretrain/NAME``.
    settings
        Architecture and training; ``PretrainingSettings(size="small")`` if None.

    Returns
    -------
    Pretrained
        The model, to embed cells with and to fine-tune.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pretraining.pretrain(
        corpus.store,
        np.arange(len(corpus.store.cells)),
        regulon_weights(corpus.genes, corpus.regulons),
        corpus.genes,
        settings or PretrainingSettings(size="small"),
        folder,
        folder / "checkpoints",
    )
    return Pretrained(folder)


def finetune(
    model: Pretrained,
    corpus: Corpus,
    obs: pd.DataFrame,
    folder: str | Path,
    split: SplitSettings,
    settings: FineTuningSettings | None = None,
) -> FineTuned:
    """Fine-tune a model to predict a label, one model per fold and seed.

    Runs that are there already are kept.

    Parameters
    ----------
    model
        Pretrained on this corpus.
    corpus
        The cells.
    obs
        Indexed by the names of the corpus' cells; the columns that ``split`` names.
    folder
        Where the models and their predictions of held-out cells are written: the same files as
        the workflow's ``results/finetune/TASK``.
    split
        Label, training cells, folds and seeds, such as
        ``SplitSettings(label="cell_type", split_by="sample", folds=3, seeds=[1])``.
    settings
        Adapter, head and training. If None, the defaults, with the training of the small size.

    Returns
    -------
    FineTuned
        All models together, to predict cells with.

    Raises
    ------
    InputError
        If a column is missing, the cells cannot be split, or the folder
        holds models of another split.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    training = TrainingSettings(**SIZES["small"]["fine_tuning"])
    variant = VariantSettings(**(settings or FineTuningSettings(training=training)).model_dump())
    splits, _ = split_task(
        obs.reindex(corpus.store.cells),
        where="split",
        **split.model_dump(exclude={"seeds"}),
        seed=split.seed,
    )
    path = folder / "splits.tsv"
    before = path.read_bytes() if path.exists() else None
    write_table(path, splits)
    if before is not None and path.read_bytes() != before:
        path.write_bytes(before)
        raise InputError(
            "SPLITS", f"{folder}: holds models of another split; name another folder, or remove it."
        )
    splits = read_splits(path)
    for seed in split.seeds:
        for fold in range(split.folds):
            run = folder / MAIN / f"seed{seed}_fold{fold}"
            if not (run / "model").exists():
                finetune_run(
                    corpus.store,
                    splits,
                    MAIN,
                    seed,
                    str(fold),
                    variant,
                    model.folder,
                    run / "model",
                    run / "checkpoints",
                )
    return FineTuned(folder, model.folder)
