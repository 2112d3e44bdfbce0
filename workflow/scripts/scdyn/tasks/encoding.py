"""Cells that a model encodes once, for all runs of a task that train a head alone."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import anndata as ad
import numpy as np
import pandas as pd
import torch
import zarr
from anndata.io import read_elem
from torch import Tensor

from scdyn.data.corpus import cut_rows
from scdyn.data.loader import Store, mask_modality, run_batches
from scdyn.data.tokens import TokenStore
from scdyn.errors import InputError
from scdyn.io.artefacts import STAMP, make_stamp, open_zarr, reading_artefact, write_zarr
from scdyn.io.files import atomic, remove, sha256
from scdyn.io.parts import compute_parts, write_parts
from scdyn.model.adapters import Encoder
from scdyn.model.layers import set_precision
from scdyn.model.pretrained import load_model
from scdyn.model.transformer import ScDynOmics
from scdyn.settings import EncodingSettings, FineTuningSettings
from scdyn.training.devices import choose_device
from scdyn.training.loop import step_seed
from scdyn.training.objectives import thin_cells

# Name of the features in the file.
FEATURES = "X_encoded"
# Cells per part, after which a killed job continues.
CELLS_PER_PART = 16_384
# Cells at once.
BATCH = 32
ALL_VIEWS = slice(None)


@dataclass(frozen=True)
class EncodedCells:
    """Cells as a head reads them.

    Attributes
    ----------
    cells
        Their names.
    features
        (cells, views, F) float32, in memory or in a file. The first view is of all counts; in each
        further one the counts are thinned.
    seconds
        Time per cell, of all views.
    path
        The file; None if in memory.
    """

    cells: pd.Index
    features: np.ndarray | zarr.Array
    seconds: float
    path: Path | None = None

    def read(self, cells: pd.Series, views: slice | int = ALL_VIEWS) -> np.ndarray:
        """Read the features of cells by their names: (cells, views, F), or (cells, F) of one view.

        Raises
        ------
        InputError
            If a cell was not encoded, or the file is damaged.
        """
        rows = self.cells.get_indexer_for(cells)
        if (rows < 0).any():
            missing = cells[rows < 0].iloc[0]
            raise InputError(
                "SPLITS",
                f"{(rows < 0).sum()} cells are not among the encoded ones, such as {missing}; "
                "remove the task's folder 'encoded' and run the workflow again.",
            )
        stored = self.features
        if isinstance(stored, np.ndarray):
            return stored[rows, views]
        with reading_artefact(str(self.path)):
            return np.asarray(stored.oindex[rows, views])


def is_encoded_once(model: Encoder, settings: FineTuningSettings) -> TypeGuard[ScDynOmics]:
    """Tell whether only a head is trained, so that each cell is encoded once."""
    return settings.is_head_only(model.config.architecture)


@torch.no_grad()
def encode(
    model: ScDynOmics, store: Store, rows: np.ndarray, settings: EncodingSettings
) -> np.ndarray:
    """Encode cells.

    Parameters
    ----------
    model
        In evaluation mode.
    store, rows
        The cells. How a cell is thinned depends on its row alone.
    settings
        Modalities, number of views, and thinning.

    Returns
    -------
    ndarray of float32, (cells, views, F)
        See :class:`EncodedCells`.
    """
    device = next(model.parameters()).device
    n_views = settings.n_views
    found = np.empty((len(rows), n_views, model.config.n_features), dtype=np.float32)
    # Cells of similar depth together, because a batch has as many tokens as its deepest cell.
    order = np.argsort(store.totals(rows).sum(0), kind="stable")
    n_done = 0

    def encode_batch(rna: Tensor, promoter: Tensor) -> Tensor:
        counts = mask_modality(rna, promoter, settings.modalities)
        views = [model.describe(*counts).features]
        for view in range(1, n_views):
            seeds = [step_seed(int(row), view) for row in rows[order[n_done : n_done + len(rna)]]]
            thinned = thin_cells(*counts, seeds, (settings.thinning, 1.0))
            views.append(model.describe(*thinned).features)
        return torch.stack(views, 1)

    for views in run_batches(encode_batch, store, rows[order], device, BATCH):
        found[order[n_done : n_done + len(views)]] = views.float().cpu().numpy()
        n_done += len(views)
    return found


def load_encoder(folder: Path, store: TokenStore) -> ScDynOmics:
    """Load a pretrained model that can encode cells once, in float32 on any device.

    Raises
    ------
    InputError
        If its architecture is the paper's, or as :func:`~scdyn.model.pretrained.load_model`.
    """
    model = load_model(folder, store.meta)
    if not isinstance(model, ScDynOmics):
        raise InputError(
            "MODEL", f"{folder}: cells of architecture: paper cannot be encoded once; use lora."
        )
    set_precision(model, "float32")
    return model.to(choose_device())


def encode_cells(
    store: TokenStore, cells: pd.Series, settings: EncodingSettings, model_folder: Path
) -> EncodedCells:
    """Encode cells by a pretrained model, in memory; see :func:`write_encoded_cells`."""
    model = load_encoder(model_folder, store)
    begun = time.perf_counter()
    features = encode(model, store, store.find_rows(cells), settings)
    return EncodedCells(pd.Index(cells), features, (time.perf_counter() - begun) / len(cells))


def identify(store: TokenStore, settings: EncodingSettings, model_folder: Path) -> dict[str, str]:
    """Return what the features of a cell depend on."""
    return {
        "model": sha256(model_folder / "model.safetensors"),
        "corpus": store.corpus.id,
        "settings": json.dumps(
            {key: getattr(settings, key) for key in EncodingSettings.model_fields}
        ),
    }


def write_encoded_cells(
    store: TokenStore,
    cells: pd.Series,
    settings: EncodingSettings,
    model_folder: Path,
    path: Path,
    parts: Path,
) -> None:
    """Encode the cells of a task and write them.

    Parameters
    ----------
    store
        Tokens of the corpus.
    cells
        Names.
    settings
        Modalities, number of views, and thinning.
    model_folder
        The pretrained model.
    path
        Folder, ``NAME.zarr``: an AnnData with the features in ``obsm["X_encoded"]``, and with ids
        and settings in its stamp. Written atomically.
    parts
        Folder of the parts that are finished, with which a killed job continues; removed at the
        end.
    """
    rows = store.find_rows(cells)
    order = np.argsort(rows)
    blocks = cut_rows(rows[order], CELLS_PER_PART)
    model = load_encoder(model_folder, store)
    identity = identify(store, settings, model_folder)
    spent = []

    def encode_block(i: int) -> np.ndarray:
        begun = time.perf_counter()
        features = encode(model, store, blocks[i], settings)
        spent.append((time.perf_counter() - begun) / len(features))
        return features

    # Parts by other code are not used, either.
    version = make_stamp()["version"]
    files = compute_parts(
        parts,
        [{**identity, "version": version, "rows": hash_rows(block)} for block in blocks],
        encode_block,
    )
    with atomic(path) as temporary:
        table = ad.AnnData(obs=pd.DataFrame(index=pd.Index(cells)[order]))
        # Time per cell, of the parts that this job has computed.
        seconds = float(np.mean(spent)) if spent else 0.0
        group = write_zarr(temporary, table, {**identity, "seconds": seconds})
        shape = (len(rows), settings.n_views, model.config.n_features)
        write_parts(group, f"obsm/{FEATURES}", files, shape, "float32")
    remove(parts)


def hash_rows(rows: np.ndarray) -> str:
    """Hash the rows of some cells."""
    return hashlib.sha256(rows.tobytes()).hexdigest()


def open_encoded_cells(
    path: Path, store: TokenStore, settings: EncodingSettings, model_folder: Path
) -> EncodedCells:
    """Open the file of :func:`write_encoded_cells`; the features are read when they are asked for.

    Parameters
    ----------
    path
        The file.
    store, settings, model_folder
        Those with which it must have been written.

    Raises
    ------
    InputError
        If it is damaged, or of another corpus, model, or other settings.
    """
    with reading_artefact(path):
        group = open_zarr(path)
        stamp = group.attrs[STAMP]
        cells = pd.Index(read_elem(group["obs"]).index)
        features = open_zarr(path, f"obsm/{FEATURES}")
        found = EncodedCells(cells, features, stamp["seconds"], path)
    for name, wanted in identify(store, settings, model_folder).items():
        if stamp[name] != wanted:
            raise InputError(
                "MODEL",
                f"{path}: was encoded with another {name} than this run's; remove the folder and "
                "run the workflow again.",
            )
    return found
