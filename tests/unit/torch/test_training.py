"""Training that learns, goes on where it was killed, and says so honestly."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_rates
from scipy import sparse

from scdyn.data.loader import NOT_MEASURED, Loader, MemoryStore, densify
from scdyn.errors import InputError
from scdyn.model.embedding import start_from_components
from scdyn.model.paper import PaperModel
from scdyn.model.transformer import ScDynOmics
from scdyn.settings import PretrainingSettings, VariantSettings
from scdyn.tasks import finetuning
from scdyn.training import loop, masked, objectives, predictors, pretraining, progress
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


def make_paper_task(config, store, promoter_dropout=0.0):
    torch.manual_seed(0)
    model = PaperModel(replace(config, architecture="paper", n_bins=14), make_rates(config.n_genes))
    rows = np.arange(60)
    return masked.MaskedPretraining(model, store, rows, rows, 0.15, 0, promoter_dropout)


def make_task(config, store, promoter_dropout=0.0):
    """Both objectives of the model, with hidden zeros."""
    torch.manual_seed(0)
    rows = np.arange(60)
    settings = PretrainingSettings(
        width=12, n_heads=3, hidden_values=0.5, promoter_dropout=promoter_dropout
    )
    profile = objectives.sum_counts(store, rows)
    model = ScDynOmics(config)
    start_from_components(model, store, rows, seed=1)
    return objectives.Pretraining(model, store, rows, rows, settings, profile)


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    """Micro-batches of three cells are of one group."""
    monkeypatch.setattr(objectives, "COMPARED", 2)


TASKS = pytest.mark.parametrize("make", [make_task, make_paper_task])


def run(task, checkpoint=None, stop_at=None, **settings):
    settings = {"epochs": 6, "batch_size": 8, "learning_rate": 1e-2, "seed": 3} | settings
    config = loop.TrainingConfig(**settings)
    training = loop.Training(task.model, task, 60, config, task.evaluate, checkpoint)
    take_step = training.take_step

    def take_or_stop(*cells):
        if training.step == stop_at:
            raise KeyboardInterrupt
        return take_step(*cells)

    training.take_step = take_or_stop
    return training.run()


def test_training_beats_predictors_that_know_only_the_gene(config, cells):
    task = make_paper_task(config, cells)
    history = run(task, epochs=30)
    rows = np.arange(60)
    trivial = predictors.trivial_losses(task.model, cells, rows, rows)
    assert history[-1]["masked_loss"] < 0.8 * trivial["frequency_masked_loss"]
    assert trivial["frequency_masked_loss"] <= trivial["mode_masked_loss"]
    measures = [name for name in history[-1] if name.endswith(("masked_loss", "zero_loss"))]
    assert {f"mean_{name}" for name in measures} <= set(trivial)  # each has its like beside it


def test_trivial_losses_as_worked_out_by_hand(paper_config, monkeypatch):
    # One gene with bins 1, 1, 2 and a zero where the promoter is open; one is added to each
    # of the 6 + 1 bins.
    bins = np.array([[1, 1], [1, 1], [2, 1], [0, 1]], dtype=np.uint8)
    store = MemoryStore(sparse.csr_matrix(bins[:, :1]), sparse.csr_matrix(bins[:, 1:]))
    model = PaperModel(replace(paper_config, n_genes=1, n_tfs=1), np.ones((2, 1)))
    # The counts are the bins.
    monkeypatch.setattr(model, "bin", lambda *counts: counts)
    frequencies, _ = predictors.gene_frequencies(model, store, np.arange(4))
    np.testing.assert_allclose(frequencies, np.array([[2, 3, 2, 1, 1, 1, 1]]) / 11)
    trivial = predictors.trivial_predictors(frequencies)
    assert trivial["mode"][0, 1] == pytest.approx(3 / 11)
    np.testing.assert_allclose(trivial["mode"][0, [0, 2, 3]], 8 / 11 / 6)
    # The mean bin is (3 x 1 + 2 x 2 + 3 + 4 + 5 + 6) / 11 = 2.3.
    assert trivial["mean"][0, 2] == pytest.approx(2 / 11)
    np.testing.assert_allclose(trivial["mean"][0, [0, 1, 3]], 9 / 11 / 6)
    losses = predictors.trivial_losses(model, store, np.arange(4), np.arange(4))
    right, wrong = -np.log(3 / 11), -np.log(8 / 11 / 6)
    assert losses["mode_rna_zero_loss"] == pytest.approx(wrong)
    assert losses["mode_rna_nonzero_loss"] == pytest.approx((2 * right + wrong) / 3)
    assert losses["mode_rna_masked_loss"] == pytest.approx((right + wrong) / 2)
    # All promoters are open with bin 1: counted five times of eleven.
    assert losses["mode_promoter_masked_loss"] == pytest.approx(-np.log(5 / 11))
    assert "mode_promoter_zero_loss" not in losses


@TASKS
def test_a_killed_run_ends_with_the_same_weights(config, cells, tmp_path, monkeypatch, make):
    straight = make(config, cells)
    history = run(straight)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)  # after every step
    identity = {"any": "thing"}
    for stop_at in (5, 11, 16):  # killed three times, in mid-epoch
        with pytest.raises(KeyboardInterrupt):
            run(make(config, cells), Checkpoint(tmp_path / "c", identity), stop_at)
    resumed = make(config, cells)
    resumed_history = run(resumed, Checkpoint(tmp_path / "c", identity))
    for name, parameter in straight.model.state_dict().items():
        assert torch.equal(parameter, resumed.model.state_dict()[name]), name
    timing = {"seconds", "cells_per_second"}
    for a, b in zip(history, resumed_history, strict=True):
        assert all(a[name] == b[name] for name in a if name not in timing)


def test_dropout_is_part_of_what_a_resumed_run_repeats(config, cells, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    config = replace(config, dropout=0.3)
    straight, resumed = make_task(config, cells), make_task(config, cells)
    run(straight)
    with pytest.raises(KeyboardInterrupt):
        run(make_task(config, cells), Checkpoint(tmp_path / "c", {}), 10)
    run(resumed, Checkpoint(tmp_path / "c", {}))
    for name, parameter in straight.model.state_dict().items():
        assert torch.equal(parameter, resumed.model.state_dict()[name]), name


def test_a_checkpoint_of_other_settings_is_not_gone_on_from(config, cells, tmp_path):
    task = make_task(config, cells)
    run(task, Checkpoint(tmp_path / "c", {"seed": 1}), epochs=1)
    optimizer = torch.optim.AdamW(task.model.parameters())
    assert Checkpoint(tmp_path / "c", {"seed": 2}).restore(task.model, optimizer) is None
    assert Checkpoint(tmp_path / "c", {"seed": 1}).restore(task.model, optimizer)["step"] == 7


@pytest.fixture
def uneven(cells):
    """Cells that express, and hide, other numbers of genes; a third without promoters."""
    silent = np.random.default_rng(1).random(cells.rna.shape) < np.linspace(0, 0.9, 60)[:, None]
    rna, promoter = (part.multiply(~silent).tocsr() for part in (cells.rna, cells.promoter))
    return MemoryStore(rna, promoter, np.arange(60) % 3 > 0)


def pretraining_run(config, store, micro_batch=None, make=make_task):
    task = make(config, store, promoter_dropout=0.3)
    task.model.double()
    settings = loop.TrainingConfig(**TWO_EPOCHS, micro_batch=micro_batch, seed=3)
    return loop.Training(task.model, task, 60, settings)


def paper_run(config, store, micro_batch=None):
    return pretraining_run(config, store, micro_batch, make_paper_task)


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


@pytest.mark.parametrize("make", [pretraining_run, paper_run, fine_tuning_run])
@pytest.mark.parametrize("micro_batch", [8, 3, 1])
def test_parts_of_a_batch_add_up_to_it(config, uneven, make, micro_batch):
    """20 cells at once, or 7 7 6, or 3 3 3 3 3 3 2, or one by one: loss and gradients."""
    results = []
    for most in (20, micro_batch):
        training = make(config, uneven, most)
        objective = training.objective
        part = loop.plan_epoch(0, 60, training.config, objective.depths, objective.group_size)[0]
        counts = next(iter(objective.load([part.positions])))
        loss = training.add_gradients(*training.prepare(part, counts))
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
        run = pretraining_run(config, uneven, 20)
        own = run.objective.compute_loss

        def compute_loss(part, example, totals, own=own, fits=fits):
            if len(part.positions) > fits:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return own(part, example, totals)

        run.objective.compute_loss = compute_loss
        history = run.run()
        assert [record["step"] for record in history] == [3, 6]
        weights.append(run.module.state_dict())
    assert run.micro_batch == 2
    assert "out of memory with 5 cells at once; retrying with 2" in caplog.text
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-4, atol=1e-6)


@TASKS
def test_a_step_without_an_expressed_gene_changes_nothing_and_harms_nothing(config, make):
    empty = sparse.csr_matrix((60, config.n_genes), dtype=np.uint8)
    run = pretraining_run(config, MemoryStore(empty, empty), make=make)
    assert [record["loss"] for record in run.run()] == [0.0, 0.0]
    assert all(p.isfinite().all() for p in run.module.parameters())


class Regression:
    """An objective of a module of one layer, which reads the RNA."""

    depths, group_size = np.arange(60), 1

    def __init__(self, store, compute_loss):
        self.store, self.compute_loss = store, compute_loss

    def load(self, parts):
        return Loader(self.store, parts)

    def prepare(self, part, rna, promoter):
        return rna.float()

    def weigh(self, part, rna):
        return torch.tensor([float(len(part.positions))])


def test_a_model_too_large_for_one_cell_is_refused(cells):
    def compute_loss(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    module = torch.nn.Linear(17, 1)
    objective = Regression(cells, compute_loss)
    run = loop.Training(module, objective, 60, loop.TrainingConfig(**TWO_EPOCHS))
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

    def compute_loss(part, rna, totals):
        loss = module(rna).square().sum() / totals[0]
        if run.step == 4:  # the second of the second epoch's three
            loss = loss * float("nan") if broken == "loss" else loss + (0 * loss).sqrt()
        return loss

    config = loop.TrainingConfig(epochs=3, batch_size=20, learning_rate=1e-2)
    objective = Regression(cells, compute_loss)
    run = loop.Training(module, objective, 60, config, checkpoint=checkpoint)
    with pytest.raises(InputError, match="the loss is nan in epoch 2, step 5; lower learning_rate"):
        run.run()
    state = checkpoint.restore(module, run.optimizer)
    assert state["step"] == 4
    assert all(p.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize(
    ("slow", "name", "late"),
    [(objectives, "score_weighted", False), (MemoryStore, "read_cells", True)],
)
def test_a_loader_that_falls_behind_is_named_in_the_log(
    config, cells, monkeypatch, caplog, slow, name, late
):
    function = getattr(slow, name)
    monkeypatch.setattr(slow, name, lambda *given: (time.sleep(0.5), function(*given))[1])
    monkeypatch.setattr(progress, "PROGRESS_SECONDS", 0.0)
    with caplog.at_level("INFO", logger="scdyn"):
        run(make_task(config, cells), epochs=1)
    last = [message for message in caplog.messages if message.startswith("step")][-1]
    assert "cells/s" in last
    assert ("of the time waiting for data" in last) == late


@pytest.mark.parametrize("long", [True, False])
def test_a_pilot_of_a_few_steps_tells_how_long_the_run_will_take(
    config, cells, monkeypatch, caplog, long
):
    monkeypatch.setattr(progress, "LONG_SECONDS", 0.0 if long else 1e6)
    with caplog.at_level("INFO", logger="scdyn"):
        run(make_task(config, cells), epochs=4)
    (said,) = [message for message in caplog.messages if message.startswith("after a pilot")]
    n_threads = torch.get_num_threads()
    words = (
        r"after a pilot of 3 steps: the remaining (\d+) steps will take about \d+ s on the CPU with"
    )
    found = re.match(rf"{words} {n_threads} threads", said)
    assert int(found[1]) > 0
    assert ("a model of this size needs a GPU" in said) == long


@pytest.mark.parametrize(
    ("make", "module", "n_scores"), [(make_task, objectives, 8), (make_paper_task, masked, 8)]
)
def test_evaluation_is_the_same_each_time_and_by_batch_size(
    config, uneven, monkeypatch, make, module, n_scores
):
    task = make(config, uneven)
    run(task, epochs=1)
    scores = task.evaluate()
    assert task.evaluate() == scores
    assert len(scores) == n_scores
    for batch_size in (1, 7, 60):
        monkeypatch.setattr(module, "SCORED_AT_ONCE", batch_size)
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


def test_masked_loss_is_the_cross_entropy_at_hidden_genes(paper, cells):
    rna, promoter = paper.bin(*densify(cells, np.arange(5)))
    noise = masked.draw_noise(7, 5, rna)
    losses, _, bins, _ = masked.masked_losses(paper, rna, promoter, 0.15, noise)
    hidden = masked.mask_genes(rna, promoter, 0.15, paper.config, noise)
    logits, _ = paper.decode(paper(hidden[0], hidden[1]))
    expected = [
        -torch.log_softmax(logits[i, j], 0)[int(rna[i, j])]
        for i, (genes, chosen) in enumerate(zip(hidden[2], hidden[3], strict=True))
        for j in genes[chosen].tolist()
    ]
    torch.testing.assert_close(losses, torch.stack(expected))


@TASKS
def test_history_is_plain_json(config, cells, make):
    history = run(make(config, cells), epochs=1)
    assert json.loads(json.dumps(history))[0]["epoch"] == 1


def test_cells_of_rna_alone_are_learned_from_and_scored_by_rna_alone(config, cells):
    alone = MemoryStore(cells.rna, cells.promoter, np.zeros(60, dtype=bool))
    task = make_task(config, alone)
    scores = run(task, epochs=30)[-1]
    assert scores["cell_loss"] == scores["rna_cell_loss"] < scores["mean_cell_loss"] - 0.05
    assert not any(name.startswith("promoter") for name in scores)
    paper_task = make_paper_task(config, alone)
    scores = run(paper_task, epochs=30)[-1]
    assert scores["masked_loss"] == scores["rna_masked_loss"]
    assert np.isfinite(scores["full_loss"])
    assert not any(name.startswith("promoter") for name in scores)
    rows = np.arange(60)
    trivial = predictors.trivial_losses(paper_task.model, alone, rows, rows)
    assert scores["masked_loss"] < 0.8 * trivial["frequency_masked_loss"]
    assert not any("promoter" in name for name in trivial)


def test_losses_of_cells_with_promoters_are_the_same_beside_cells_without(paper, cells):
    rna, promoter = densify(cells, np.arange(4))
    promoter[2:] = NOT_MEASURED
    rna, promoter = paper.bin(rna, promoter)
    apart = [masked.full_losses(paper, rna[i], promoter[i]) for i in (slice(2), slice(2, 4))]
    for together, first, second in zip(
        masked.full_losses(paper, rna, promoter), *apart, strict=True
    ):
        torch.testing.assert_close(together, torch.cat([first, second]), equal_nan=True)
    assert torch.isnan(apart[1][1]).all() and not torch.isnan(apart[1][0]).any()


@pytest.mark.parametrize(
    ("make", "score", "epochs"),
    [(make_task, "rna_cell_loss", 40), (make_paper_task, "rna_masked_loss", 30)],
)
def test_promoters_left_out_in_training_teach_the_model_to_do_without(
    config, cells, make, score, epochs
):
    alone = MemoryStore(cells.rna, cells.promoter, np.zeros(60, dtype=bool))
    losses = []
    for share in (0.0, 0.5):
        task = make(config, cells, promoter_dropout=share)
        run(task, epochs=epochs)
        task.store = alone
        losses.append(task.evaluate()[score])
    assert losses[1] < losses[0]


def test_seeding_dropout_gives_torchs_numbers_and_keeps_no_calls():
    torch.manual_seed(5)
    expected = torch.rand(3)
    n_kept = len(torch.cuda._queued_calls)
    loop.seed_dropout(5, torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)
    assert len(torch.cuda._queued_calls) == n_kept
