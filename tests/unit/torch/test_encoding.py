"""Cells that are encoded once: the same in any company, thinned by their row, resumed."""

import os

import numpy as np
import pandas as pd
import pytest
import torch
from test_finetune import NamedStore, write_model

from scdyn.data.loader import MemoryStore, densify
from scdyn.errors import InputError
from scdyn.model import adapters, classifier, embedding
from scdyn.settings import EncodingSettings, VariantSettings
from scdyn.tasks import encoding, finetuning
from scdyn.tasks.predictions import read_predictions
from scdyn.training.loop import TrainingConfig

SETTINGS = EncodingSettings(thinning=0.5, views=4)


@pytest.fixture
def model(model, cells):
    embedding.start_from_components(model, cells[0], np.arange(90), seed=1)
    return model


def test_the_first_view_is_of_all_counts_and_the_others_of_thinned_ones(model, cells):
    found = encoding.encode(model, cells[0], np.arange(90), SETTINGS)
    assert found.shape == (90, 4, model.config.n_features) and found.dtype == np.float32
    with torch.no_grad():
        expected = model.describe(*densify(cells[0], np.arange(90))).features.numpy()
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4, atol=1e-5)
    assert all((found[:, i] != found[:, j]).any(1).mean() > 0.8 for i in range(4) for j in range(i))
    # Thinned cells are still themselves: nearer to their own vector than to most others.
    distances = np.linalg.norm(found[:, 1, None] - expected, axis=2)
    assert (distances.argsort(1)[:, :10] == np.arange(90)[:, None]).any(1).mean() > 0.7


def test_a_cell_is_the_same_in_any_company(model, cells):
    together = encoding.encode(model, cells[0], np.arange(90), SETTINGS)
    rows = np.array([40, 3, 77])
    alone = encoding.encode(model, cells[0], rows, SETTINGS)
    np.testing.assert_allclose(alone, together[rows], rtol=1e-4, atol=1e-5)


def test_without_thinning_there_is_one_view(model, cells):
    found = encoding.encode(model, cells[0], np.arange(5), EncodingSettings(thinning=1.0))
    assert found.shape[1] == 1


def test_a_modality_that_is_not_used_is_not_read(model, cells):
    settings = EncodingSettings(modalities="rna", thinning=0.5)
    rna, promoter = densify(cells[0], np.arange(9))
    stores = [MemoryStore.from_dense(rna, other) for other in (promoter, promoter * 0 + 2)]
    one, other = (encoding.encode(model, store, np.arange(9), settings) for store in stores)
    np.testing.assert_array_equal(one, other)


def test_a_head_predicts_encoded_cells_as_the_classifier_predicts_their_counts(model, cells):
    store, labels = cells
    features = encoding.encode(model, store, np.arange(90), SETTINGS)
    settings = VariantSettings(hidden=16, head_steps=1)
    config = TrainingConfig(epochs=30, batch_size=9, learning_rate=5e-3)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    trained, history = finetuning.fit_classifier(
        model, store, np.arange(90), labels, settings, config, features=features
    )
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert len(history) == 30 and history[-1]["loss"] < 0.7 * history[0]["loss"]
    inputs = finetuning.append_markers(features[:, 0], trained, store, np.arange(90))
    assert (
        inputs.shape[1] == features.shape[2] + len(trained.head.markers.genes) > features.shape[2]
    )
    by_head = classifier.run_head(trained.head, inputs)
    by_counts = classifier.run_classifier(trained, store, np.arange(90))
    for one, other in zip(by_head, by_counts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    assert (np.array(trained.classes)[by_head[0].argmax(1)] == labels).mean() > 0.9


def test_a_larger_penalty_makes_smaller_weights(model, cells):
    features = encoding.encode(model, cells[0], np.arange(90), SETTINGS)
    config = TrainingConfig(epochs=10, batch_size=9, learning_rate=5e-3)
    sizes = []
    for penalty in (0.0, 0.01, 0.3):
        trained, _ = finetuning.fit_classifier(
            model, cells[0], np.arange(90), cells[1],
            VariantSettings(hidden=16, penalty=penalty, head_steps=1), config, features=features,
        )  # fmt: skip
        sizes.append(sum(p.square().sum().item() for p in trained.head.parameters()))
    assert sizes[0] > 1.05 * sizes[1] > 2 * sizes[2]


class Shelf(NamedStore):
    """Cells with what a corpus of tokens knows."""

    meta = {"vocabulary_sha256": "abc"}

    class corpus:
        id = "of-these-cells"


@pytest.fixture
def study(model, cells, tmp_path):
    write_model(model, tmp_path / "model")
    return Shelf(cells[0].rna, cells[0].promoter), tmp_path / "model"


def test_encoded_cells_come_back_by_name_and_parts_are_removed(study, model, cells, tmp_path):
    store, folder = study
    names = pd.Series(["30", "4", "60", "5"])
    path, parts = tmp_path / "encoded.zarr", tmp_path / "parts"
    encoding.write_encoded_cells(store, names, SETTINGS, folder, path, parts)
    assert not parts.exists()
    read = encoding.open_encoded_cells(path, store, SETTINGS, folder)
    assert read.seconds > 0
    expected = encoding.encode(model, cells[0], np.array([60, 30]), SETTINGS)
    np.testing.assert_allclose(read.read(pd.Series(["60", "30"])), expected, rtol=1e-4, atol=1e-5)
    in_memory = encoding.encode_cells(store, names, SETTINGS, folder)
    np.testing.assert_array_equal(in_memory.read(names), read.read(names))
    np.testing.assert_array_equal(in_memory.read(names, 0), read.read(names)[:, 0])
    np.testing.assert_array_equal(in_memory.read(names, 0), read.read(names, 0))
    for each in (in_memory, read):
        with pytest.raises(InputError, match="1 cells are not among the encoded ones, such as 7"):
            each.read(pd.Series(["4", "7"]))


@pytest.mark.parametrize("change", ["nothing", "settings", "cells", "model"])
def test_parts_of_a_killed_job_are_used_if_they_are_of_the_same(
    study, tmp_path, monkeypatch, change
):
    store, folder = study
    monkeypatch.setattr(encoding, "CELLS_PER_PART", 4)
    names = pd.Series(np.arange(10).astype(str))
    path, parts = tmp_path / "encoded.zarr", tmp_path / "parts"
    calls, encode = [], encoding.encode

    def counted(model, store, rows, settings):
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(model, store, rows, settings)

    monkeypatch.setattr(encoding, "encode", counted)
    with pytest.raises(KeyboardInterrupt):
        encoding.write_encoded_cells(store, names, SETTINGS, folder, path, parts)
    assert not path.exists() and calls == [4, 4, 2]
    settings = SETTINGS.model_copy(update={"thinning": 0.6} if change == "settings" else {})
    if change == "cells":
        names = pd.Series(np.arange(1, 11).astype(str))
    if change == "model":
        other = adapters.reinitialise(encoding.load_encoder(folder, store), 7)
        write_model(other, tmp_path / "other")
        folder = tmp_path / "other"
    encoding.write_encoded_cells(store, names, settings, folder, path, parts)
    assert calls[3:] == ([2] if change == "nothing" else [4, 4, 2])
    expected = encode(encoding.load_encoder(folder, store), store, store.find_rows(names), settings)
    found = encoding.open_encoded_cells(path, store, settings, folder).read(names)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def written(study, tmp_path):
    path = tmp_path / "encoded.zarr"
    names = pd.Series(["1", "2"])
    encoding.write_encoded_cells(study[0], names, SETTINGS, study[1], path, tmp_path / "parts")
    return path


@pytest.mark.parametrize("lost", ["zarr.json", "c/0/0/0"])
def test_a_damaged_file_is_named(study, written, lost):
    (written / "obsm" / encoding.FEATURES / lost).unlink()
    with pytest.raises(InputError, match=r"encoded.zarr.* was changed or truncated"):
        encoding.open_encoded_cells(written, study[0], SETTINGS, study[1])


def test_a_file_that_was_cut_short_is_named(study, written):
    opened = encoding.open_encoded_cells(written, study[0], SETTINGS, study[1])
    os.truncate(written / "obsm" / encoding.FEATURES / "c/0/0/0", 100)
    with pytest.raises(InputError, match=r"encoded.zarr.* was changed or truncated"):
        opened.read(pd.Series(["1"]))


@pytest.mark.parametrize("changed", ["model", "corpus", "settings"])
def test_a_file_of_another_model_corpus_or_settings_is_refused(
    study, model, written, tmp_path, changed
):
    (store, folder), settings = study, SETTINGS
    if changed == "model":
        write_model(adapters.reinitialise(model, 7), tmp_path / "other")
        folder = tmp_path / "other"
    elif changed == "corpus":
        store.corpus = type("corpus", (), {"id": "another"})
    else:
        settings = SETTINGS.model_copy(update={"modalities": "rna"})
    with pytest.raises(InputError, match=f"was encoded with another {changed} than this run's"):
        encoding.open_encoded_cells(written, store, settings, folder)


@pytest.mark.parametrize("both_configs", ["paper"], indirect=True)
def test_the_papers_model_is_refused(encoder, cells, tmp_path):
    write_model(encoder, tmp_path / "model")
    with pytest.raises(InputError, match="architecture: paper cannot be encoded once"):
        encoding.load_encoder(tmp_path / "model", Shelf(cells[0].rna, cells[0].promoter))


@pytest.fixture
def split(cells):
    table = pd.DataFrame({"cell": np.arange(90).astype(str), "label": cells[1]})
    table["fold"] = (np.arange(90) % 3).astype(str)
    table["validation"] = np.where(np.arange(90) % 5 == 0, "1", "0")
    return table


RUN = VariantSettings(
    hidden=16, thinning=0.5, views=2, head_epochs=5, head_steps=1, training={"batch_size": 9}
)


def test_a_run_is_the_same_by_the_file_as_in_memory(study, split, tmp_path):
    store, folder = study
    path = tmp_path / "encoded.zarr"
    encoding.write_encoded_cells(store, split["cell"], RUN, folder, path, tmp_path / "parts")
    opened = encoding.open_encoded_cells(path, store, RUN, folder)
    tables = []
    for name, encoded in (("file", opened), ("memory", None)):
        finetuning.finetune_run(
            store,
            split,
            "scdynomics",
            1,
            "0",
            RUN,
            folder,
            tmp_path / name,
            tmp_path / "c",
            encoded,
        )
        tables.append(read_predictions(tmp_path / name / "predictions.parquet"))
        assert len((tmp_path / name / "metrics.jsonl").read_text().splitlines()) == 5
    pd.testing.assert_frame_equal(*tables, rtol=1e-4, atol=1e-6)


def test_a_head_goes_on_from_its_checkpoint_with_the_same_numbers(
    study, split, tmp_path, monkeypatch
):
    store, folder = study
    take_step = finetuning.Training.take_step

    def run(name, stop_at=None):
        def take_or_stop(training, *cells):
            if training.step == stop_at:
                raise KeyboardInterrupt
            return take_step(training, *cells)

        monkeypatch.setattr(finetuning.Training, "take_step", take_or_stop)
        finetuning.finetune_run(
            store, split, "scdynomics", 1, "0", RUN, folder, tmp_path / name, tmp_path / "c"
        )

    run("straight")
    with pytest.raises(KeyboardInterrupt):
        run("resumed", stop_at=13)  # within the third of five epochs of five steps
    assert list((tmp_path / "c").glob("step-*"))
    run("resumed")
    one, other = (
        (tmp_path / name / "head.safetensors").read_bytes() for name in ("straight", "resumed")
    )
    assert one == other
