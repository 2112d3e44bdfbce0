"""The layout of cells."""

import numpy as np

from scdyn.pp import neighbours


def test_a_layout_of_many_cells_can_be_drawn():
    # From 4,096 cells on neighbours are approximate, by another library.
    values = np.random.default_rng(0).normal(size=(4200, 5)).astype(np.float32)
    layout = neighbours.compute_umap(values, 0)
    assert layout.shape == (4200, 2) and np.isfinite(layout).all()
