"""Adapters that change nothing before training, and attributions that add up."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import sparse

from scdyn import finetune, kernels
from scdyn.errors import InputError
from scdyn.files import sha256
from scdyn.loader import MemoryStore
from scdyn.model import ModelConfig, ScDynOmics
from scdyn.training import TrainingConfig


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


def dense(store, rows):
    return tuple(torch.from_numpy(part.toarray()) for part in store.read(rows))


@pytest.fixture
def trained(model, cells):
    store, labels = cells
    config = TrainingConfig(epochs=12, batch_size=9, learning_rate=5e-3)
    head = finetune.HeadConfig(n_pools=4, hidden=16, dropout=0.0)
    return finetune.fit_classifier(model, store, np.arange(90), labels, 4, head, config)[0]


def test_wrapped_equals_base_at_initialisation(model, bins):
    expected = model.double()(*bins).detach()
    wrapped = finetune.adapt(model, 4).double()
    torch.testing.assert_close(wrapped(*bins), expected, rtol=1e-12, atol=1e-12)


def test_every_layers_attention_and_ffn_is_adapted_and_nothing_else_trained(model):
    wrapped = finetune.adapt(model, 4)
    names = [name for name, p in wrapped.named_parameters() if p.requires_grad]
    assert all("lora_" in name for name in names)
    for i in range(4):
        for part in ("query", "key_value", "output", "ffn_in", "ffn_out"):
            found = [name for name in names if f"layers.{i}." in name and f".{part}." in name]
            assert len(found) == 2, (i, part)


def test_trained_differs_from_base_and_equals_its_merged_form(trained, bins):
    wrapped = trained(*bins)
    with trained.encoder.disable_adapter():
        assert not torch.allclose(trained(*bins), wrapped, atol=1e-3)
    torch.testing.assert_close(trained.merge()(*bins), wrapped, rtol=1e-4, atol=1e-5)


def test_adapters_train_alike_with_and_without_the_kernels(monkeypatch):
    torch.manual_seed(0)
    config = ModelConfig(
        20, 5, n_bins=6, width=32, n_layers=2, n_heads=2, n_latents=4, ffn_width=48
    )
    wrapped = finetune.adapt(ScDynOmics(config).eval(), 4)
    trained = [p for p in wrapped.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            parameter.normal_(std=0.1)
    rna = torch.arange(60).reshape(3, 20) % 7
    results = []
    for _ in range(2):
        output = wrapped(rna, rna // 2)
        results.append([output, *torch.autograd.grad(output.square().sum(), trained)])
        monkeypatch.setattr(kernels, "library", lambda *_: None)
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-3, atol=1e-3)


def test_adapters_work_in_bfloat16(trained, bins):
    expected = trained(*bins)
    with trained.encoder.disable_adapter():
        base = trained(*bins)
    trained.encoder.set_precision("bfloat16")
    assert 0 < (trained(*bins) - expected).norm() < 0.05 * expected.norm()
    with trained.encoder.disable_adapter():
        assert 0 < (trained(*bins) - base).norm() < 0.05 * base.norm()


def test_silent_genes_and_the_rest_of_the_batch_do_not_count(trained, cells):
    rna, promoter = dense(cells[0], np.arange(5))
    together = trained(rna, promoter)
    alone = torch.cat([trained(rna[i : i + 1], promoter[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    zero = torch.zeros(1, rna.shape[1], dtype=torch.uint8)
    representations = trained.encoder(zero, zero)
    nothing = torch.zeros_like(zero, dtype=torch.bool)
    expected = trained.head(torch.randn_like(representations), representations, nothing)
    torch.testing.assert_close(trained(zero, zero), expected)


def test_classes_are_learned(trained, cells):
    store, labels = cells
    p = finetune.predict(trained, store, np.arange(90))
    np.testing.assert_allclose(p.sum(1), 1)
    assert (np.array(trained.classes)[p.argmax(1)] == labels).mean() > 0.95


def write_model(model, folder):
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    content = {"model": model.config.to_dict(), "tokens": {"vocabulary_sha256": "abc"}}
    (folder / "config.json").write_text(json.dumps(content))


def test_classifier_comes_back_from_its_files(config, cells, tmp_path):
    torch.manual_seed(0)
    model = ScDynOmics(config).eval()
    write_model(model, tmp_path / "model")
    store, labels = cells
    rows = np.arange(90)
    head = finetune.HeadConfig(n_pools=2, hidden=8, dropout=0.0)
    training = TrainingConfig(epochs=2, batch_size=9, learning_rate=5e-3)
    classifier, _ = finetune.fit_classifier(model, store, rows, labels, 2, head, training)
    (tmp_path / "task").mkdir()
    description = {
        "model_sha256": sha256(tmp_path / "model" / "model.safetensors"),
        "head": {"n_pools": 2, "hidden": 8, "dropout": 0.0},
    }
    classifier.save(tmp_path / "task", description)
    names = {path.name for path in (tmp_path / "task").iterdir()}
    assert names == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "head.safetensors",
        "task.json",
    }
    loaded = finetune.load_classifier(tmp_path / "task", tmp_path / "model")
    np.testing.assert_allclose(
        finetune.predict(loaded, store, rows),
        finetune.predict(classifier, store, rows),
        atol=1e-6,
    )

    other = ScDynOmics(config)
    write_model(other, tmp_path / "other")
    with pytest.raises(InputError, match="another model"):
        finetune.load_classifier(tmp_path / "task", tmp_path / "other")
    with pytest.raises(InputError, match="another vocabulary"):
        finetune.load_model(tmp_path / "other", {"vocabulary_sha256": "xyz"})


def test_a_model_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        finetune.load_model(tmp_path)


def test_cells_without_promoters_are_called_beside_others(trained, cells):
    store = MemoryStore(*cells[0].read(np.arange(90)), np.arange(90) % 2 == 0)
    trained.merge()
    together = finetune.predict(trained, store, np.arange(6))
    for rows in (np.array([0, 2, 4]), np.array([1, 3, 5])):
        apart = finetune.predict(trained, store, rows)
        np.testing.assert_allclose(together[rows], apart, rtol=1e-4, atol=1e-6)
