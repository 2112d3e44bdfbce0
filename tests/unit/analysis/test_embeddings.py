"""Embeddings side by side: what is gathered, how depth is told, what scores are called."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scdyn.plotting import embeddings as figures_embeddings
from scdyn.plotting import style
from scdyn.pp import counts
from scdyn.tasks import embeddings

N_CELLS, N_GENES = 90, 20


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(["a", "b", None] * 30),
            "sample": ["x", "y"] * 45,
            "promoter_source": "fragments",
        },
        index=[f"cell{i}" for i in range(N_CELLS)],
    )
    rates = np.where((obs["cell_type"] == "a").to_numpy()[:, None], 4.0, 1.0)
    var = pd.DataFrame({"length": 1000, "n_tss": 1}, index=[f"g{i}" for i in range(N_GENES)])
    table = ad.AnnData(
        sparse.csr_matrix(rng.poisson(rates * np.ones(N_GENES) * rng.gamma(2, 2, N_GENES))),
        obs,
        var,
    )
    table.layers["promoter"] = sparse.csr_matrix(rng.poisson(1.0, (N_CELLS, N_GENES)))
    counts.normalise(table)
    return table


@pytest.fixture
def gathered(cells):
    embedded = ad.AnnData(obs=cells.obs, obsm={"X_scdyn": cells.X.toarray().astype(np.float32)})
    table = embeddings.gather_embeddings(embedded, cells, None, 1)
    table.obs["cell_type"] = cells.obs["cell_type"]
    return table


def test_embeddings_stand_beside_the_depth_of_each_cell(cells, gathered):
    assert list(gathered.obsm) == ["X_scdyn", "X_pca", "X_pca_both"]
    assert gathered.obsm["X_pca"].shape == (N_CELLS, N_GENES - 1)
    assert gathered.obsm["X_pca_both"].shape == (N_CELLS, 30)
    np.testing.assert_array_equal(gathered.obs["library_size"], np.asarray(cells.X.sum(1))[:, 0])


def test_depth_is_found_in_any_direction_of_an_embedding():
    rng = np.random.default_rng(0)
    depth = rng.poisson(np.exp(rng.normal(7, 0.5, 500)))
    noise = rng.normal(size=(500, 5))
    assert embeddings.library_size_r2(noise, depth) < 0.05
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    holds = noise.copy()
    holds[:, 2] = np.log1p(depth)
    assert embeddings.library_size_r2(holds, depth) == pytest.approx(1)
    assert embeddings.library_size_r2(holds @ turn * 7, depth) == pytest.approx(1)


def test_scores_are_named_by_label_and_embedding(gathered):
    scores = embeddings.score_embeddings(gathered, ["cell_type"])
    scib = pd.DataFrame(
        [
            ("X_pca", "cell_type", "labels kept", "cLISI", 0.4),
            ("X_pca", "cell_type", embeddings.MEAN, "labels kept", 0.5),
        ],
        columns=embeddings.SCORE_COLUMNS,
    )
    flat = embeddings.flatten_scores(pd.concat([scores, scib]))
    assert flat["cell_type.pca_scib_labels_kept"] == 0.5
    prefixes = ("", "pca_", "pca_both_")
    assert set(flat) == {"cell_type.pca_scib_labels_kept"} | {
        f"{label}{prefix}{name}"
        for prefix in prefixes
        for label, name in (("cell_type.", "neighbour_accuracy"), ("", "library_size_r2"))
    }
    assert flat["cell_type.neighbour_accuracy"] > 0.9  # by depth alone, which the counts hold
    assert flat["library_size_r2"] > 0.8


@pytest.mark.parametrize("labels", [["cell_type"], []])
def test_the_figure_has_a_map_a_column_and_embedding(gathered, labels, tmp_path):
    scores = embeddings.score_embeddings(gathered, labels)
    layouts = {space: gathered.obsm[space][:, :2] for space in gathered.obsm}
    figure = figures_embeddings.plot_embeddings(scores, layouts, gathered.obs, labels, "sample")
    assert len(figure.axes) == 1 + 3 * (1 + len(labels))
    style.save(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_neighbours_vote():
    values = np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
    assert embeddings.neighbour_accuracy(values, np.array(list("aaabbb")), 2) == 1.0
    assert embeddings.neighbour_accuracy(values, np.array(list("aabbbb")), 2) == pytest.approx(
        5 / 6
    )


def test_every_embedding_at_hand_is_laid_out():
    values = np.repeat([[0.0, 0.0, 0.0], [20.0, 20.0, 20.0]], 20, axis=0)
    values += np.random.default_rng(0).normal(size=values.shape)
    table = ad.AnnData(obs=pd.DataFrame(index=map(str, range(40))), obsm={"X_pca": values})
    layouts = embeddings.lay_out_embeddings(table, 1)
    assert list(layouts) == ["X_pca"] and layouts["X_pca"].shape == (40, 2)
    # Two clumps stay two clumps.
    assert embeddings.neighbour_accuracy(layouts["X_pca"], np.repeat(["a", "b"], 20), 5) == 1.0
