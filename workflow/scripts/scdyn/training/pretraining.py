"""Pretraining of a model on the cells of a corpus, and its files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from scdyn.data.tokens import TokenStore
from scdyn.errors import InputError
from scdyn.io.artefacts import STAMP, make_stamp
from scdyn.io.files import Json, atomic, sha256, write_json, write_table
from scdyn.log import logger
from scdyn.model.adapters import Encoder
from scdyn.model.embedding import fit_projection, start_from_components
from scdyn.model.paper import PaperModel
from scdyn.model.transformer import ScDynOmics
from scdyn.order import natural_key
from scdyn.pp.counts import find_depth
from scdyn.pp.selection import spell_values
from scdyn.settings import PretrainingSettings
from scdyn.training import distributed
from scdyn.training.checkpoint import Checkpoint
from scdyn.training.cost import make_architecture
from scdyn.training.devices import choose_device
from scdyn.training.loop import Training, TrainingConfig
from scdyn.training.masked import MaskedPretraining
from scdyn.training.objectives import Pretraining, log_shares, sum_counts
from scdyn.training.predictors import trivial_losses
from scdyn.training.progress import write_records

# Most cells that are held out, of a corpus however large.
MOST_HELD_OUT = 10_000
# Most training cells of which principal components are computed.
MOST_PROJECTED = 4_000
# Fewest cells per batch, on average.
CELLS_PER_BATCH = 20
# Fewest training cells.
FEWEST = 3
# Most training cells from which the mean profile is computed.
MOST_SUMMED = 20_000


def find_rates(genes: pd.DataFrame) -> np.ndarray:
    """Return what the paper's model multiplies counts by, (2, genes): RNA and promoters.

    One over the gene's length in kb and over its number of TSSs (Yu et al. 2026, Methods).
    """
    return 1 / np.stack([genes["length"].to_numpy() / 1000, genes["n_tss"].to_numpy(float)])


def pretrain(
    store: TokenStore,
    rows: np.ndarray,
    settings: PretrainingSettings,
    folder: Path,
    checkpoints: Path,
    batches: pd.Series | None = None,
) -> None:
    """Pretrain a model on cells of a corpus.

    Parameters
    ----------
    store
        The corpus, its vocabulary, which is written with the model so that it can read other cells,
        and the regulons, for ``projection_init: regulon``.
    rows
        Rows of the cells to use; a random share, of at most :data:`MOST_HELD_OUT` cells, is held
        out for validation.
    settings
        Architecture, masking and training.
    folder
        ``model.safetensors``, ``config.json``, ``vocabulary.tsv``,
        ``metrics.jsonl`` and ``scores.json`` are written to it.
    checkpoints
        Folder of the checkpoints, from which an interrupted run resumes; removed at the end.
    batches
        Batch of each cell of ``rows``, which the decoder of whole cells is given in training;
        None: it is not.

    Raises
    ------
    InputError
        If a cell has no batch, or if there are hardly any cells, or cells per batch.
    """
    config = TrainingConfig(seed=settings.seed, **settings.training.model_dump())
    batch_codes, batch_names = number_batches(batches)
    architecture = make_architecture(settings, store.meta["n_genes"], store.meta["n_tfs"])
    torch.manual_seed(settings.seed)
    model: Encoder
    if architecture.architecture == "paper":
        model = PaperModel(architecture, find_rates(store.corpus.genes))
    else:
        model = ScDynOmics(architecture)
    names = []
    if settings.projection_init == "regulon":
        model.anchor_latents(torch.tensor(store.regulons.to_numpy()))
        names = list(store.regulons.index)
    model.to(choose_device())
    held_out, shuffled = hold_out_cells(rows, settings)
    training_rows = np.sort(shuffled)
    logger.info(
        "%.2f M parameters; %d training cells, %d held-out cells",
        sum(p.numel() for p in model.parameters()) / 1e6,
        len(training_rows),
        len(held_out),
    )
    by_row = None if batch_codes is None else pd.Series(batch_codes, index=rows)
    task = make_task(model, store, shuffled, held_out, settings, by_row)
    # Without settings of hardware, so that a run can resume on other hardware.
    identity = {
        "model": architecture.to_dict(),
        "tokens": store.meta,
        "settings": settings.without_hardware(),
        "cells": hashlib.sha256(rows.tobytes()).hexdigest(),
        "batches_sha256": hash_batches(batches),
    }
    checkpoint = Checkpoint(checkpoints, identity)
    run = Training(
        model,
        task,
        len(training_rows),
        config,
        task.evaluate,
        checkpoint,
    )
    history = run.run()
    if distributed.rank() == 0:
        without = ~store.promoter_measured(training_rows)
        description = {
            "training": config.model_dump(),
            "settings": settings.model_dump(),
            "tokens": store.meta,
            "latents": name_latents(model, names),
            "batches": batch_names,
            "batches_sha256": hash_batches(batches),
            "n_training_cells_without_promoters": int(without.sum()),
        }
        trivial: dict[str, float] = {}
        if isinstance(task, Pretraining):
            model.bottleneck.merge_batches(task.count_by_batch())
        if isinstance(model, PaperModel):
            # As it will be loaded: not compiled, and in the default precision.
            plain = PaperModel(architecture).to(task.device).eval()
            plain.load_state_dict(model.state_dict())
            fit_projection(plain, store, np.sort(shuffled[:MOST_PROJECTED]))
            model.mean, model.components = plain.mean, plain.components
            trivial = trivial_losses(model, store, training_rows, held_out)
        save_model(folder, model, store.vocabulary, history, trivial, description)
        checkpoint.remove()


def hold_out_cells(
    rows: np.ndarray, settings: PretrainingSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out cells for validation, at random: their rows, and those of the others, shuffled.

    Raises
    ------
    InputError
        If hardly any cells are left.
    """
    order = np.random.default_rng(settings.seed).permutation(rows)
    n_validation = max(1, min(MOST_HELD_OUT, round(settings.validation_share * len(rows))))
    held_out, shuffled = np.sort(order[:n_validation]), order[n_validation:]
    if len(shuffled) < FEWEST:
        raise InputError(
            "CORPUS",
            f"{len(shuffled)} training cells and {len(held_out)} held-out cells; pretraining "
            f"needs at least {FEWEST} training cells: add cells, or lower validation_share.",
        )
    return held_out, shuffled


def make_task(
    model: Encoder,
    store: TokenStore,
    shuffled: np.ndarray,
    held_out: np.ndarray,
    settings: PretrainingSettings,
    batches: pd.Series | None,
) -> MaskedPretraining | Pretraining:
    """Make the task of pretraining, and start the default model from the training cells.

    Parameters
    ----------
    model
        With random weights.
    store, shuffled, held_out
        Tokens; rows of training cells in random order, the first of which the start is computed
        from; and of held-out cells.
    settings
        Architecture, masking and training.
    batches
        Number of the batch by row; None if the decoder is not given it.
    """
    training_rows, seed = np.sort(shuffled), settings.seed
    if isinstance(model, PaperModel):
        return MaskedPretraining(
            model, store, training_rows, held_out, settings.mask_share, seed,
            settings.promoter_dropout,
        )  # fmt: skip
    model.depths.copy_(torch.tensor([find_depth(of) for of in store.totals(training_rows)]))
    profile = sum_counts(store, np.sort(shuffled[:MOST_SUMMED]))
    model.bottleneck.start_from(log_shares(profile))
    start_from_components(model, store, np.sort(shuffled[:MOST_PROJECTED]), seed)
    if batches is not None:
        model.bottleneck.add_batches(batches.nunique())
    distributed.copy_from_first(model)
    parts = None
    if batches is not None:
        parts = batches[training_rows].to_numpy(), batches[held_out].to_numpy()
    return Pretraining(model, store, training_rows, held_out, settings, profile, parts)


def number_batches(batches: pd.Series | None) -> tuple[np.ndarray | None, list[str]]:
    """Number the batches of cells: the number of each cell's batch, and the batches' names.

    Raises
    ------
    InputError
        If a cell has none, or if there are hardly any cells per batch.
    """
    if batches is None:
        return None, []
    names = spell_values(batches)
    if names.isna().any():
        raise InputError(
            "MODEL",
            f"batch_key: {int(names.isna().sum()):,} of {len(names):,} cells have no "
            f"'{batches.name}', such as {names.index[names.isna()][0]}; complete the column, list "
            "the wanted values under the model's cells, or choose another column.",
        )
    categories = sorted(names.unique(), key=natural_key)
    if len(names) < CELLS_PER_BATCH * len(categories):
        raise InputError(
            "MODEL",
            f"batch_key: '{batches.name}' has {len(categories):,} values in {len(names):,} cells, "
            f"fewer than {CELLS_PER_BATCH} cells per value; choose a column such as the sample or "
            "the donor.",
        )
    return pd.Categorical(names, categories=categories).codes.astype(np.int64), categories


def hash_batches(batches: pd.Series | None) -> str | None:
    """Hash which cell is of which batch."""
    if batches is None:
        return None
    return hashlib.sha256("\n".join(batches.astype(str)).encode()).hexdigest()


def name_latents(model: Encoder, regulons: list[str]) -> list[str]:
    """Name the latents of the last Full layer: by their initial regulon, or by number."""
    attention = model.layers[model.last_full_layer()].attention
    n_latents = attention.compress.out_features
    # The only layer of a model is a TF layer, which is not started from regulons.
    named = regulons if attention.n_sources == model.config.n_genes else []
    return [*named, *(f"latent_{i}" for i in range(len(named), n_latents))][:n_latents]


def save_model(
    folder: Path,
    model: Encoder,
    vocabulary: pd.DataFrame,
    history: list[dict[str, float]],
    trivial: dict[str, float],
    description: Json,
) -> None:
    """Write the files of a pretrained model; ``config.json``, with the hash of the weights, last.

    Parameters
    ----------
    folder
        Folder of the files.
    model
        The model.
    vocabulary
        Genes of the model, in its order.
    history
        Records of the epochs; the scores of the last one are written to ``scores.json``.
    trivial
        Scores of the trivial predictors, for ``scores.json``.
    description
        Settings and data of the run, for ``config.json``.
    """
    device = next(model.parameters()).device
    records = {"epoch", "step", "loss", "seconds", "cells_per_second"}
    scores = {key: value for key, value in history[-1].items() if key not in records} | trivial
    logger.info("held-out cells: %s", "  ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    write_records(folder / "metrics.jsonl", history)
    write_json(folder / "scores.json", scores)
    write_table(folder / "vocabulary.tsv", vocabulary)
    with atomic(folder / "model.safetensors") as temporary:
        save_file({name: p.detach().cpu() for name, p in model.state_dict().items()}, temporary)
    config = {
        "model": model.config.to_dict(),
        "model_sha256": sha256(folder / "model.safetensors"),
        "torch": torch.__version__,
        STAMP: make_stamp(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU",
        **description,
    }
    write_json(folder / "config.json", config)
