"""A cell as a point: its genes' representations, pooled."""

from __future__ import annotations

import numpy as np
import torch

from scdyn.loader import Loader, MemoryStore, batches
from scdyn.model import ScDynOmics
from scdyn.tokens import TokenStore
from scdyn.training import autocast


@torch.no_grad()
def embed(
    model: ScDynOmics,
    store: TokenStore | MemoryStore,
    rows: np.ndarray,
    precision: str = "auto",
    batch_size: int = 64,
) -> np.ndarray:
    """Embed cells: the mean over a cell's expressed genes of what sets them apart.

    Each gene counts relative to what it is in the cell without counts, and silent genes do
    not count: nearly the same in every cell, they would drown the few that differ. The same
    cell gets the same point whatever batch it is in.

    Parameters
    ----------
    model
        In evaluation mode.
    store, rows
        The cells.
    precision
        See :class:`~scdyn.training.TrainingConfig`.
    batch_size
        Cells at once.

    Returns
    -------
    ndarray of float32, (cells, width)
    """
    device = next(model.parameters()).device
    parts = [np.zeros((0, model.config.width), dtype=np.float32)]
    with autocast(device, precision):
        zero = torch.zeros(1, model.config.n_genes, dtype=torch.uint8, device=device)
        zero_cell = model(zero, zero)
        for bins in Loader(store, batches(rows, batch_size), device):
            rna, promoter = (part.to(device) for part in bins)
            expressed = ((rna > 0) | (promoter > 0)).unsqueeze(-1)
            changes = (model(rna, promoter) - zero_cell) * expressed
            pooled = changes.sum(1) / expressed.sum(1).clamp(min=1)
            parts.append(pooled.float().cpu().numpy())
    return np.concatenate(parts)
