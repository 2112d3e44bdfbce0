"""Thinned counts, hidden values, and losses that do not depend on how a step is cut."""

import numpy as np
import pytest
import torch

from scdyn.data.loader import NOT_MEASURED
from scdyn.model.embedding import start_from_components
from scdyn.settings import PretrainingSettings
from scdyn.training import objectives
from scdyn.training.loop import Part, split_part

SEEDS = [3, 1, 4, 1, 5, 9, 2]
SHARES = [0.3, 0.5, 0.4, 0.5, 0.6, 0.9, 0.7]


def make_settings(**changes):
    return PretrainingSettings(width=12, n_heads=3, **changes)


def make_task(model, store, batches=None, **changes):
    # Cells of all classes in both parts.
    order = np.random.default_rng(0).permutation(90)
    rows, held_out = np.sort(order[:60]), np.sort(order[60:])
    profile = objectives.sum_counts(store, rows)
    settings = make_settings(**changes)
    return objectives.Pretraining(model, store, rows, held_out, settings, profile, batches)


def test_counts_are_kept_or_taken_out(model, cells, counts):
    example = make_task(model, cells[0]).make_example(*counts, SEEDS, SHARES)
    for before, kept, rest in zip(
        counts, (example.rna, example.promoter), example.rest, strict=True
    ):
        measured = before[:, 0] >= 0
        assert (kept[measured] + rest[measured] == before[measured]).all()
        assert (kept[measured] >= 0).all() and (rest[measured] >= 0).all()
        assert (kept[~measured] == NOT_MEASURED).all() and (rest[~measured] == NOT_MEASURED).all()
    assert example.hidden is None


def test_the_share_that_is_kept_lies_between_the_bounds():
    counts = torch.full((40, 50), 100, dtype=torch.int16)
    kept, _ = objectives.thin_cells(counts, counts, range(40), (0.3, 0.9))
    shares = kept.double().mean(1) / 100
    assert 0.28 < shares.min() < 0.4 and 0.8 < shares.max() < 0.92
    # Of one share per cell, every gene keeps as many.
    assert (kept.double().std(1) < 8).all()


def test_a_cell_is_thinned_by_its_seed_and_share_alone(model, cells, counts):
    task = make_task(model, cells[0], hidden_values=1.0)
    together = task.make_example(*counts, SEEDS, SHARES, 0.5)
    for i, (seed, share) in enumerate(zip(SEEDS, SHARES, strict=True)):
        alone = task.make_example(*(part[i : i + 1] for part in counts), [seed], [share], 0.5)
        for name in ("rna", "promoter", "hidden"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[i])
    assert not torch.equal(together.hidden[0], together.hidden[2])


def test_hidden_values_of_one_modality_are_their_mean(model, cells, counts):
    task = make_task(
        model, cells[0], whole_cell=0.0, consistency=0.0, cell_noise=0.0, hidden_values=1.0
    )
    rna = counts[0].clamp(min=0)
    example = task.make_example(rna, torch.full_like(rna, NOT_MEASURED), SEEDS, SHARES)
    part = Part(np.arange(7), np.zeros(7, int), np.arange(7), 7, 1)
    loss = task.compute_loss(part, example, task.weigh(part, example))
    tokens, _, _ = task.predict(example)
    of_rna, of_promoters = task.score_values(example, tokens)
    assert len(of_promoters) == 0
    assert loss.item() == pytest.approx(of_rna.mean().item(), rel=1e-5)


def test_promoters_that_are_left_out_are_predicted_whole(model, cells, counts):
    task = make_task(model, cells[0])
    example = task.make_example(*counts, SEEDS, SHARES, 0.999)
    assert (example.promoter == NOT_MEASURED).all()
    assert torch.equal(example.rest[1], counts[1])


def test_hidden_genes_are_a_share_of_the_expressed_and_as_many_others():
    rna = torch.zeros(300, 400, dtype=torch.int16)
    rna[:, :100] = 1
    hidden = objectives.hide_values(rna, torch.zeros_like(rna), range(300), 0.3, 0.5)
    assert hidden[:, :100].float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert hidden[:, 100:].sum(1).float().mean().item() == pytest.approx(15, abs=1)


def test_weights_of_equal_genes_give_the_multinomial_likelihood(model):
    generator = torch.Generator().manual_seed(0)
    logs = torch.randn(4, 9, generator=generator).log_softmax(1)
    rest = torch.randint(0, 5, (4, 9), generator=generator)
    found = objectives.score_weighted(logs, rest, torch.ones(9))
    torch.testing.assert_close(found, objectives.score_profile(logs, rest))
    profile = rest.double().sum(0).expand(2, -1) + 1
    torch.testing.assert_close(objectives.weigh_genes(profile, 0.0), torch.ones(2, 9))


def test_weights_are_lower_for_highly_expressed_genes_and_one_on_average():
    profile = torch.tensor([[1e6, 4e6], [1e6, 1e6]])
    weights = objectives.weigh_genes(profile, 0.5)
    assert (weights[0, 0] / weights[0, 1]).item() == pytest.approx(2, rel=1e-4)
    assert (weights * torch.tensor([[0.2, 0.8], [0.5, 0.5]])).sum(1).tolist() == pytest.approx(
        [1, 1], rel=1e-4
    )


def test_the_best_prediction_of_weighted_genes_is_their_share():
    rest = torch.tensor([[5.0, 3.0, 2.0]])
    logits = rest.log().requires_grad_()
    weights = torch.tensor([0.2, 1.0, 3.0])
    objectives.score_weighted(logits.log_softmax(1), rest, weights).sum().backward()
    assert logits.grad.abs().max() < 1e-5


def test_views_are_compared_within_their_group():
    cells = torch.eye(4)
    others = torch.eye(4)[[0, 1, 3, 2]]  # the last two are exchanged
    one = objectives.compare_views(cells, others, torch.zeros(4))
    assert one[0] < 0.1 and one[2] > 4
    apart = objectives.compare_views(cells, others, torch.tensor([0, 0, 1, 2]))
    assert apart[2].item() == apart[3].item() == 0  # nothing to compare with
    torch.testing.assert_close(
        objectives.compare_views(cells[:2], others[:2], torch.zeros(2)), apart[:2]
    )


@pytest.mark.parametrize("n_batches", [0, 3])
@pytest.mark.parametrize(
    "changes", [{"consistency": 0.0}, {"hidden_values": 0.7, "hidden_zeros": 0.5}]
)
def test_the_loss_of_a_step_does_not_depend_on_its_parts(
    model, cells, changes, n_batches, monkeypatch
):
    monkeypatch.setattr(objectives, "COMPARED", 4)
    batches = None
    if n_batches:
        model.bottleneck.add_batches(n_batches)
        batches = np.arange(60) % n_batches, np.arange(30) % n_batches
    task = make_task(model, cells[0], batches, **changes)
    assert task.group_size == (1 if "consistency" in changes else 4)
    step = Part(np.arange(12), np.arange(12) // 4, np.arange(12), 12, 77)
    counts = next(iter(task.load([step.positions])))
    losses, gradients = [], []
    for n_groups in (3, 2, 1):
        prepared = [
            (part, task.prepare(part, *own)) for part, own in split_part(step, counts, n_groups)
        ]
        assert len(prepared) == -(-3 // n_groups)
        totals = sum(task.weigh(*part) for part in prepared)
        model.zero_grad()
        loss = 0.0
        for part in prepared:
            share = task.compute_loss(*part, totals)
            share.backward()
            loss += share.item()
        losses.append(loss)
        gradients.append(model.gene_embedding.weight.grad.clone())
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-3, atol=1e-6)


def test_cells_of_a_group_keep_one_share_and_half_of_the_groups_are_compared(
    model, cells, monkeypatch
):
    monkeypatch.setattr(objectives, "COMPARED", 3)
    task = make_task(model, cells[0])
    groups = np.arange(24) // 3
    n_compared = np.zeros(8)
    for seed in range(2):
        part = Part(np.arange(24), groups, np.arange(24), 24, seed)
        counts = [values * 100 for values in next(iter(task.load([part.positions])))]
        example = task.prepare(part, *counts)
        shares = (example.rna.sum(1) / counts[0].sum(1)).reshape(8, 3)
        assert shares.std(1).max() < 0.05 < shares.mean(1).std()
        n_compared += example.compared.reshape(8, 3).sum(1).numpy()
        # Those of even and of odd numbers, which two processes take.
        assert [example.compared[groups % 2 == i].sum() for i in range(2)] == [6, 6]
    assert (n_compared == 3).all()
    assert make_task(model, cells[0], consistency=0.0).prepare(part, *counts).compared is None


def test_the_mean_profile_has_the_loss_of_its_shares(model, cells):
    task = make_task(model, cells[0])
    model.bottleneck.start_from(task.mean_logs)
    scores = task.evaluate()
    for name in ("rna", "promoter"):
        assert scores[f"{name}_cell_loss"] == pytest.approx(scores[f"mean_{name}_cell_loss"])
    assert scores["cell_loss"] == pytest.approx(scores["mean_cell_loss"])
    assert scores == task.evaluate()


def test_pretraining_learns_profiles_that_differ_between_cells(model, cells):
    task = make_task(model, cells[0], hidden_values=0.1, consistency=0.0, cell_noise=0.0)
    model.bottleneck.start_from(task.mean_logs)
    start_from_components(model, cells[0], task.training_rows, seed=1)
    before = task.evaluate()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(150):
        part = Part(np.arange(60), np.arange(60) // 16, np.arange(60), 60, step)
        example = task.prepare(part, *next(iter(task.load([part.positions]))))
        optimizer.zero_grad()
        task.compute_loss(part, example, task.weigh(part, example)).backward()
        optimizer.step()
    after = task.evaluate()
    assert after["cell_loss"] < before["mean_cell_loss"] - 0.01
    assert after["rna_hidden_loss"] < before["rna_hidden_loss"]
