"""Principal components of cells and their layout."""

import anndata as ad
import numpy as np
from scipy import sparse

from scdyn.pp import neighbours


def test_components_of_two_layers_see_both():
    # Cells on a line in the RNA, and on another in the promoters.
    rna, promoters = np.array([[3.0, 0], [-3, 0], [0, 0]]), np.array([[0.0, 1], [0, 1], [0, -2]])
    layers = {
        name: sparse.csr_matrix(values)
        for name, values in (("rna_log", rna), ("promoter_log", promoters))
    }
    cells = ad.AnnData(np.zeros((3, 2)), layers=layers)
    one = neighbours.compute_pca(cells, 0, n_components=1)
    np.testing.assert_allclose(np.abs(one[:, 0]), [3, 3, 0], atol=1e-5)
    both = neighbours.compute_pca(cells, 0, layers=("rna_log", "promoter_log"))
    assert both.shape == (3, 2)
    np.testing.assert_allclose(np.abs(both[:, 1]), [1, 1, 2], atol=1e-5)


def test_a_layout_of_many_cells_can_be_drawn():
    # From 4,096 cells on neighbours are approximate, by another library.
    values = np.random.default_rng(0).normal(size=(4200, 5)).astype(np.float32)
    layout = neighbours.compute_umap(values, 0)
    assert layout.shape == (4200, 2) and np.isfinite(layout).all()
