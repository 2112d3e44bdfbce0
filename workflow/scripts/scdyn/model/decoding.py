"""Expression that a pretrained model predicts from the cell vectors, per gene and per regulon."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from scdyn.data.loader import Store, is_measured, run_batches
from scdyn.data.tokens import MODALITIES
from scdyn.model.transformer import ScDynOmics

LN2 = np.log(2)


@torch.no_grad()
def decode_cells(
    model: ScDynOmics, store: Store, rows: np.ndarray, batch_size: int = 64
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Predict the log of each gene's share of the counts from the cell vectors.

    Parameters
    ----------
    model
        In evaluation mode.
    store, rows
        The cells.
    batch_size
        Cells per batch.

    Yields
    ------
    logs : ndarray of float64, (2, cells, genes)
        Of a batch: base 2, of RNA and of promoters.
    measured : ndarray of bool, (2, cells)
        Whether the modality was measured in the cell; it is predicted also where it was not.
    """
    device = next(model.parameters()).device

    def decode_batch(rna: Tensor, promoter: Tensor) -> tuple[np.ndarray, np.ndarray]:
        logs = torch.stack(model.bottleneck.decode(model.embed_cells(rna, promoter)))
        measured = torch.stack([is_measured(counts) for counts in (rna, promoter)])
        return logs.double().cpu().numpy() / LN2, measured.cpu().numpy()

    yield from run_batches(decode_batch, store, rows, device, batch_size)


def average_decoded(model: ScDynOmics, store: Store, rows: np.ndarray) -> np.ndarray:
    """Average :func:`decode_cells` over the cells in which a modality was measured.

    Returns
    -------
    ndarray, (2, genes)
        NaN for a modality that was measured in no cell.
    """
    total, n_measured = np.zeros((len(MODALITIES), store.n_genes)), np.zeros(len(MODALITIES))
    for logs, measured in decode_cells(model, store, rows):
        total += (logs * measured[..., None]).sum(1)
        n_measured += measured.sum(1)
    return total / np.where(n_measured > 0, n_measured, np.nan)[:, None]


def list_members(genes: pd.DataFrame) -> pd.DataFrame:
    """List the targets of the regulons in a vocabulary's column ``regulons``.

    Returns
    -------
    DataFrame of bool, (genes, regulons)
        Named by ``gene_id``, and by regulon in alphabetical order.
    """
    members = genes["regulons"].str.get_dummies(",").astype(bool)
    return members.set_axis(pd.Index(genes["gene_id"]), axis=0)


@torch.no_grad()
def score_regulons(
    model: ScDynOmics, store: Store, rows: np.ndarray, members: pd.DataFrame
) -> np.ndarray:
    """Score the activity of regulons from the RNA that the cell vectors predict.

    The vector is what the counts of a cell have in common with those of other cells, so that the
    activity has less noise of counting than one of the counts, as AUCell's.

    Parameters
    ----------
    model
        In evaluation mode.
    store, rows
        The cells.
    members
        (genes, regulons) boolean, as :func:`list_members`.

    Returns
    -------
    ndarray of float32, (cells, regulons)
        Mean over the targets of log2 of the predicted share of the RNA counts, minus that of the
        mean profile, the decoder's for a cell vector of zeros. It does not depend on other cells.
    """
    device = next(model.parameters()).device
    zeros = torch.zeros(1, model.config.cell_width, device=device)
    mean = model.bottleneck.decode(zeros)[0].double().cpu().numpy() / LN2
    weights = members.to_numpy(float) / np.maximum(members.to_numpy().sum(0), 1)
    scores = [(logs[0] - mean) @ weights for logs, _ in decode_cells(model, store, rows)]
    return np.concatenate([np.zeros((0, weights.shape[1])), *scores]).astype(np.float32)
