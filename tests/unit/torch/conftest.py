"""A model small enough to be worked through in float64."""

import pytest
import torch

from scdyn.model import ModelConfig, ScDynOmics


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
