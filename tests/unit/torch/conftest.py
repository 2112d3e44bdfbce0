"""Models small enough to be worked through in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from scdyn.data.loader import NOT_MEASURED, MemoryStore
from scdyn.model.architecture import ModelConfig
from scdyn.model.paper import PaperModel
from scdyn.model.transformer import ScDynOmics


@pytest.fixture
def config():
    return ModelConfig(
        n_genes=17, n_tfs=5, n_bins=6, width=12, n_layers=4, n_heads=3, n_latents=4,
        ffn_width=20, dropout=0.0, n_knots=5, n_pools=6, cell_width=8,
    )  # fmt: skip


@pytest.fixture
def model(config):
    return make_encoder(config)


@pytest.fixture
def counts(config):
    """RNA and promoters of seven cells; the promoters of the last were not measured."""
    generator = torch.Generator().manual_seed(1)
    shape = (7, config.n_genes)
    rna, promoter = (
        torch.randint(-2, most, shape, generator=generator, dtype=torch.int16).clamp_(min=0)
        for most in (9, 3)
    )
    promoter[6] = NOT_MEASURED
    return rna, promoter


@pytest.fixture
def paper_config(config):
    return replace(config, architecture="paper")


@pytest.fixture
def paper(paper_config):
    return make_encoder(paper_config)


def make_encoder(config):
    """Make a model of the config's architecture, with weights of a fixed seed."""
    torch.manual_seed(0)
    if config.architecture == "paper":
        return PaperModel(config, make_rates(config.n_genes)).eval()
    return ScDynOmics(config).eval()


@pytest.fixture(params=["expressed", "paper"])
def both_configs(request, config):
    """The config of each architecture; bins of the paper's tell counts of one gene apart."""
    return replace(config, architecture=request.param, n_bins=14)


@pytest.fixture
def encoder(both_configs):
    """A model of each architecture."""
    return make_encoder(both_configs)


@pytest.fixture
def bins(config):
    generator = torch.Generator().manual_seed(1)
    shape = (7, config.n_genes)
    rna = torch.randint(0, config.n_bins + 1, shape, generator=generator, dtype=torch.int32)
    promoter = torch.randint(0, 3, shape, generator=generator, dtype=torch.int32)
    return rna, promoter


def make_rates(n_genes):
    """Make inverse sizes of genes, (2, genes)."""
    return 1 / np.random.default_rng(2).uniform(0.5, 4, (2, n_genes))


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
