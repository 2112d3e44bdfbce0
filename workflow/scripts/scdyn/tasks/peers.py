"""Optional peer methods: scVI and scANVI on the RNA counts, in a separate environment.

Both use the defaults of scvi-tools; only genes, training cells and epochs are limited in number.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
from scipy import sparse

from scdyn.data.corpus import Corpus
from scdyn.log import logger
from scdyn.pp.selection import draw_cells
from scdyn.settings import MAIN
from scdyn.tasks.metrics import fit_temperature
from scdyn.tasks.predictions import tabulate_calibrated_predictions
from scdyn.tasks.splits import require_cells, split_cells

# Largest number of genes of a model: the most variable ones among the training cells.
N_VARIABLE_GENES = 4000
# Most training cells of a fit, because scvi-tools holds them in memory.
MAX_TRAINING_CELLS = 20_000
UNLABELLED = ""


def predict_with_scanvi(
    corpus: Corpus, splits: pd.DataFrame, fold: str, max_epochs: int, seed: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Predict one fold's cells with scANVI (Xu et al. 2021, Mol Syst Biol 17:e9620).

    scVI is fitted to the training cells, at most 20,000 of all labels in proportion, then scANVI
    to these cells and their labels, for the number of further epochs that scvi-tools chooses (two
    to ten). The predicted cells are used neither for the choice of genes nor for fitting, without
    or with labels; they are read in blocks. There is no batch covariate, because a held-out sample
    would be a batch without parameters.

    Parameters
    ----------
    corpus
        The cells.
    splits, fold
        The split, and the fold of the test set.
    max_epochs, seed
        As in :func:`embed_with_scvi`.

    Returns
    -------
    predictions : DataFrame
        As :func:`scdyn.tasks.predictions.tabulate_calibrated_predictions`, method "scanvi".
    cost : dict
        As :func:`scdyn.tasks.baselines.fit_baselines` yields it.
    """
    started = time.perf_counter()
    require_cells(splits, corpus.obs.index)
    training, validation, predicted = split_cells(splits, fold)
    training = training.iloc[draw_cells(training[["label"]], MAX_TRAINING_CELLS, seed)]
    chosen = corpus.to_memory(corpus.find_rows(training["cell"]), ["rna"])
    genes = choose_variable_genes(chosen)
    train = make_count_table(chosen, genes, label=training["label"].to_numpy())
    network = fit_scvi(train, max_epochs, seed, labels_key="label")
    model = scvi.model.SCANVI.from_scvi_model(network, UNLABELLED, labels_key="label")
    model.train(enable_progress_bar=False)
    p_validation, p = (
        predict_in_blocks(model, corpus, corpus.find_rows(part["cell"]), genes)
        for part in (validation, predicted)
    )
    classes = list(p.columns)
    temperature = fit_temperature(validation["label"].to_numpy(), classes, p_validation.to_numpy())
    run = {"method": "scanvi", "variant": MAIN, "seed": seed, "fold": fold}
    cost = run | {
        "n_training_cells": len(training), "temperature": temperature,
        "seconds": time.perf_counter() - started,
    }  # fmt: skip
    table = tabulate_calibrated_predictions(predicted, run, classes, p.to_numpy(), temperature)
    return table, cost


def predict_in_blocks(
    model: scvi.model.SCANVI, corpus: Corpus, rows: np.ndarray, genes: np.ndarray
) -> pd.DataFrame:
    """Predict the probabilities of cells with scANVI: (cells, classes).

    Parameters
    ----------
    model
        Fitted.
    corpus, rows
        The cells.
    genes
        (genes,) boolean: the genes of the model.
    """
    predicted = [
        model.predict(
            make_count_table(ad.AnnData(block.layers["rna"]), genes, label=UNLABELLED), soft=True
        )
        for block in corpus.iter_blocks(rows, ["rna"])
    ]
    return pd.concat(predicted, ignore_index=True)


def embed_with_scvi(cells: ad.AnnData, batch: str, max_epochs: int, seed: int) -> np.ndarray:
    """Embed cells with scVI (Lopez et al. 2018, Nat Methods 15:1053), fitted to these cells.

    Parameters
    ----------
    cells
        RNA counts in ``X``.
    batch
        Column of the cells that scVI is conditioned on, to remove its effect from the embedding.
    max_epochs
        Number of epochs.
    seed
        Random seed of scvi-tools.

    Returns
    -------
    ndarray of float32, (cells, 10)
        Means of the latents.
    """
    batches = cells.obs[batch].astype(str).to_numpy()
    table = make_count_table(cells, choose_variable_genes(cells), batch=batches)
    network = fit_scvi(table, max_epochs, seed, batch_key="batch")
    return network.get_latent_representation(table).astype(np.float32)


def choose_variable_genes(cells: ad.AnnData) -> np.ndarray:
    """Choose the most variable genes (log counts per 10,000; scanpy): boolean, (genes,)."""
    if cells.n_vars <= N_VARIABLE_GENES:
        return np.ones(cells.n_vars, dtype=bool)
    table = ad.AnnData(sparse.csr_matrix(cells.X, dtype=np.float32))
    sc.pp.normalize_total(table, 1e4)
    sc.pp.log1p(table)
    sc.pp.highly_variable_genes(table, n_top_genes=N_VARIABLE_GENES)
    return table.var["highly_variable"].to_numpy()


def make_count_table(
    cells: ad.AnnData, genes: np.ndarray, **columns: np.ndarray | str
) -> ad.AnnData:
    """Make the input of scvi-tools: counts of the chosen genes, and columns of ``obs``."""
    obs = pd.DataFrame(columns, index=cells.obs_names)
    return ad.AnnData(sparse.csr_matrix(cells.X[:, genes], dtype=np.float32), obs)


def fit_scvi(table: ad.AnnData, max_epochs: int, seed: int, **columns: str) -> scvi.model.SCVI:
    """Fit scVI to the cells of a :func:`make_count_table` with at least one count.

    Parameters
    ----------
    table
        The cells.
    max_epochs, seed
        As in :func:`embed_with_scvi`.
    **columns
        Keyword arguments of ``SCVI.setup_anndata`` that name columns.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    scvi.settings.verbosity = logging.WARNING
    scvi.settings.seed = seed
    counted = table[
        np.asarray(table.X.sum(1)).ravel() > 0
    ].copy()  # scVI takes the log of the library size
    logger.info("training scVI on %d cells for %d epochs", counted.n_obs, max_epochs)
    scvi.model.SCVI.setup_anndata(counted, **columns)
    network = scvi.model.SCVI(counted)
    network.train(max_epochs=max_epochs, enable_progress_bar=False)
    return network
