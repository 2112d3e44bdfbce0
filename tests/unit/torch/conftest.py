"""A model small enough to be worked through in float64."""

import numpy as np
import pytest
import torch
from scipy import sparse

from scdyn.data.loader import MemoryStore
from scdyn.model.architecture import ModelConfig
from scdyn.model.transformer import ScDynOmics


@pytest.fixture
def config():
    return ModelConfig(
        n_genes=17, n_tfs=5, n_bins=6, width=12, n_layers=4, n_heads=3, n_latents=4,
        ffn_width=20, dropout=0.0,
    )  # fmt: skip


@pytest.fixture
def model(config):
    torch.manual_seed(0)
    return ScDynOmics(config).eval()


@pytest.fixture
def bins(config):
    generator = torch.Generator().manual_seed(1)
    shape = (7, config.n_genes)
    rna = torch.randint(0, config.n_bins + 1, shape, generator=generator, dtype=torch.uint8)
    promoter = torch.randint(0, 3, shape, generator=generator, dtype=torch.uint8)
    return rna, promoter


@pytest.fixture
def cells(config):
    """90 cells of three classes, each with three genes of its own, in RNA or in promoters."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["x", "y", "z"], 30)
    rna = rng.integers(0, 3, (90, config.n_genes))
    promoter = rng.integers(0, 2, (90, config.n_genes))
    rna[labels == "x", 0:3] = 6
    promoter[labels == "y", 6:9] = 5
    rna[labels == "z", 12:15] = 6
    parts = (sparse.csr_matrix(part.astype(np.uint8)) for part in (rna, promoter))
    return MemoryStore(*parts), labels
