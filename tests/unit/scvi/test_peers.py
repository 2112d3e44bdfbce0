"""scVI, scANVI and scib-metrics on small cells whose two types differ in half of the genes."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scdyn.data.corpus import Corpus
from scdyn.tasks import embeddings, peers, scib
from scdyn.tasks import splits as splitting

N_CELLS, N_GENES = 240, 60


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    is_a = np.arange(N_CELLS) % 2 == 0
    rates = np.where(is_a[:, None] == (np.arange(N_GENES) < N_GENES // 2), 3.0, 0.5)
    counts = rng.poisson(rates * rng.gamma(4, 0.25, (N_CELLS, 1)))
    counts[:2] = 0  # nothing was seen in one cell of either type
    obs = pd.DataFrame(
        {"cell_type": np.where(is_a, "a", "b"), "sample": np.arange(N_CELLS) // 80},
        index=[f"cell{i}" for i in range(N_CELLS)],
    )
    var = pd.DataFrame(
        {"symbol": [f"G{i}" for i in range(N_GENES)], "is_tf": False, "length": 1000, "n_tss": 1},
        index=[f"g{i}" for i in range(N_GENES)],
    )
    return ad.AnnData(sparse.csr_matrix(counts), obs.astype(str), var)


def write_corpus(folder, cells):
    """Write cells as a corpus of their samples."""
    samples = [cells[cells.obs["sample"] == name].copy() for name in "012"]
    for sample in samples:
        sample.obs["promoter_source"] = "none"
        sample.layers["promoter"] = sparse.csr_matrix(sample.shape, dtype=int)
    return Corpus.write(folder, samples)


@pytest.fixture(scope="module")
def corpus(cells, tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("study") / "corpus", cells)


@pytest.fixture(scope="module")
def splits(cells):
    asked = (cells.obs["sample"] == "2").to_numpy()
    made = splitting.make_splits(cells.obs, ~asked, asked, "cell_type", "sample", 2, 1)[0]
    return made.astype({"fold": str, "validation": str})  # as read from the file


def test_scanvi_calls_cells_that_it_has_not_seen(cells, corpus, splits, monkeypatch):
    monkeypatch.setattr(peers, "MAX_TRAINING_CELLS", 60)  # of some eighty
    calls, cost = peers.predict_with_scanvi(corpus, splits, "0", 30, 1)
    assert cost["n_training_cells"] == 60 and cost["seconds"] > 0
    _, _, called = splitting.split_cells(splits, "0")
    assert calls["cell"].tolist() == called["cell"].tolist()
    assert set(calls["part"]) == {"test", "predict"} and set(calls["method"]) == {"scanvi"}
    p = calls[["p_a", "p_b"]].to_numpy()
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
    truth = cells.obs.loc[calls["cell"], "cell_type"].to_numpy()
    assert (calls["predicted"].to_numpy() == truth).mean() > 0.9


def test_scanvi_learns_nothing_from_the_cells_that_it_calls(cells, corpus, splits, tmp_path):
    """Others among the called change no call of the rest; the same seed gives the same."""
    calls, _ = peers.predict_with_scanvi(corpus, splits, "0", 3, 1)
    _, _, called = splitting.split_cells(splits, "0")
    poisoned = cells.copy()
    rows = poisoned.obs_names.get_indexer(called["cell"][1:])
    values = poisoned.X.toarray()
    values[rows] = values[rows][:, ::-1] * 50
    poisoned.X = sparse.csr_matrix(values)
    relabelled = splits.assign(label=splits["label"].where(splits["fold"] != "0", "b"))
    other = write_corpus(tmp_path / "corpus", poisoned)
    again, _ = peers.predict_with_scanvi(other, relabelled, "0", 3, 1)
    assert again["p_a"][0] == pytest.approx(calls["p_a"][0], rel=1e-5)
    assert again["p_a"][5] != pytest.approx(calls["p_a"][5], rel=1e-3)


def test_variable_genes_are_chosen_where_there_are_too_many(cells, monkeypatch):
    assert peers.choose_variable_genes(cells).all()
    monkeypatch.setattr(peers, "N_VARIABLE_GENES", 10)
    assert peers.choose_variable_genes(cells).sum() == 10


def test_scvi_and_scib_metrics_tell_types_from_noise(cells):
    latents = peers.embed_with_scvi(cells, "sample", 30, 1)
    assert latents.shape == (N_CELLS, 10) and latents.dtype == np.float32
    noise = np.random.default_rng(0).normal(size=(N_CELLS, 70))
    table = ad.AnnData(obs=cells.obs.copy(), obsm={"X_scvi": latents, "X_pca": noise})
    table.obs.loc["cell7", "cell_type"] = None
    scores = scib.score_with_scib(table, ["X_pca", "X_scvi"], "cell_type", "sample")
    assert list(scores) == embeddings.SCORE_COLUMNS and scores["value"].between(-0.1, 1).all()
    kept = scores[(scores["kind"] == embeddings.MEAN) & (scores["metric"] == "labels kept")]
    kept = kept.set_index("embedding")["value"]
    assert kept["X_scvi"] > kept["X_pca"] + 0.1
    assert "cell_type.scvi_scib_batches_mixed" in embeddings.flatten_scores(scores)


def test_one_batch_is_not_mixed_and_too_few_cells_are_not_scored(cells, caplog):
    table = ad.AnnData(obs=cells.obs.copy(), obsm={"X_pca": cells.X.toarray()[:, :5] + 0.0})
    table.obs["sample"] = "one"
    scores = scib.score_with_scib(table, ["X_pca"], "cell_type", "sample")
    assert set(scores["kind"]) == {"labels kept", embeddings.MEAN}
    scores = scib.score_with_scib(table[:50], ["X_pca"], "cell_type", "sample")
    assert "'cell_type' is not scored: 50 cells have a value" in caplog.text
    assert scores["value"].isna().all() and len(scores) == 1
    assert not embeddings.flatten_scores(scores)
