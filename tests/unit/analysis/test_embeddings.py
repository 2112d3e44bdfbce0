"""Embeddings side by side: what is gathered, how depth is told, what scores are called."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from small_corpus import write_corpus

from scdyn.data.corpus import Corpus, make_corpus
from scdyn.data.pca import SPACES, open_pca
from scdyn.errors import InputError
from scdyn.io.artefacts import write_zarr
from scdyn.plotting import embeddings as figures_embeddings
from scdyn.plotting import style
from scdyn.tasks import embeddings


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus")


@pytest.fixture
def embedded(corpus, tmp_path):
    """An embedding of the corpus, as `scdyn.model.embedding.write_embedding` leaves it."""
    path = tmp_path / "embedded.zarr"
    group = write_zarr(
        path, ad.AnnData(obs=corpus.obs[[]].rename_axis(None)), {"corpus": corpus.id}
    )
    values = corpus.to_memory(layers=["rna"]).X.toarray().astype(np.float16)
    group.create_array("obsm/X_scdyn", data=values, chunks=(9, values.shape[1]))
    return path


def label_cells(corpus, every=3):
    """The table of the corpus' cells, a label for two of every so many."""
    names = np.array(["a", "b", *[None] * (every - 2)], dtype=object)
    return pd.DataFrame({"cell_type": names[np.arange(80) % every]}, corpus.obs.index)


@pytest.fixture
def gathered(corpus, embedded):
    rows = embeddings.draw_compared(corpus, label_cells(corpus), ["cell_type"], 1)
    assert len(rows) == 80
    table = embeddings.gather_embeddings(corpus, open_pca(corpus), embedded, None, rows)
    table.obs["cell_type"] = pd.Categorical(np.array(["a", "b", None])[np.arange(80) % 3])
    return table


def test_embeddings_stand_beside_the_depth_of_each_cell(corpus, gathered):
    cells = corpus.to_memory(layers=["rna"])
    spaces = ["X_pca", "X_pca_scaled", "X_pca_both", "X_pca_both_scaled"]
    assert list(gathered.obsm) == ["X_scdyn", *spaces]
    assert gathered.obsm["X_scdyn"].dtype == np.float32
    np.testing.assert_array_equal(gathered.obsm["X_scdyn"], cells.X.toarray())
    pca = open_pca(corpus)
    for name, space in zip(spaces, SPACES, strict=True):
        np.testing.assert_array_equal(gathered.obsm[name], pca[space])
    np.testing.assert_array_equal(gathered.obs["library_size"], np.asarray(cells.X.sum(1))[:, 0])


def test_a_draw_of_all_samples_is_gathered(corpus, embedded, gathered, monkeypatch, tmp_path):
    monkeypatch.setattr(embeddings, "MAX_COMPARED", 40)
    rows = embeddings.draw_compared(corpus, label_cells(corpus), ["unknown"], 1)
    assert np.bincount(np.searchsorted([40, 65], rows, side="right")).tolist() == [18, 12, 10]
    scvi = ad.AnnData(obs=gathered.obs.iloc[rows], obsm={"X_scvi": np.ones((40, 2))})
    few = embeddings.gather_embeddings(corpus, open_pca(corpus), embedded, scvi, rows)
    assert few.obs_names.tolist() == corpus.obs.index[rows].tolist()
    for key in gathered.obsm:
        np.testing.assert_array_equal(few.obsm[key], gathered.obsm[key][rows])
    few.write_h5ad(tmp_path / "few.h5ad")
    assert ad.read_h5ad(tmp_path / "few.h5ad").obs_names.equals(few.obs_names)
    with pytest.raises(InputError, match="cells of scVI's embedding are not those drawn"):
        embeddings.gather_embeddings(corpus, open_pca(corpus), embedded, scvi[::-1], rows)


def test_cells_with_a_label_are_drawn_first(corpus, monkeypatch):
    """In proportion to samples alone 8 of 32 cells would have a label."""
    monkeypatch.setattr(embeddings, "MAX_COMPARED", 32)
    few = label_cells(corpus, every=8)
    rows = embeddings.draw_compared(corpus, few, ["cell_type"], 1)
    assert len(rows) == 32 and few["cell_type"].iloc[rows].notna().sum() == 20
    many = label_cells(corpus).assign(batch=["x", "y"] * 40)
    rows = embeddings.draw_compared(corpus, many, ["cell_type"], 1)
    assert many["cell_type"].iloc[rows].value_counts().to_dict() == {"a": 16, "b": 16}
    rows = embeddings.draw_compared(corpus, many.sample(frac=1), ["batch", "cell_type"], 1)
    assert len(rows) == 32 and (np.diff(rows) > 0).all()
    assert many["cell_type"].iloc[rows].notna().sum() >= 16


def test_too_few_labelled_cells_have_no_score_and_do_not_stop_the_others(gathered, tmp_path):
    for n_labelled in (0, 1):
        gathered.obs["rare"] = pd.Series("a", gathered.obs_names[:n_labelled], dtype=object)
        scores = embeddings.score_embeddings(gathered, ["rare", "cell_type"])
        assert scores.set_index("label")["value"].isna()["rare"].all()
        assert not scores.loc[scores["label"] != "rare", "value"].isna().any()
        assert not any(name.startswith("rare") for name in embeddings.flatten_scores(scores))
        layouts = {name: gathered.obsm[name][:, :2] for name in gathered.obsm}
        figure = figures_embeddings.plot_embeddings(
            scores, layouts, gathered.obs, ["rare", "cell_type"], "sample"
        )
        style.save(figure, tmp_path / f"{n_labelled}.png")


def test_an_embedding_of_another_corpus_or_damaged_is_refused(corpus, embedded, tmp_path):
    paths = [shard.path for shard in corpus.shards]
    make_corpus(tmp_path / "turned", paths[::-1])
    with pytest.raises(InputError, match=r"embedded\.zarr: is the embedding of another corpus"):
        embeddings.read_embedding(embedded, Corpus(tmp_path / "turned"), np.arange(3))
    (embedded / "obsm/X_scdyn/zarr.json").unlink()
    with pytest.raises(InputError, match=r"embedded\.zarr: was changed or truncated"):
        embeddings.read_embedding(embedded, corpus, np.arange(3))


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


def test_depth_that_labels_explain_is_not_counted_within_them():
    rng = np.random.default_rng(0)
    labels = np.repeat(["few", "many"], 200)
    depth = rng.poisson(np.where(labels == "few", 1e3, 1e5))
    values = rng.normal(size=(400, 5)) + 9 * (labels == "many")[:, None]
    assert embeddings.library_size_r2(values, depth) > 0.9
    assert embeddings.library_size_r2_within(values, depth, labels) < 0.05
    values[:, 0] += 200 * np.log1p(depth)
    assert embeddings.library_size_r2_within(values, depth, labels) > 0.8


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
    prefixes = ("", "pca_", "pca_scaled_", "pca_both_", "pca_both_scaled_")
    assert set(flat) == {"cell_type.pca_scib_labels_kept"} | {
        f"{label}{prefix}{name}"
        for prefix in prefixes
        for label, name in (
            ("cell_type.", "neighbour_accuracy"),
            ("cell_type.", "library_size_r2_within"),
            ("", "library_size_r2"),
        )
    }
    own = scores.set_index(["embedding", "metric"])["value"]
    assert flat["library_size_r2"] == own["X_scdyn", "Library size R2"]
    assert flat["cell_type.pca_neighbour_accuracy"] == own["X_pca", "Neighbour accuracy"]


@pytest.mark.parametrize("labels", [["cell_type"], []])
def test_the_figure_has_a_map_a_column_and_embedding(gathered, labels, tmp_path):
    scores = embeddings.score_embeddings(gathered, labels)
    layouts = {name: gathered.obsm[name][:, :2] for name in gathered.obsm}
    figure = figures_embeddings.plot_embeddings(scores, layouts, gathered.obs, labels, "sample")
    assert len(figure.axes) == 1 + 5 * (1 + len(labels))
    style.save(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_neighbours_of_the_same_label_are_counted():
    values = np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
    assert embeddings.neighbour_accuracy(values, np.array(list("aaabbb")), 2) == 1.0
    # Of the neighbours of the first three cells three of six, of the others all.
    assert embeddings.neighbour_accuracy(values, np.array(list("aabbbb")), 2) == pytest.approx(
        (1 / 2 + 1 / 2 + 0 + 3) / 6
    )


def test_every_embedding_at_hand_is_laid_out():
    values = np.repeat([[0.0, 0.0, 0.0], [20.0, 20.0, 20.0]], 20, axis=0)
    values += np.random.default_rng(0).normal(size=values.shape)
    table = ad.AnnData(obs=pd.DataFrame(index=map(str, range(40))), obsm={"X_pca": values})
    layouts = embeddings.lay_out_embeddings(table, 1)
    assert list(layouts) == ["X_pca"] and layouts["X_pca"].shape == (40, 2)
    # Two clumps stay two clumps.
    assert embeddings.neighbour_accuracy(layouts["X_pca"], np.repeat(["a", "b"], 20), 5) == 1.0
