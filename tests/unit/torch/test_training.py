"""Training that learns, goes on where it was killed, and says so honestly."""

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from scdyn.data.loader import Loader, MemoryStore
from scdyn.data.tokens import NOT_MEASURED
from scdyn.errors import InputError
from scdyn.model.transformer import ScDynOmics
from scdyn.settings import VariantSettings
from scdyn.tasks import finetuning
from scdyn.training import loop, predictors, pretraining, progress
from scdyn.training.checkpoint import Checkpoint


def test_the_caption_states_how_many_cells_are_scored():
    text = (Path(__file__).parents[3] / "workflow/report/training.rst").read_text()
    assert f"Held-out cells (at most {pretraining.MOST_HELD_OUT:,})" in text
    assert f"at most {predictors.MOST_CELLS:,} training cells" in text


@pytest.fixture
def cells(config):
    """60 cells of two kinds, whose genes go together."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 2, 60)
    first = np.arange(config.n_genes) < 9
    rna = np.where(kind[:, None] == first[None], 4, 1) * (rng.random((60, config.n_genes)) < 0.8)
    promoter = np.where(kind[:, None] == first[None], 2, 0)
    return MemoryStore(*(sparse.csr_matrix(part.astype(np.uint8)) for part in (rna, promoter)))


TWO_EPOCHS = {"epochs": 2, "batch_size": 20, "learning_rate": 1e-2}


def run(config, cells, checkpoint=None, stop_at=None, **settings):
    torch.manual_seed(0)
    model = ScDynOmics(config)
    rows = np.arange(60)
    dropout = settings.pop("promoter_dropout", 0.0)
    task = pretraining.MaskedPretraining(model, cells, rows, rows, 0.15, 0, dropout)
    settings = {"epochs": 6, "batch_size": 8, "learning_rate": 1e-2, "seed": 3} | settings

    def compute_loss(*arguments):
        if stop_at is not None and compute_loss.steps == stop_at:
            raise KeyboardInterrupt
        compute_loss.steps += 1
        return task.compute_loss(*arguments)

    compute_loss.steps = 0
    training_config = loop.TrainingConfig(**settings)
    history = loop.Training(
        model, compute_loss, task.weigh, task.load, 60, training_config, task.evaluate, checkpoint
    ).run()
    return model, task, history


def test_training_beats_predictors_that_know_only_the_gene(config, cells):
    _, task, history = run(config, cells, epochs=30)
    rows = np.arange(60)
    trivial = predictors.trivial_losses(cells, rows, rows, config.n_genes, config.n_bins)
    assert history[-1]["masked_loss"] < 0.8 * trivial["frequency_masked_loss"]
    assert trivial["frequency_masked_loss"] <= trivial["mode_masked_loss"]
    measures = [name for name in history[-1] if name.endswith(("masked_loss", "zero_loss"))]
    assert {f"mean_{name}" for name in measures} <= set(trivial)  # each has its like beside it


def test_trivial_losses_as_worked_out_by_hand(config):
    # One gene with bins 1, 1, 2 and a zero where the promoter is open; one is added to each
    # of the 6 + 1 bins.
    rna = sparse.csr_matrix(np.array([[1], [1], [2], [0]], dtype=np.uint8))
    promoter = sparse.csr_matrix(np.array([[1], [1], [1], [1]], dtype=np.uint8))
    store = MemoryStore(rna, promoter)
    frequencies, _ = predictors.gene_frequencies(store, np.arange(4), 1, 6)
    np.testing.assert_allclose(frequencies, np.array([[2, 3, 2, 1, 1, 1, 1]]) / 11)
    trivial = predictors.trivial_predictors(frequencies)
    assert trivial["mode"][0, 1] == pytest.approx(3 / 11)
    np.testing.assert_allclose(trivial["mode"][0, [0, 2, 3]], 8 / 11 / 6)
    # The mean bin is (3 x 1 + 2 x 2 + 3 + 4 + 5 + 6) / 11 = 2.3.
    assert trivial["mean"][0, 2] == pytest.approx(2 / 11)
    np.testing.assert_allclose(trivial["mean"][0, [0, 1, 3]], 9 / 11 / 6)
    losses = predictors.trivial_losses(store, np.arange(4), np.arange(4), 1, 6)
    right, wrong = -np.log(3 / 11), -np.log(8 / 11 / 6)
    assert losses["mode_rna_zero_loss"] == pytest.approx(wrong)
    assert losses["mode_rna_nonzero_loss"] == pytest.approx((2 * right + wrong) / 3)
    assert losses["mode_rna_masked_loss"] == pytest.approx((right + wrong) / 2)
    # All promoters are open with bin 1: counted five times of eleven.
    assert losses["mode_promoter_masked_loss"] == pytest.approx(-np.log(5 / 11))
    assert "mode_promoter_zero_loss" not in losses


def test_a_killed_run_ends_with_the_same_weights(config, cells, tmp_path, monkeypatch):
    straight, _, history = run(config, cells)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)  # after every step
    identity = {"any": "thing"}
    for stop_at in (5, 11, 2):  # killed three times, in mid-epoch
        with pytest.raises(KeyboardInterrupt):
            run(config, cells, Checkpoint(tmp_path / "c", identity), stop_at)
    resumed, _, resumed_history = run(config, cells, Checkpoint(tmp_path / "c", identity))
    for name, parameter in straight.state_dict().items():
        assert torch.equal(parameter, resumed.state_dict()[name]), name
    for a, b in zip(history, resumed_history, strict=True):
        assert a["loss"] == b["loss"] and a["masked_loss"] == b["masked_loss"]


def test_dropout_is_part_of_what_a_resumed_run_repeats(config, cells, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    config = type(config)(**{**config.to_dict(), "dropout": 0.3})
    straight, _, _ = run(config, cells)
    with pytest.raises(KeyboardInterrupt):
        run(config, cells, Checkpoint(tmp_path / "c", {}), 10)
    resumed, _, _ = run(config, cells, Checkpoint(tmp_path / "c", {}))
    for name, parameter in straight.state_dict().items():
        assert torch.equal(parameter, resumed.state_dict()[name]), name


def test_a_checkpoint_of_other_settings_is_not_gone_on_from(config, cells, tmp_path):
    run(config, cells, Checkpoint(tmp_path / "c", {"seed": 1}), epochs=1)
    model = ScDynOmics(config)
    optimizer = torch.optim.AdamW(model.parameters())
    assert Checkpoint(tmp_path / "c", {"seed": 2}).restore(model, optimizer) is None
    assert Checkpoint(tmp_path / "c", {"seed": 1}).restore(model, optimizer)["step"] == 7


@pytest.fixture
def uneven(cells):
    """Cells that express, and hide, other numbers of genes; a third without promoters."""
    silent = np.random.default_rng(1).random(cells.rna.shape) < np.linspace(0, 0.9, 60)[:, None]
    rna, promoter = (part.multiply(~silent).tocsr() for part in (cells.rna, cells.promoter))
    return MemoryStore(rna, promoter, np.arange(60) % 3 > 0)


def pretraining_run(config, store, micro_batch=None):
    torch.manual_seed(0)
    model = ScDynOmics(config).double()
    rows = np.arange(60)
    task = pretraining.MaskedPretraining(model, store, rows, rows, 0.15, 0, 0.3)
    settings = loop.TrainingConfig(**TWO_EPOCHS, micro_batch=micro_batch, seed=3)
    return loop.Training(model, task.compute_loss, task.weigh, task.load, 60, settings)


def fine_tuning_run(config, store, micro_batch=None):
    """One that is laid out and not run: labels of which some are rare, and so weigh more."""
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning.Training, "run", lambda run: made.append(run))
        torch.manual_seed(0)
        settings = VariantSettings(
            adapter="lora", rank=2, modalities="both", n_pools=3, hidden=8, dropout=0.0
        )
        config_of_run = loop.TrainingConfig(**TWO_EPOCHS, micro_batch=micro_batch, seed=3)
        finetuning.fit_classifier(
            ScDynOmics(config), store, np.arange(60), np.repeat(["x", "y", "z"], [3, 12, 45]),
            settings, config_of_run,
        )  # fmt: skip
    return made[0]


@pytest.mark.parametrize("make", [pretraining_run, fine_tuning_run])
@pytest.mark.parametrize("micro_batch", [8, 3, 1])
def test_parts_of_a_batch_add_up_to_it(config, uneven, make, micro_batch):
    """20 cells at once, or 7 7 6, or 3 3 3 3 3 3 2, or one by one: loss and gradients."""
    results = []
    for most in (None, micro_batch):
        training = make(config, uneven, most)
        parts = loop.plan_epoch(0, 60, training.config, training.micro_batch)[0]
        assert len(parts) == (1 if most is None else -(-20 // most))
        bins = iter(training.load([part.positions for part in parts]))
        loss = training.add_gradients(parts, bins)
        gradients = {name: p.grad for name, p in training.module.named_parameters()}
        results.append((loss, {name: g for name, g in gradients.items() if g is not None}))
    (loss, whole), (summed, by_parts) = results
    torch.testing.assert_close(summed, loss, rtol=1e-5, atol=0)
    assert whole.keys() == by_parts.keys()
    norm = torch.stack([gradient.norm() for gradient in whole.values()]).norm()
    for name, gradient in whole.items():
        assert (by_parts[name] - gradient).norm() < 1e-5 * norm, name


def test_cells_that_do_not_fit_a_gpu_are_taken_in_parts(config, uneven, caplog):
    """The error is raised as CUDA raises it, whenever more than three cells come at once."""
    weights = []
    for fits in (20, 3):
        run = pretraining_run(config, uneven)
        own = run.compute_loss

        def compute_loss(part, rna, promoter, totals, own=own, fits=fits):
            if len(rna) > fits:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return own(part, rna, promoter, totals)

        run.compute_loss = compute_loss
        history = run.run()
        assert [record["step"] for record in history] == [3, 6]
        weights.append(run.module.state_dict())
    assert run.micro_batch == 2
    assert "out of memory with 5 cells at once; retrying with 2" in caplog.text
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-4, atol=1e-6)


def test_a_step_without_an_expressed_gene_changes_nothing_and_harms_nothing(config):
    empty = sparse.csr_matrix((60, config.n_genes), dtype=np.uint8)
    run = pretraining_run(config, MemoryStore(empty, empty))
    assert [record["loss"] for record in run.run()] == [0.0, 0.0]
    assert all(p.isfinite().all() for p in run.module.parameters())


def count(part, *_):
    return torch.tensor([float(len(part.positions))])


def test_a_model_too_large_for_one_cell_is_refused(cells):
    def compute_loss(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    module = torch.nn.Linear(17, 1)
    load = lambda parts: Loader(cells, parts)  # noqa: E731
    run = loop.Training(module, compute_loss, count, load, 60, loop.TrainingConfig(**TWO_EPOCHS))
    with pytest.raises(
        InputError, match="out of memory with one cell at once; choose a smaller model"
    ):
        run.run()


def test_rate_rises_again_after_a_restart():
    config = loop.TrainingConfig(epochs=1, batch_size=1, learning_rate=1.0, warmup=0.0, cycles=2)
    rates = [loop.learning_rate(step, 101, config) for step in range(101)]
    assert rates[50] < 0.01 and rates[51] > 0.99 and rates[-1] < 0.01


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_no_number_ends_the_run_and_is_not_saved(
    cells, tmp_path, monkeypatch, broken
):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)  # after every step
    module = torch.nn.Linear(17, 1)
    checkpoint = Checkpoint(tmp_path / "c", {})

    def compute_loss(part, rna, promoter, totals):
        loss = module(rna.float()).square().sum() / totals[0]
        if run.step == 4:  # the second of the second epoch's three
            loss = loss * float("nan") if broken == "loss" else loss + (0 * loss).sqrt()
        return loss

    config = loop.TrainingConfig(epochs=3, batch_size=20, learning_rate=1e-2)
    load = lambda parts: Loader(cells, parts)  # noqa: E731
    run = loop.Training(module, compute_loss, count, load, 60, config, checkpoint=checkpoint)
    with pytest.raises(InputError, match="the loss is nan in epoch 2, step 5; lower learning_rate"):
        run.run()
    state = checkpoint.restore(module, run.optimizer)
    assert state["step"] == 4
    assert all(p.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize(
    ("slow", "name", "late"),
    [(pretraining, "masked_losses", False), (MemoryStore, "read", True)],
)
def test_a_loader_that_falls_behind_is_named_in_the_log(
    config, cells, monkeypatch, caplog, slow, name, late
):
    function = getattr(slow, name)
    monkeypatch.setattr(slow, name, lambda *given: (time.sleep(0.1), function(*given))[1])
    monkeypatch.setattr(progress, "PROGRESS_SECONDS", 0.0)
    with caplog.at_level("INFO", logger="scdyn"):
        run(config, cells, epochs=1)
    last = [message for message in caplog.messages if message.startswith("step")][-1]
    assert "cells/s" in last
    assert ("of the time waiting for data" in last) == late


@pytest.mark.parametrize("long", [True, False])
def test_a_pilot_of_a_few_steps_tells_how_long_the_run_will_take(
    config, cells, monkeypatch, caplog, long
):
    monkeypatch.setattr(progress, "LONG_SECONDS", 0.0 if long else 1e6)
    with caplog.at_level("INFO", logger="scdyn"):
        run(config, cells, epochs=4)
    (said,) = [message for message in caplog.messages if message.startswith("after a pilot")]
    n_threads = torch.get_num_threads()
    words = (
        r"after a pilot of 3 steps: the remaining (\d+) steps will take about \d+ s on the CPU with"
    )
    found = re.match(rf"{words} {n_threads} threads", said)
    assert int(found[1]) > 0
    assert ("a model of this size needs a GPU" in said) == long


def test_evaluation_is_the_same_each_time_and_by_batch_size(config, uneven, monkeypatch):
    _, task, _ = run(config, uneven, epochs=1)
    scores = task.evaluate()
    assert task.evaluate() == scores
    assert len(scores) == 8
    for batch_size in (1, 7, 60):
        monkeypatch.setattr(pretraining, "SCORED_AT_ONCE", batch_size)
        assert task.evaluate() == pytest.approx(scores, rel=1e-4)


def test_rate_warms_up_and_falls_to_zero():
    config = loop.TrainingConfig(epochs=1, batch_size=1, learning_rate=1.0, warmup=0.1)
    rates = [loop.learning_rate(step, 100, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == 1.0 and rates[-1] < 0.01
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_decay_spares_norms_biases_and_embeddings(model):
    decayed = {name for name, p in model.named_parameters() if loop.decays(name, p)}
    assert "layers.0.attention.compress.weight" in decayed
    assert not any("norm" in name or "bias" in name or "embedding" in name for name in decayed)


def test_masked_loss_is_the_cross_entropy_at_hidden_genes(model, cells, config):
    rna, promoter = (torch.from_numpy(part.toarray()) for part in cells.read(np.arange(5)))
    noise = pretraining.draw_noise(7, 5, rna)
    losses, _, bins, _ = pretraining.masked_losses(model, rna, promoter, 0.15, noise)
    masked = pretraining.mask_genes(rna, promoter, 0.15, config.mask_id, noise)
    logits, _ = model.decode(model(masked[0], masked[1]))
    expected = [
        -torch.log_softmax(logits[i, j], 0)[int(rna[i, j])]
        for i, (genes, hidden) in enumerate(zip(masked[2], masked[3], strict=True))
        for j in genes[hidden].tolist()
    ]
    torch.testing.assert_close(losses, torch.stack(expected))


def test_history_is_plain_json(config, cells):
    _, _, history = run(config, cells, epochs=1)
    assert json.loads(json.dumps(history))[0]["epoch"] == 1


def test_cells_of_rna_alone_are_learned_from_and_scored_by_rna_alone(config, cells):
    alone = MemoryStore(cells.rna, cells.promoter, np.zeros(60, dtype=bool))
    model, _, history = run(config, alone, epochs=30)
    scores = history[-1]
    assert scores["masked_loss"] == scores["rna_masked_loss"]
    assert np.isfinite(scores["full_loss"])
    assert not any(name.startswith("promoter") for name in scores)
    trivial = predictors.trivial_losses(
        alone, np.arange(60), np.arange(60), config.n_genes, config.n_bins
    )
    assert scores["masked_loss"] < 0.8 * trivial["frequency_masked_loss"]
    assert not any("promoter" in name for name in trivial)
    assert model.promoter_embedding.weight[config.not_measured_id].abs().max() > 0


def test_losses_of_cells_with_promoters_are_the_same_beside_cells_without(model, cells):
    rna, promoter = (torch.from_numpy(part.toarray()) for part in cells.read(np.arange(4)))
    promoter[2:] = NOT_MEASURED
    apart = [pretraining.full_losses(model, rna[i], promoter[i]) for i in (slice(2), slice(2, 4))]
    for together, first, second in zip(
        pretraining.full_losses(model, rna, promoter), *apart, strict=True
    ):
        torch.testing.assert_close(together, torch.cat([first, second]), equal_nan=True)
    assert torch.isnan(apart[1][1]).all() and not torch.isnan(apart[1][0]).any()


def test_promoters_left_out_in_training_teach_the_model_to_do_without(config, cells):
    alone = MemoryStore(cells.rna, cells.promoter, np.zeros(60, dtype=bool))
    losses = []
    for share in (0.0, 0.5):
        model, _, _ = run(config, cells, epochs=30, promoter_dropout=share)
        task = pretraining.MaskedPretraining(model, alone, np.arange(60), np.arange(60), 0.15, 0)
        losses.append(task.evaluate()["rna_masked_loss"])
    assert losses[1] < losses[0]
