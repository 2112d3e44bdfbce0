"""The optional peers: scVI and scANVI on the RNA counts, in an environment of their own.

Both are as scvi-tools has them by default; only the genes and the passes are bounded.
"""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
from scipy import sparse

from scdyn.log import logger
from scdyn.settings import MAIN
from scdyn.tasks.evaluation import tabulate_calibrated_predictions
from scdyn.tasks.metrics import fit_temperature
from scdyn.tasks.splits import require_cells, split_cells

# Genes a model reads at most: the most variable among the cells it learns from.
N_VARIABLE_GENES = 4000
# Past this many cells scvi-tools makes fewer passes, in proportion.
CELLS_OF_ALL_EPOCHS = 20_000
UNLABELLED = ""


def predict_with_scanvi(
    cells: ad.AnnData, splits: pd.DataFrame, fold: str, max_epochs: int, seed: int
) -> pd.DataFrame:
    """Call one fold's cells with scANVI (Xu et al. 2021, Mol Syst Biol 17:e9620).

    scVI is fitted to the cells that are learned from, then scANVI to these and their labels, for
    as many further passes as scvi-tools thinks right (two to ten). The cells that are called are
    brought to the fitted model: neither their labels nor their counts are seen before, nor do
    they take part in the choice of genes. There is no batch covariate, as a held-out sample
    would be a batch without parameters.

    Parameters
    ----------
    cells
        Corpus, RNA counts in ``X``.
    splits, fold
        The split, and the fold that is tested.
    max_epochs, seed
        As in :func:`embed_with_scvi`.

    Returns
    -------
    DataFrame
        As :func:`scdyn.tasks.evaluation.tabulate_calibrated_predictions`, method "scanvi".
    """
    require_cells(splits, cells.obs_names)
    learned, validation, called = split_cells(splits, fold)
    chosen = cells[learned["cell"]]
    genes = choose_variable_genes(chosen)
    train = make_count_table(chosen, genes, label=learned["label"].to_numpy())
    network = fit_scvi(train, max_epochs, seed, labels_key="label")
    model = scvi.model.SCANVI.from_scvi_model(network, UNLABELLED, labels_key="label")
    model.train(enable_progress_bar=False)
    known, p = (
        model.predict(make_count_table(cells[part["cell"]], genes, label=UNLABELLED), soft=True)
        for part in (validation, called)
    )
    classes = list(p.columns)
    temperature = fit_temperature(validation["label"].to_numpy(), classes, known.to_numpy())
    run = {"method": "scanvi", "variant": MAIN, "seed": seed, "fold": fold}
    return tabulate_calibrated_predictions(called, run, classes, p.to_numpy(), temperature)


def embed_with_scvi(cells: ad.AnnData, batch: str, max_epochs: int, seed: int) -> np.ndarray:
    """Embed cells with scVI (Lopez et al. 2018, Nat Methods 15:1053), fitted to these cells.

    Parameters
    ----------
    cells
        Corpus, RNA counts in ``X``.
    batch
        Column of the cells that scVI is conditioned on: what it explains is not in the latents.
    max_epochs
        Passes over up to 20,000 cells; over more of them as many fewer.
    seed
        Of all that is drawn.

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
    """Choose the genes of the highest dispersion of log counts per 10,000: boolean, (genes,)."""
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
    """Lay out what scvi-tools reads: the counts of some genes, and columns of the cells."""
    obs = pd.DataFrame(columns, index=cells.obs_names)
    return ad.AnnData(sparse.csr_matrix(cells.X[:, genes], dtype=np.float32), obs)


def fit_scvi(table: ad.AnnData, max_epochs: int, seed: int, **columns: str) -> scvi.model.SCVI:
    """Fit scVI to the cells of a :func:`make_count_table` that have any counts.

    Parameters
    ----------
    table
        The cells.
    max_epochs, seed
        As in :func:`embed_with_scvi`.
    **columns
        Which columns are what, as ``SCVI.setup_anndata`` names it.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    scvi.settings.verbosity = logging.WARNING
    scvi.settings.seed = seed
    counted = table[
        np.asarray(table.X.sum(1)).ravel() > 0
    ].copy()  # the log of a library of nothing is no number
    n_epochs = round(max_epochs * min(1, CELLS_OF_ALL_EPOCHS / counted.n_obs)) or 1
    logger.info("scVI learns from %d cells, %d epochs", counted.n_obs, n_epochs)
    scvi.model.SCVI.setup_anndata(counted, **columns)
    network = scvi.model.SCVI(counted)
    network.train(max_epochs=n_epochs, enable_progress_bar=False)
    return network
