"""Thinned counts, hidden values, and losses that do not depend on how a step is cut."""

import numpy as np
import pytest
import torch

from scdyn.data.loader import NOT_MEASURED
from scdyn.settings import PretrainingSettings
from scdyn.training import objectives
from scdyn.training.loop import Part

SEEDS = [3, 1, 4, 1, 5, 9, 2]


def make_settings(**changes):
    return PretrainingSettings(width=12, n_heads=3, **changes)


def make_task(model, store, **changes):
    rows = np.arange(60)
    profile = objectives.sum_counts(store, rows)
    return objectives.Pretraining(
        model, store, rows, np.arange(60, 90), make_settings(**changes), profile
    )


def test_counts_are_kept_or_taken_out(model, cells, counts):
    example = make_task(model, cells[0]).make_example(*counts, SEEDS)
    for before, kept, rest in zip(
        counts, (example.rna, example.promoter), example.rest, strict=True
    ):
        measured = before[:, 0] >= 0
        assert (kept[measured] + rest[measured] == before[measured]).all()
        assert (kept[measured] >= 0).all() and (rest >= 0).all()
        assert (kept[~measured] == NOT_MEASURED).all() and not rest[~measured].any()
    assert example.hidden is None


def test_the_share_that_is_kept_lies_between_the_bounds():
    counts = torch.full((40, 50), 100, dtype=torch.int16)
    kept, _ = objectives.thin_cells(counts, counts, range(40), (0.3, 0.9))
    shares = kept.double().mean(1) / 100
    assert 0.28 < shares.min() < 0.4 and 0.8 < shares.max() < 0.92
    # Of one share per cell, every gene keeps as many.
    assert (kept.double().std(1) < 8).all()


def test_a_cell_is_thinned_by_its_seed_alone(model, cells, counts):
    task = make_task(model, cells[0], hidden_values=1.0, promoter_dropout=0.5)
    together = task.make_example(*counts, SEEDS)
    for i, seed in enumerate(SEEDS):
        alone = task.make_example(*(part[i : i + 1] for part in counts), [seed])
        for name in ("rna", "promoter", "hidden"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[i])
    assert not torch.equal(together.hidden[0], together.hidden[2])


def test_promoters_that_are_left_out_are_predicted_whole(model, cells, counts):
    task = make_task(model, cells[0], promoter_dropout=0.999)
    example = task.make_example(*counts, SEEDS)
    assert (example.promoter == NOT_MEASURED).all()
    assert torch.equal(example.rest[1], counts[1].clamp(min=0))


def test_hidden_genes_are_a_share_of_the_expressed_and_as_many_others():
    rna = torch.zeros(300, 400, dtype=torch.int16)
    rna[:, :100] = 1
    hidden = objectives.hide_values(rna, torch.zeros_like(rna), range(300), 0.3, 0.5)
    assert hidden[:, :100].float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert hidden[:, 100:].sum(1).float().mean().item() == pytest.approx(15, abs=1)


@pytest.mark.parametrize("changes", [{}, {"hidden_values": 0.7, "hidden_zeros": 0.5}])
def test_the_loss_of_a_step_does_not_depend_on_its_parts(model, cells, changes):
    task = make_task(model, cells[0], **changes)
    losses, gradients = [], []
    for sizes in ([12], [5, 7], [1] * 12):
        ends = np.cumsum([0, *sizes])
        parts = [
            Part(np.arange(a, b), np.arange(a, b), 12, 77)
            for a, b in zip(ends, ends[1:], strict=False)
        ]
        bins = iter(task.load([part.positions for part in parts]))
        examples = [task.prepare(part, *next(bins)) for part in parts]
        totals = sum(task.weigh(part, own) for part, own in zip(parts, examples, strict=True))
        model.zero_grad()
        loss = 0.0
        for part, own in zip(parts, examples, strict=True):
            share = task.compute_loss(part, own, totals)
            share.backward()
            loss += share.item()
        losses.append(loss)
        gradients.append(model.gene_embedding.weight.grad.clone())
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-3, atol=1e-6)


def test_the_mean_profile_has_the_loss_of_its_shares(model, cells):
    task = make_task(model, cells[0])
    model.bottleneck.start_from(task.mean_logs)
    scores = task.evaluate()
    for name in ("rna", "promoter"):
        assert scores[f"{name}_cell_loss"] == pytest.approx(scores[f"mean_{name}_cell_loss"])
    assert scores["cell_loss"] == pytest.approx(scores["mean_cell_loss"])
    assert scores == task.evaluate()


def test_pretraining_learns_profiles_that_differ_between_cells(model, cells):
    task = make_task(model, cells[0], hidden_values=0.1)
    model.bottleneck.start_from(task.mean_logs)
    before = task.evaluate()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(150):
        part = Part(np.arange(60), np.arange(60), 60, step)
        example = task.prepare(part, *next(iter(task.load([part.positions]))))
        optimizer.zero_grad()
        task.compute_loss(part, example, task.weigh(part, example)).backward()
        optimizer.step()
    after = task.evaluate()
    assert after["cell_loss"] < before["mean_cell_loss"] - 0.02
    assert after["rna_hidden_loss"] < before["rna_hidden_loss"]
