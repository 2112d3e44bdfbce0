"""Pretraining and fine-tuning in one call each, on a :class:`scdyn.Corpus`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from scdyn.data.corpus import Corpus
from scdyn.errors import InputError
from scdyn.io.artefacts import read_json
from scdyn.io.files import Json, write_table
from scdyn.log import logger
from scdyn.model.pretrained import Pretrained
from scdyn.pp.selection import require_column
from scdyn.settings import (
    MAIN,
    SIZES,
    FineTuningSettings,
    PretrainingSettings,
    SplitSettings,
    VariantSettings,
    choose_fine_tuning,
)
from scdyn.tasks.encoding import encode_cells, is_encoded_once
from scdyn.tasks.finetuned import FineTuned
from scdyn.tasks.finetuning import finetune_run
from scdyn.tasks.splits import read_splits, split_task
from scdyn.training import pretraining


def pretrain(
    corpus: Corpus,
    folder: str | Path,
    settings: PretrainingSettings | None = None,
    obs: pd.DataFrame | None = None,
) -> Pretrained:
    """Pretrain a model on the cells of a corpus, by predicting counts that it does not read.

    Called again with the same folder and settings, it continues an interrupted run from its last
    checkpoint, and opens a finished model.

    Parameters
    ----------
    corpus
        Cells, vocabulary and regulons.
    folder
        Where the model is written: the same files as the workflow's
        ``results/pretrain/NAME``.
    settings
        Architecture and training; ``PretrainingSettings(size="small")`` if None.
    obs
        Indexed by the names of the corpus' cells, with the column ``batch_key`` of the settings;
        ``corpus.obs``, which has ``sample``, if None.

    Returns
    -------
    Pretrained
        The model, to embed cells with and to fine-tune.

    Raises
    ------
    InputError
        If the folder has a model of other settings or of another corpus, or if the cells have no
        column ``batch_key``, or not all a value.
    """
    folder = Path(folder)
    settings = settings or PretrainingSettings(size="small")
    batches = None
    if (key := settings.batch_key) is not None:
        table = corpus.obs if obs is None else align_obs(obs, corpus.store.cells)
        require_column(table, key, "batch_key")
        batches = table[key]
    if (folder / "config.json").exists():
        finished = Pretrained(folder)
        made = PretrainingSettings(**finished.config["settings"])
        wanted = settings.without_hardware(), corpus.store.meta, pretraining.hash_batches(batches)
        found = made.without_hardware(), *map(finished.config.get, ("tokens", "batches_sha256"))
        if found != wanted:
            raise InputError(
                "MODEL",
                f"{folder}: has a model of other settings, batches or another corpus; name another "
                "folder, or remove it.",
            )
        logger.info("%s: is finished; it is opened and not trained again", folder)
        return finished
    folder.mkdir(parents=True, exist_ok=True)
    pretraining.pretrain(
        corpus.store,
        np.arange(len(corpus)),
        settings,
        folder,
        folder / "checkpoints",
        batches,
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

    Called again with the same folder and settings, it keeps finished models and fits the others.

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
        Adapter, head and training. If None, the defaults for a model of this size and architecture.

    Returns
    -------
    FineTuned
        All models together, to predict cells with.

    Raises
    ------
    InputError
        If a column or all cells are missing in ``obs``, its cells are not unique, the cells cannot
        be split, or the folder has models of another split or of other settings.
    """
    folder = Path(folder)
    if settings is None:
        settings = choose_settings(model)
    variant = VariantSettings(**settings.model_dump())
    splits, _ = split_task(
        align_obs(obs, corpus.store.cells),
        where="split",
        **split.model_dump(exclude={"seeds"}),
        seed=split.seed,
    )
    path = folder / "splits.tsv"
    if path.exists():
        with tempfile.TemporaryDirectory() as place:
            write_table(Path(place) / "splits.tsv", splits)
            same = path.read_bytes() == (Path(place) / "splits.tsv").read_bytes()
        if not same:
            raise InputError(
                "SPLITS",
                f"{folder}: has models of another split; name another folder, or remove it.",
            )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_table(path, splits)
    splits, folders = read_splits(path), []
    encoded = None
    for seed in split.seeds:
        for fold in range(split.folds):
            run = folder / MAIN / f"seed{seed}_fold{fold}"
            folders.append(run / "model")
            if folders[-1].exists():
                require_settings(folders[-1], variant, model)
                continue
            if encoded is None and is_encoded_once(model.model, variant):
                encoded = encode_cells(corpus.store, splits["cell"], variant, model.folder)
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
                encoded,
            )
    return FineTuned(folders, model.folder)


def choose_settings(model: Pretrained) -> FineTuningSettings:
    """Choose the defaults for a model: by its size, small if it has none, and architecture."""
    config = model.model.config
    sizes = [
        name
        for name, size in SIZES.items()
        if all(getattr(config, key) == value for key, value in size["model"].items())
    ]
    return choose_fine_tuning((sizes or ["small"])[0], config.architecture)


def align_obs(obs: pd.DataFrame, cells: pd.Index) -> pd.DataFrame:
    """Bring a table to the cells of a corpus, in their order; missing cells have no values.

    Raises
    ------
    InputError
        If a cell is in the table twice, or none is in it.
    """
    duplicated = obs.index[obs.index.duplicated()]
    if len(duplicated):
        raise InputError("LABELS", f"obs: duplicate cell {duplicated[0]}; name each cell once.")
    n_found = int(cells.isin(obs.index).sum())
    if not n_found:
        raise InputError(
            "LABELS",
            f"obs: no cells in common with the corpus (such as {obs.index[0]} and {cells[0]}); "
            "index it by SAMPLE_BARCODE.",
        )
    logger.info("obs has a row for %d of %d cells", n_found, len(cells))
    # So that integer labels keep their names where cells are missing.
    plain, others = obs.copy(), obs.select_dtypes(exclude="bool").columns
    plain[others] = obs[others].convert_dtypes(convert_string=False, convert_boolean=False)
    return plain.reindex(cells)


def require_settings(folder: Path, settings: VariantSettings, model: Pretrained) -> None:
    """Refuse a finished model that was fitted with other settings or to another model."""
    task = read_json(folder / "task.json")
    wanted: Json = settings.dump_used(model.model.config.architecture)
    wanted["model_sha256"] = model.config["model_sha256"]
    task["training"] = {key: task["training"].get(key) for key in wanted["training"]}
    if {key: task.get(key) for key in wanted} != wanted:
        raise InputError(
            "MODEL",
            f"{folder}: was fine-tuned with other settings or from another model; name another "
            "folder, or remove it.",
        )
