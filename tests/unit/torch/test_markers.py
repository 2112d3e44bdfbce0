"""Marker genes: chosen by their correlation with the classes, weighed by what classes explain."""

import numpy as np
import pytest
import torch
from test_finetune import write_model

from scdyn.data.loader import MemoryStore, densify
from scdyn.io.files import sha256
from scdyn.model.classifier import load_classifier
from scdyn.settings import VariantSettings
from scdyn.tasks import finetuning, markers
from scdyn.training.loop import TrainingConfig

ROWS = np.arange(90)


@pytest.fixture
def targets(cells):
    return np.unique(cells[1], return_inverse=True)[1]


def make_store(*counts):
    return MemoryStore.from_dense(*map(torch.from_numpy, counts))


def read_logs(model, store):
    logs, measured = model.normalise(*densify(store, ROWS))
    return logs.double().numpy(), measured.numpy()


def test_they_are_those_of_largest_correlation_and_scaled_by_the_explained_variance(
    model, cells, targets
):
    found = markers.choose_markers(model, cells[0], ROWS, targets, 3)
    logs, measured = read_logs(model, cells[0])
    deviation = np.empty(logs.shape[1])
    centre, explained, best = deviation.copy(), deviation.copy(), set()
    correlation = np.zeros((3, logs.shape[1]))
    for gene in range(logs.shape[1]):
        values, classes = logs[measured[:, gene], gene], targets[measured[:, gene]]
        centre[gene], deviation[gene] = values.mean(), values.std() + 0.01
        differences = [
            (values[classes == c] - values.mean()).sum() / ((classes == c).sum() + 20)
            for c in range(3)
        ]
        between = sum((classes == c).mean() * differences[c] ** 2 for c in range(3))
        explained[gene] = between / deviation[gene] ** 2
        for c in range(3):
            membership = (classes == c).astype(float)
            covariance = np.cov(values, membership, bias=True)[0, 1]
            correlation[c, gene] = covariance / deviation[gene] / membership.std()
    for c in range(3):
        best |= set(np.argsort(-np.abs(correlation[c]))[:3].tolist())
    assert found.genes.tolist() == sorted(best)
    genes = found.genes.numpy()
    np.testing.assert_allclose(found.centre, centre[genes], rtol=1e-4)
    np.testing.assert_allclose(found.scale, 2 * explained[genes] / deviation[genes], rtol=1e-4)
    read = markers.read_markers(model, cells[0], ROWS, found, "both")
    expected = 2 * explained[genes] * (logs[:, genes] - centre[genes]) / deviation[genes]
    assert np.abs(expected).max() < 10
    np.testing.assert_allclose(read, expected * measured[:, genes], rtol=1e-3, atol=1e-5)


def test_a_gene_of_one_class_weighs_more_than_noise(model, cells, targets):
    rna, promoter = (part.numpy().copy() for part in densify(cells[0], ROWS))
    generator = np.random.default_rng(1)
    rna[:, :] = generator.poisson(3, rna.shape)
    rna[targets == 1, 7] += 20
    store = make_store(rna, promoter)
    found = markers.choose_markers(model, store, ROWS, targets, 4, "rna")
    assert found.genes.max() < rna.shape[1]  # no promoters
    weight = dict(zip(found.genes.tolist(), found.scale.tolist(), strict=True))
    assert weight.pop(7) > 3 * max(weight.values())


def test_promoters_count_where_they_were_measured(model, cells, targets):
    rna, promoter = (part.numpy().copy() for part in densify(cells[0], ROWS))
    measured = ROWS % 2 == 0
    promoter[:] = np.random.default_rng(2).poisson(2, promoter.shape)
    promoter[targets == 2, 5] += 15
    promoter[~measured] = -1
    rna[:] = 1
    found = markers.choose_markers(model, make_store(rna, promoter), ROWS, targets, 1)
    gene = rna.shape[1] + 5
    assert gene in found.genes
    values = markers.read_markers(model, make_store(rna, promoter), ROWS, found, "both")
    assert not values[~measured].any() and values[measured].any(1).all()
    column = values[measured][:, found.genes.tolist().index(gene)]
    assert column[targets[measured] == 2].min() > column[targets[measured] != 2].max()


def test_without_markers_the_head_reads_features_alone(model, cells, targets):
    found = markers.choose_markers(model, cells[0], ROWS, targets, 0)
    assert not len(found.genes)
    assert markers.read_markers(model, cells[0], ROWS, found, "both").shape == (90, 0)


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_a_saved_classifier_has_its_markers(model, cells, tmp_path, adapter):
    write_model(model, tmp_path / "model")
    settings = VariantSettings(adapter=adapter, hidden=16, n_markers=2, head_steps=1)
    trained, _ = finetuning.fit_classifier(
        model, cells[0], ROWS, cells[1], settings,
        TrainingConfig(epochs=1, batch_size=9, learning_rate=5e-3),
    )  # fmt: skip
    (tmp_path / "task").mkdir()
    digest = sha256(tmp_path / "model" / "model.safetensors")
    trained.save(tmp_path / "task", settings, {"model_sha256": digest})
    loaded = load_classifier(tmp_path / "task", tmp_path / "model")
    assert loaded.head.markers.genes.tolist() == trained.head.markers.genes.tolist()
    counts = densify(cells[0], ROWS)
    with torch.no_grad():
        torch.testing.assert_close(loaded(*counts), trained(*counts), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_cells", [10, 97, 2399, 2400, 9000])
@pytest.mark.parametrize("epochs", [7, 40])
def test_few_cells_are_repeated_for_as_many_steps(n_cells, epochs):
    config = TrainingConfig(epochs=epochs, batch_size=min(32, n_cells), learning_rate=5e-3)
    places = finetuning.repeat_cells(n_cells, config, 3000)
    n_steps = epochs * (len(places) // config.batch_size)
    times = np.bincount(places, minlength=n_cells)
    assert np.ptp(times) <= 1
    if n_cells * epochs < 3000 * config.batch_size:
        assert 3000 <= n_steps < 3000 + epochs
    else:
        assert (times == 1).all() and n_steps >= 3000


def test_heads_and_encoders_have_epochs_of_their_own(model):
    settings = VariantSettings(head_epochs=30, training={"epochs": 5})
    lora = settings.model_copy(update={"adapter": "lora"})
    assert finetuning.configure_training(model, settings, 1, 0.25).epochs == 30
    assert finetuning.configure_training(model, lora, 1, 0.25).epochs == 10
