"""A pretrained model opened in a notebook: any order, any names of genes, the same embedding."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file, save_file
from scipy import sparse
from sklearn.decomposition import PCA

import scdyn
from scdyn.data.corpus import Corpus
from scdyn.data.loader import densify
from scdyn.data.tokens import TokenStore
from scdyn.errors import InputError
from scdyn.explain.expression import load_decoder
from scdyn.io.artefacts import read_parquet
from scdyn.io.files import sha256
from scdyn.model import embedding
from scdyn.model.transformer import ScDynOmics
from scdyn.settings import PretrainingSettings, VariantSettings
from scdyn.tasks import finetuning
from scdyn.tasks.ensemble import iter_ensembles
from scdyn.tasks.predictions import list_runs, read_predictions
from scdyn.training import pretraining

N_GENES, N_TFS, N_CELLS = 30, 6, 40
GENES = pd.DataFrame(
    {
        "gene_id": [f"ENSG{i:05d}" for i in range(N_GENES)],
        "symbol": [f"Gene{i}" for i in range(N_GENES)],
        "chrom": "chr1",
        "strand": "+",
        "length": np.arange(500, 500 + 100 * N_GENES, 100),
        "n_tss": np.arange(N_GENES) % 3 + 1,
        "tss": "1000",
        "is_tf": np.arange(N_GENES) < N_TFS,
        "is_mt": False,
    }
)
REGULONS = pd.DataFrame(
    {
        "regulon": ["Gene1(+)", "Gene1(+)", "Gene4(+)"],
        "tf": ["Gene1", "Gene1", "Gene4"],
        "target": ["Gene9", "Gene12", "Gene20"],
        "weight": 1.0,
    }
)
SETTINGS = PretrainingSettings(
    seed=0, width=16, n_layers=2, n_heads=2, n_latents=5, ffn_width=16, dropout=0.0, cell_width=12,
    validation_share=0.2, training={"epochs": 2, "batch_size": 8, "learning_rate": 1e-3},
)  # fmt: skip


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    source = {"sample": "s", "promoter_source": "fragments"}
    names = pd.DataFrame(source, index=[f"cell{i}" for i in range(N_CELLS)])
    adata = ad.AnnData(
        sparse.csr_matrix(rng.poisson(2.0, (N_CELLS, N_GENES))), names, GENES.set_index("gene_id")
    )
    adata.layers["promoter"] = sparse.csr_matrix(rng.poisson(0.7, (N_CELLS, N_GENES)))
    return adata


# Numbers of an embedding: of the paper's, one less than training cells.
WIDTHS = {"expressed": 12, "paper": 31}


@pytest.fixture(scope="module", params=WIDTHS)
def architecture(request):
    return request.param


def of(architecture):
    """Run a test with one architecture."""
    return pytest.mark.parametrize("architecture", [architecture], indirect=True, scope="module")


@pytest.fixture(scope="module")
def folder(architecture, cells, tmp_path_factory):
    """What the rule pretrain leaves."""
    path = tmp_path_factory.mktemp("study")
    settings = SETTINGS.model_copy(update={"architecture": architecture})
    corpus = Corpus.write(path / "corpus", [cells[:25].copy(), rename(cells[25:])])
    corpus.add_regulons(REGULONS)
    pretraining.pretrain(
        corpus.store, np.arange(N_CELLS), settings, path / "model", path / "model" / "checkpoints"
    )
    return path


def rename(cells):
    """Say that cells are of another sample."""
    cells = cells.copy()
    cells.obs["sample"] = "t"
    return cells


def open_store(folder):
    return TokenStore(folder / "corpus" / "tokens", Corpus(folder / "corpus"))


def test_a_model_says_what_it_is(folder):
    assert repr(scdyn.load(folder / "model")).startswith("Pretrained(30 genes, 6 TFs, 2 layers")


def test_the_notebook_embeds_as_the_workflow_does(folder, architecture, cells, tmp_path):
    model = scdyn.load(folder / "model")
    model.embed_corpus(open_store(folder), tmp_path / "embedded.zarr")
    written = ad.read_zarr(tmp_path / "embedded.zarr")
    assert written.obs_names.tolist() == cells.obs_names.tolist() and not written.obs.columns.size
    values = written.obsm["X_scdyn"]
    assert values.dtype == np.float16 and values.shape == (N_CELLS, WIDTHS[architecture])
    np.testing.assert_allclose(model.embed(cells), values, rtol=2**-10, atol=1e-4)


def test_the_folder_is_complete_and_the_checkpoints_are_gone(folder, architecture):
    names = {path.name for path in (folder / "model").iterdir()}
    assert names == {
        "config.json", "metrics.jsonl", "model.safetensors", "scores.json", "vocabulary.tsv",
    }  # fmt: skip
    scores = json.loads((folder / "model" / "scores.json").read_text())
    if architecture == "paper":
        names = ["masked_loss", "rna_nonzero_loss"]
        predictors = (f"{predictor}_{name}" for predictor in ("mode", "mean") for name in names)
        expected = {*names, "full_loss", *predictors}
    else:
        names = [f"{modality}cell_loss" for modality in ("", "rna_", "promoter_")]
        expected = {*names, *(f"mean_{name}" for name in names)}
    assert expected <= set(scores)
    assert all(np.isfinite(value) for value in scores.values())


def sum_latents(model, store, rows):
    """What the projection of the paper's model is of."""
    with torch.no_grad():
        return model.sum_latents(*densify(store, rows)).numpy()


def test_a_cell_is_the_same_point_in_any_batch(folder, architecture):
    model, store = scdyn.load(folder / "model").model, open_store(folder)
    together = embedding.embed(model, store, np.arange(9), batch_size=9)
    alone = embedding.embed(model, store, np.arange(9), batch_size=1)
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)
    assert embedding.embed(model, store, np.arange(0)).shape == (0, WIDTHS[architecture])


@of("expressed")
@pytest.mark.parametrize("width", [2, 7, 12])
def test_a_cell_vector_starts_with_components_of_scaled_and_of_unscaled_values(folder, width):
    store, rows = open_store(folder), np.arange(N_CELLS)
    torch.manual_seed(0)
    config = dataclasses.replace(
        scdyn.load(folder / "model").model.config, cell_width=width, n_components=20
    )
    model = ScDynOmics(config)
    embedding.start_from_components(model, store, rows, seed=1)
    with torch.no_grad():
        logs, known = model.normalise(*densify(store, rows))
        projected = model.bottleneck.project(logs, known)
        found = model.bottleneck.linear(projected).numpy()
        assert not model.bottleneck.narrow.weight.any()
    values = logs.masked_fill(~known, torch.nan).numpy()
    centred = values - np.nanmean(values, 0)
    deviation = np.nanstd(values, 0)
    divided = centred / np.where(deviation > 0, deviation, 1)
    n_each = width // 2
    expected = []
    for of_kind in (divided.clip(-10, 10), centred):
        components = PCA(10, svd_solver="full").fit_transform(np.nan_to_num(of_kind))
        expected.append(components / np.sqrt(components.var(0, ddof=1).mean()))
    # Components can have either sign; the last ones of a randomised decomposition are not exact.
    for first, of_kind in zip((0, n_each), expected, strict=True):
        n_exact = min(2, n_each)
        start = np.abs(found[:, first : first + n_exact])
        np.testing.assert_allclose(start, np.abs(of_kind[:, :n_exact]), atol=0.1)
    assert not found[:, 2 * n_each :].any()
    both = np.abs(np.concatenate([of_kind[:, :2] for of_kind in expected], 1))
    np.testing.assert_allclose(np.abs(projected.numpy())[:, [0, 1, 10, 11]], both, atol=0.1)


@of("paper")
def test_the_latents_of_a_cell_are_the_same_in_any_batch(folder):
    model, store = scdyn.load(folder / "model").model, open_store(folder)
    together = sum_latents(model, store, np.arange(9))
    alone = [sum_latents(model, store, np.array([row])) for row in range(9)]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-5, atol=1e-5)


@of("paper")
def test_a_projection_keeps_the_proportions_of_distances(folder):
    """With one component less than training cells, whose distances are kept."""
    model, store = scdyn.load(folder / "model").model, open_store(folder)
    assert model.components.shape == (5 * 8, 31)
    rows = np.sort(np.random.default_rng(0).permutation(N_CELLS)[8:])
    full, projected = sum_latents(model, store, rows), embedding.embed(model, store, rows)
    np.testing.assert_allclose(projected.mean(0), 0, atol=1e-5)
    assert projected[:, 0].std(ddof=1) == pytest.approx(1, rel=1e-4)
    ratio = np.linalg.norm(full[1:] - full[:-1], axis=1) / np.linalg.norm(
        projected[1:] - projected[:-1], axis=1
    )
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)
    largest = model.components.abs().argmax(0)
    assert (model.components[largest, torch.arange(31)] > 0).all()


@of("paper")
def test_many_latents_are_projected_to_few_numbers(folder, monkeypatch):
    model, store = scdyn.load(folder / "model").model, open_store(folder)
    monkeypatch.setattr(embedding, "N_COMPONENTS", 3)
    rows = np.arange(N_CELLS)
    embedding.fit_projection(model, store, rows)
    found = embedding.embed(model, store, rows)
    latents = sum_latents(model, store, rows).astype(float)
    left, spread, _ = np.linalg.svd(latents - latents.mean(0), full_matrices=False)
    expected = left[:, :3] * spread[:3] / (spread[0] / np.sqrt(N_CELLS - 1))
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-4)


@pytest.mark.parametrize("batch_size", [64, 3])
def test_a_job_that_ends_early_continues_with_the_next_sample(
    folder, monkeypatch, tmp_path, batch_size, caplog
):
    model, store = scdyn.load(folder / "model"), open_store(folder)
    path, parts = tmp_path / "embedded.zarr", tmp_path / "embedded.parts"
    model.embed_corpus(store, path)
    expected = ad.read_zarr(path).obsm["X_scdyn"]
    assert not parts.exists()
    shutil.rmtree(path)
    embed = embedding.embed

    def fail_in_the_second(model, store, rows):
        if 0 not in rows:
            raise KeyboardInterrupt
        return embed(model, store, rows, batch_size)

    monkeypatch.setattr(embedding, "embed", fail_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        model.embed_corpus(store, path)
    assert [part.name for part in parts.iterdir()] == ["0.safetensors"] and not path.exists()
    monkeypatch.setattr(embedding, "embed", embed)
    with caplog.at_level("INFO", logger="scdyn"):
        model.embed_corpus(store, path)
    for said in ("part 1 of 2: is finished already", "part 2 of 2: 15 cells"):
        assert said in caplog.text
    found = ad.read_zarr(path).obsm["X_scdyn"]
    # Sums of batches of another size differ by rounding, also that to float16.
    tolerance = (0, 0) if batch_size == 64 else (2**-10, 1e-3)
    np.testing.assert_allclose(found, expected, *tolerance)
    assert not parts.exists()


EMBED_CORPUS = """
import sys, scdyn
corpus = scdyn.Corpus(sys.argv[1])
scdyn.load(sys.argv[2]).embed_corpus(corpus.store, sys.argv[3])
"""


@of("expressed")
def test_a_killed_job_leaves_nothing_half_written_and_continues(folder, cells, tmp_path):
    samples = []
    for i in range(14):
        samples.append(cells.copy())
        samples[-1].obs["sample"] = f"s{i}"
        samples[-1].obs_names = [f"s{i}_{name}" for name in cells.obs_names]
    corpus = Corpus.write(tmp_path / "corpus", samples)
    corpus.add_regulons(REGULONS)
    straight, path = tmp_path / "straight.zarr", tmp_path / "embedded.zarr"
    scdyn.load(folder / "model").embed_corpus(corpus.store, straight)
    parts = tmp_path / "embedded.parts"
    environment = os.environ | {"PYTHONPATH": str(Path(scdyn.__file__).parents[1])}
    command = [sys.executable, "-c", EMBED_CORPUS, corpus.folder, folder / "model", path]

    def list_parts():
        return sorted(parts.glob("[0-9]*.safetensors"))

    for n_more in (2, 3):
        before = {part: part.stat().st_mtime_ns for part in list_parts()}
        process = subprocess.Popen(command, env=environment)
        while len(list_parts()) < len(before) + n_more:
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not path.exists() and len(list_parts()) < 14
        assert all(load_file(part)["values"].shape == (N_CELLS, 12) for part in list_parts())
        assert all(part.stat().st_mtime_ns == written for part, written in before.items())
    subprocess.run(command, env=environment, check=True)
    left = {entry.name for entry in tmp_path.iterdir()}
    assert left == {"corpus", "straight.zarr", "embedded.zarr"}
    found, expected = (ad.read_zarr(place).obsm["X_scdyn"] for place in (path, straight))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("change", ["nothing", "model", "sample", "version", "cut short"])
def test_parts_of_another_job_or_damaged_are_not_used(
    folder, cells, tmp_path, monkeypatch, change, caplog
):
    """The parts that a job left, in which all cells are at the origin."""
    model, store = scdyn.load(folder / "model"), open_store(folder)
    path, parts = tmp_path / "embedded.zarr", tmp_path / "parts"
    model.embed_corpus(store, path)
    expected = ad.read_zarr(path).obsm["X_scdyn"]
    model_id, left_store = model.config["model_sha256"], store
    if change == "model":
        model_id = "another"
    elif change == "sample":
        first = cells[:25].copy()
        first.X[0, 0] += 1
        left_store = Corpus.write(tmp_path / "corpus", [first, rename(cells[25:])]).store
    with monkeypatch.context() as patch:
        if change == "version":
            patch.setattr(embedding, "make_stamp", lambda: {"version": "another"})
        patch.setattr(
            embedding, "embed", lambda model, store, rows: 0 * expected[rows].astype(np.float32)
        )
        patch.setattr(embedding, "remove", lambda parts: None)
        embedding.write_embedding(model.model, left_store, path, parts, model_id)
    if change == "cut short":
        os.truncate(parts / "0.safetensors", 500)
    with caplog.at_level("INFO", logger="scdyn"):
        model.embed_corpus(store, path, parts)
    found = ad.read_zarr(path).obsm["X_scdyn"]
    if change == "nothing":
        assert "part 1 of 2: is finished already" in caplog.text and not found.any()
    else:
        assert "part 1 of 2: 25 cells" in caplog.text
        np.testing.assert_array_equal(found[:25], expected[:25])


@of("paper")
@pytest.mark.parametrize("damage", ["lost", "of another model"])
def test_a_projection_that_is_not_the_models_is_refused(folder, tmp_path, damage):
    shutil.copytree(folder / "model", tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    if damage == "lost":
        del tensors["mean"]
        save_file(tensors, path)
        config = json.loads((tmp_path / "model" / "config.json").read_text())
        changed = json.dumps(config | {"model_sha256": sha256(path)})
        (tmp_path / "model" / "config.json").write_text(changed)
        words = "does not fit config.json"
    else:
        save_file(tensors | {"mean": tensors["mean"] + 1}, path)
        words = "does not belong to its config.json"
    with pytest.raises(InputError, match=rf"model\.safetensors:? {words}"):
        scdyn.load(tmp_path / "model")


def test_a_corpus_of_another_vocabulary_is_refused(folder, cells, tmp_path):
    other = cells[:, [1, 0, *range(2, N_GENES)]].copy()
    store = Corpus.write(tmp_path / "corpus", [other]).store
    with pytest.raises(InputError, match="pretrained with another vocabulary"):
        scdyn.load(folder / "model").embed_corpus(store, tmp_path / "embedded.zarr")


@of("paper")
def test_a_point_is_what_the_expressed_genes_add(folder, cells):
    loaded = scdyn.load(folder / "model")
    model = loaded.model
    rna, promoter = densify(loaded.tokens(cells), np.array([3]))
    expressed = ((rna > 0) | (promoter > 0))[0]
    assert 0 < expressed.sum() < N_GENES
    layer = model.layers[1]
    with torch.no_grad():
        tokens, zero = (
            layer.attention_norm(model.run_to_last_full_layer(*model.bin(*counts)))
            for counts in ((rna, promoter), (0 * rna, 0 * promoter))
        )
        added = (tokens - zero)[0, expressed] @ layer.attention.key_value.weight.T
        by_hand = (layer.attention.compress.weight[:, expressed] @ added).flatten()
        found = model.sum_latents(rna, promoter)[0]
    np.testing.assert_allclose(found, by_hand, rtol=1e-4, atol=1e-5)
    expected = (by_hand - model.mean) @ model.components
    np.testing.assert_allclose(loaded.embed(cells)[3], expected, rtol=1e-4, atol=1e-4)


@of("paper")
@pytest.mark.parametrize("source", ["fragments", "none"])
def test_a_cell_without_counts_is_at_the_origin_of_the_latents(folder, cells, source):
    empty = ad.AnnData(sparse.csr_matrix((1, N_GENES), dtype=int), cells.obs[:1].copy(), cells.var)
    empty.layers["promoter"] = empty.X.copy()
    empty.obs["promoter_source"] = source
    model = scdyn.load(folder / "model")
    found = sum_latents(model.model, model.tokens(empty), np.arange(1))
    np.testing.assert_allclose(found, 0, atol=1e-6)


@pytest.mark.parametrize("naming", ["gene_id", "version", "symbol", "gene_ids column"])
def test_genes_are_found_by_any_of_their_names_in_any_order(folder, cells, naming):
    model = scdyn.load(folder / "model")
    order = np.random.default_rng(1).permutation(N_GENES)
    other = cells[:, order].copy()
    if naming == "version":
        other.var_names = other.var_names + ".3"
    if naming == "symbol":
        other.var_names = other.var["symbol"].to_list()
    if naming == "gene_ids column":
        other.var["gene_ids"] = other.var_names
        other.var_names = [f"probe{i}" for i in range(N_GENES)]
    np.testing.assert_allclose(model.embed(other), model.embed(cells), rtol=1e-4, atol=1e-5)
    assert model.n_found == N_GENES


def test_missing_genes_are_zero_and_too_few_refused(folder, cells, caplog):
    model = scdyn.load(folder / "model")
    kept = sparse.csr_matrix(np.diag(np.arange(N_GENES) < 20).astype(int))
    silent = ad.AnnData(sparse.csr_matrix(cells.X @ kept), cells.obs, cells.var)
    silent.layers["promoter"] = sparse.csr_matrix(cells.layers["promoter"] @ kept)
    names = pd.DataFrame(index=[*cells.var_names[:20], "x", "y", "z"])
    foreign = sparse.csr_matrix(np.ones((N_CELLS, 3), dtype=int))
    partial = ad.AnnData(sparse.hstack([cells.X[:, :20], foreign], "csr"), cells.obs, names)
    partial.layers["promoter"] = sparse.hstack([silent.layers["promoter"][:, :20], foreign], "csr")
    with caplog.at_level("INFO", logger="scdyn"):
        found = model.embed(partial)
    assert "20 of 23 genes are in the vocabulary of 30" in caplog.text
    np.testing.assert_allclose(found, model.embed(silent), rtol=1e-4, atol=1e-5)
    with pytest.raises(
        InputError, match=r"only 20 of its 23 genes .* 87% where min_overlap requires 90%"
    ):
        model.embed(partial, min_overlap=0.9)


def test_values_that_are_no_counts_are_refused(folder, cells):
    other = cells.copy()
    other.X = other.X * 0.5
    with pytest.raises(InputError, match="the counts in X are not integers"):
        scdyn.load(folder / "model").embed(other)


def test_promoters_that_are_not_there_are_not_closed_ones(folder, cells, caplog):
    rna = ad.AnnData(cells.X.copy(), cells.obs, cells.var)
    closed = cells.copy()
    closed.layers["promoter"] = sparse.csr_matrix(cells.shape)
    absent = closed.copy()
    absent.obs["promoter_source"] = "none"
    model = scdyn.load(folder / "model")
    with caplog.at_level("WARNING", logger="scdyn"):
        found = model.embed(rna)
    assert (
        "40 cells have no promoter counts, but all training cells of the model had" in caplog.text
    )
    np.testing.assert_allclose(found, model.embed(absent), rtol=1e-4, atol=1e-5)
    assert np.abs(found - model.embed(closed)).max() > 1e-3


def test_attention_is_shared_among_named_latents(folder, architecture, cells):
    model = scdyn.load(folder / "model")
    shares = model.attention(cells)
    assert list(shares.columns) == ["Gene1(+)", "Gene4(+)", "latent_2", "latent_3", "latent_4"]
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
    # One cell by hand.
    rna, promoter = densify(model.tokens(cells), np.array([3]))
    layer, attention = model.model.layers[1], model.model.layers[1].attention
    if architecture == "paper":
        tokens = model.model.run_to_last_full_layer(*model.model.bin(rna, promoter))
        normal = layer.attention_norm(tokens)
        own = normal[0, ((rna > 0) | (promoter > 0))[0]]
    else:
        tokens = model.model.layers[0](model.model.embed_tokens(rna, promoter))
        normal = tokens._replace(values=layer.attention_norm(tokens.values))
        own = normal.values[0]
    latents = attention.latents(normal)
    queries = attention.query(own).reshape(-1, 2, 8)
    weights = torch.softmax(torch.einsum("ghd,ld->ghl", queries, latents[0]) / 8**0.5, -1)
    np.testing.assert_allclose(shares.iloc[3], weights.mean((0, 1)).detach(), rtol=1e-4, atol=1e-6)


def test_expression_is_predicted_by_the_default_architecture_alone(folder, architecture, cells):
    model = scdyn.load(folder / "model")
    if architecture == "paper":
        assert load_decoder(folder / "model") is None
        with pytest.raises(InputError, match="architecture: paper predicts no expression"):
            model.regulons(cells)
    else:
        assert load_decoder(folder / "model").config == model.model.config
        assert model.regulons(cells).shape == (N_CELLS, 2)


def test_anchored_latents_begin_as_their_regulons(folder):
    config = json.loads((folder / "model" / "config.json").read_text())
    assert config["latents"][:2] == ["Gene1(+)", "Gene4(+)"]


def test_files_that_do_not_belong_together_are_refused(folder, tmp_path):
    for name in ("config.json", "model.safetensors", "vocabulary.tsv"):
        (tmp_path / name).write_bytes((folder / "model" / name).read_bytes())
    table = pd.read_csv(tmp_path / "vocabulary.tsv", sep="\t")
    table.iloc[::-1].to_csv(tmp_path / "vocabulary.tsv", sep="\t", index=False)
    with pytest.raises(InputError, match="not the vocabulary that the model was pretrained with"):
        scdyn.load(tmp_path)
    (tmp_path / "vocabulary.tsv").unlink()
    with pytest.raises(InputError, match="vocabulary.tsv cannot be read"):
        scdyn.load(tmp_path)


def split_in_two(folder):
    store = open_store(folder)
    split = pd.DataFrame({"cell": store.cells, "label": np.repeat(["x", "y"], N_CELLS // 2)})
    split["fold"] = (np.arange(N_CELLS) % 2).astype(str)
    split["validation"] = np.where(np.arange(N_CELLS) % 5 == 0, "1", "0")
    return split


@pytest.fixture(scope="module")
def task(folder):
    """What the rule finetune leaves of two folds and seeds, in a results folder of its layout."""
    store, split = open_store(folder), split_in_two(folder)
    settings = VariantSettings(
        rank=2, n_pools=2, hidden=4, dropout=0.0, head_steps=1,
        training={"epochs": 2, "batch_size": 8, "learning_rate": 1e-2},
    )  # fmt: skip
    for seed, fold in product((1, 2), "01"):
        run = folder / "finetune" / "task" / "scdynomics" / f"seed{seed}_fold{fold}"
        run.mkdir(parents=True)
        finetuning.finetune_run(
            store, split, "scdynomics", seed, fold, settings, folder / "model", run / "model",
            run / "checkpoints",
        )  # fmt: skip
    return folder / "finetune" / "task"


def test_a_task_in_the_notebook_predicts_as_the_workflow_did(task, cells):
    one = scdyn.load_task(task / "scdynomics" / "seed1_fold0" / "model").predict(cells)
    path = task / "scdynomics" / "seed1_fold0" / "model" / "predictions.parquet"
    expected = read_predictions(path).set_index("cell")
    found = one.loc[expected.index]
    assert found["predicted"].tolist() == expected["predicted"].tolist()
    for column in ("p_x", "familiarity"):
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-4, atol=1e-6)
    assert (one["unlike_seen"] == (one["familiarity"] < 0.01)).all()


def list_folders(task, fold):
    return [task / "scdynomics" / f"seed{seed}_fold{fold}" / "model" for seed in (1, 2)]


def test_the_seeds_of_a_fold_predict_as_the_ensemble_in_the_tables(task, folder, cells):
    folders = list_folders(task, "1")
    runs = list_runs([path / "predictions.parquet" for path in folders])
    ((rows, expected),) = iter_ensembles(runs, split_in_two(folder), ["x", "y"])
    for order in (folders, folders[::-1]):
        found = scdyn.load_task(order).predict(cells).iloc[rows]
        assert found["predicted"].tolist() == expected["predicted"].tolist()
        for column in ("p_x", "familiarity"):
            np.testing.assert_allclose(found[column], expected[column], rtol=1e-3, atol=1e-5)
    one = scdyn.load_task(folders[0]).predict(cells)
    assert not np.allclose(one["p_x"].iloc[rows], expected["p_x"], rtol=1e-3)


def test_all_folds_of_a_task_are_averaged(task, cells):
    both = scdyn.load_task(task)
    assert repr(both).startswith("FineTuned(2 classes: x, y; 4 runs")
    of_folds = [scdyn.load_task(list_folders(task, fold)).predict(cells) for fold in "01"]
    found = both.predict(cells)
    for column in ("p_x", "familiarity"):
        expected = np.mean([one[column] for one in of_folds], axis=0)
        np.testing.assert_allclose(found[column], expected)


def test_validation_cells_are_kept_with_the_probabilities_of_the_run(task, folder, cells):
    split, path = split_in_two(folder), task / "scdynomics" / "seed1_fold0" / "model"
    found = read_parquet(path / "validation.parquet")
    kept = split[(split["fold"] == "1") & (split["validation"] == "1")]
    assert found["cell"].tolist() == kept["cell"].tolist()
    assert found["label"].tolist() == kept["label"].tolist()
    expected = scdyn.load_task(path).predict(cells).loc[found["cell"]]
    np.testing.assert_allclose(found["p_x"], expected["p_x"], rtol=1e-3, atol=1e-5)


def test_a_folder_without_a_task_is_refused(tmp_path):
    with pytest.raises(InputError, match="no fine-tuned model found"):
        scdyn.load_task(tmp_path)


def ids_in_a_column(cells):
    cells.var["feature_name"], cells.var["ensembl_id"] = GENES["symbol"].to_numpy(), cells.var_names
    cells.var_names = [str(i) for i in range(cells.n_vars)]


def counts_in_raw(cells):
    cells.raw = cells.copy()
    cells.X = cells.X.log1p()


def ids_with_nan(cells):
    cells.var["gene_ids"] = [np.nan, np.nan, *cells.var_names[2:]]
    cells.var_names = GENES["symbol"].to_numpy()


@pytest.mark.parametrize("change", [ids_in_a_column, counts_in_raw, ids_with_nan])
def test_cells_as_notebooks_have_them_give_the_same_embedding(folder, cells, change):
    model = scdyn.load(folder / "model")
    expected = model.embed(cells)
    changed = cells.copy()
    change(changed)
    np.testing.assert_allclose(model.embed(changed), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["csr", "csc", "dense", "csr_array", "raw"])
@pytest.mark.parametrize("view", [False, True])
def test_backed_cells_give_the_same_embedding(folder, cells, form, view, tmp_path):
    model = scdyn.load(folder / "model")
    changed = cells.copy()
    if form == "raw":
        counts_in_raw(changed)
    else:
        forms = {
            "csc": sparse.csc_matrix, "csr_array": sparse.csr_array, "dense": lambda x: x.toarray(),
            "csr": sparse.csr_matrix,
        }  # fmt: skip
        changed.X = forms[form](changed.X)
    changed.write_h5ad(tmp_path / "s.h5ad")
    backed = ad.read_h5ad(tmp_path / "s.h5ad", backed="r")
    n_cells = 12 if view else N_CELLS
    found = model.embed(backed[:12] if view else backed)
    np.testing.assert_allclose(found, model.embed(cells)[:n_cells], rtol=1e-4, atol=1e-5)


def test_a_count_too_large_to_keep_is_refused(folder, cells):
    changed = cells.copy()
    changed.X = changed.X.astype(float)
    changed.X[0, 0] = 3e9
    with pytest.raises(InputError, match=r"adata: a count of 3e\+09"):
        scdyn.load(folder / "model").embed(changed)
