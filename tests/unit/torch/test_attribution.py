"""Attributions that add up, are the integrals they claim and find genes; checks that can fail."""

import copy
import json
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_encoder
from safetensors.torch import save_file
from scipy import sparse

from scdyn.data.loader import NOT_MEASURED, MemoryStore, densify
from scdyn.errors import InputError
from scdyn.explain import attribution, checks, edits, in_silico, runs
from scdyn.explain import attribution_tables as scores
from scdyn.io.files import sha256
from scdyn.model import embedding
from scdyn.model.classifier import run_classifier
from scdyn.model.embedding import start_from_components
from scdyn.settings import CheckSettings, EditSettings
from scdyn.tasks import finetuning
from scdyn.training.loop import TrainingConfig

OWN_GENES = {"x": (0, [0, 1, 2]), "y": (1, [6, 7, 8]), "z": (0, [12, 13, 14])}
TRAINING = {"epochs": 12, "batch_size": 9, "learning_rate": 5e-3}
SETTINGS = CheckSettings(
    adapter="lora", seeds=[1], steps=16, explained_cells=20, checked_cells=6, rank=4, n_pools=4,
    hidden=16, dropout=0.0, penalty=0.0, thinning=1.0, training=TRAINING,
)  # fmt: skip


# Points of a path with which attributions add up. Between the knots of its values the default
# architecture is smooth, and at the knots its gradient jumps.
STEPS = {"paper": 64, "expressed": 512}


@pytest.fixture
def config(config):
    """More genes: few that are high make the shares of all others low."""
    return replace(config, n_genes=40)


@cache
def make_cells():
    """90 cells of three classes, each with three genes of its own, in RNA or in promoters."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["x", "y", "z"], 30)
    parts = rng.poisson(5, (2, 90, 40)) * (rng.random((2, 90, 40)) < 0.8)
    for name, (modality, own) in OWN_GENES.items():
        parts[modality][np.ix_(labels == name, own)] = 40
    return MemoryStore(*(sparse.csr_matrix(part.astype(np.uint8)) for part in parts)), labels


@pytest.fixture
def cells():
    return make_cells()


@cache
def fit_once(config):
    encoder, (store, labels) = make_encoder(config), make_cells()
    if config.architecture == "expressed":
        start_from_components(encoder, store, np.arange(90), seed=1)
    return fit(encoder, store, labels)


@pytest.fixture
def trained(both_configs):
    return copy.deepcopy(fit_once(both_configs))


def fit(model, store, labels, **changes):
    config = TrainingConfig(**TRAINING)
    settings = SETTINGS.model_copy(update=changes)
    made, _ = finetuning.fit_classifier(model, store, np.arange(90), labels, settings, config)
    return made.merge()


def n_steps(classifier):
    return STEPS[classifier.encoder.config.architecture]


def choose_start(classifier, rows):
    """The start of paths that add up.

    The zero cell, or cells of the next class. With the default architecture, whose layer norms
    follow sums over the expressed genes, the log-odds jump where the last gene fades away.
    """
    return None if classifier.encoder.config.architecture == "paper" else (rows + 30) % 90


@pytest.fixture
def rows(cells):
    return {name: np.flatnonzero(cells[1] == name)[:20] for name in "xyz"}


def test_attributions_add_up_and_find_the_genes(trained, cells):
    store, labels = cells
    rows = np.flatnonzero(labels == "y")
    attributions, errors = attribution.integrated_gradients(
        trained, store, rows, trained.classes.index("y"), n_steps(trained), 64, (rows + 30) % 90
    )
    assert attributions.shape == (30, 2, 40)
    assert np.median(errors) < 0.02
    means = scores.average_class(attributions)
    assert abs(means).sum() == pytest.approx(1)
    assert means[1, 6:9].sum() > 3 * abs(means[1, 12:15].sum())


@pytest.mark.parametrize(("modality", "silent"), [("rna", 1), ("promoter", 0)])
def test_a_model_of_one_modality_gives_the_other_nothing(encoder, cells, modality, silent):
    store, labels = cells
    alone = fit(encoder, store, labels, modalities=modality)
    rows = np.arange(4)
    for baseline in (choose_start(alone, rows), np.arange(40, 44)):
        found, errors = attribution.integrated_gradients(
            alone, store, rows, 0, 2 * n_steps(alone), baseline=baseline
        )
        assert not found[:, silent].any() and found[:, 1 - silent].any()
        assert np.median(errors) < 0.05


def test_completeness_is_the_error_of_the_log_odds_or_of_one_nat(trained, cells):
    store, labels = cells
    rows = np.flatnonzero(labels == "x")[:12]
    references = np.r_[rows[1:10], np.flatnonzero(labels == "y")[:3]]
    attributions, errors = attribution.integrated_gradients(
        trained, store, rows, 0, 3, baseline=references
    )
    counts = densify(store, rows)
    with torch.no_grad():
        # The paper's pools those of the explained cell at both ends, so that cells' own differ.
        start, end = (
            attribution.log_odds(
                trained,
                attribution.make_values(trained, *densify(store, part)),
                *(*counts, 0, [1, 2]),
            ).numpy()
            for part in (references, rows)
        )
    difference = np.abs(end - start)
    assert (difference[:9] < 1).any() and (difference[9:] > 1).all()
    expected = np.abs(attributions.sum((1, 2)) - (end - start)) / np.maximum(difference, 1)
    assert (expected > 1e-3).any()
    np.testing.assert_allclose(errors, expected, rtol=0.01, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 5, 1000])
def test_integrals_known_in_closed_form_are_found(batch_size):
    """Of a polynomial, and of a logistic model, in both of which gradients change on the path."""
    generator = torch.Generator().manual_seed(0)
    a, b, c, d, weight = torch.randn(5, 3, 4, 2, generator=generator, dtype=torch.float64)

    def polynomial(path, values):
        x, y = values
        scale = path + 1  # each path has a function of its own
        return scale * (x**3 + x * y).sum((1, 2))

    found, difference = attribution.integrate_paths(polynomial, (a, c), (b, d), 2, batch_size)
    scale = torch.arange(1, 4)[:, None]
    rna = (b**3 - a**3 + (b - a) * (c + d) / 2).sum(2)
    promoter = ((a + b) / 2 * (d - c)).sum(2)
    torch.testing.assert_close(found[:, 0], scale * rna)
    torch.testing.assert_close(found[:, 1], scale * promoter)
    torch.testing.assert_close(found.sum((1, 2)), difference)

    def logistic(path, values):
        x, y = values
        return torch.nn.functional.softplus((x * weight[path]).sum((1, 2))) + 0 * y.sum((1, 2))

    found, difference = attribution.integrate_paths(logistic, (a, c), (b, d), 12, batch_size)
    logits = [(part * weight).sum((1, 2)) for part in (a, b)]
    slope = (logits[1].exp().log1p() - logits[0].exp().log1p()) / (logits[1] - logits[0])
    expected = slope[:, None] * (weight * (b - a)).sum(2)
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-6, atol=1e-6)
    assert not found[:, 1].any()
    torch.testing.assert_close(difference, logits[1].exp().log1p() - logits[0].exp().log1p())


@pytest.mark.parametrize(
    ("both_configs", "start"),
    [("paper", "zero"), ("paper", "mean"), ("paper", "cells"), ("expressed", "mean"),
     ("expressed", "cells")],
    indirect=["both_configs"],
)  # fmt: skip
def test_attributions_are_those_of_a_fine_sum_over_each_cells_path(trained, cells, start):
    """The midpoint rule, one cell at a time: of small counts the logarithm is steep."""
    store, _ = cells
    rows, references = np.array([3, 40, 80]), np.array([35, 70, 5])
    mean = attribution.average_values(trained, store, np.arange(90))
    baseline = {"zero": None, "mean": mean, "cells": references}[start]
    found, errors = attribution.integrated_gradients(
        trained, store, rows, 1, n_steps(trained), 5, baseline
    )
    n_points = 500 if trained.encoder.config.architecture == "paper" else 1_000
    along = (torch.arange(n_points) + 0.5)[:, None, None] / n_points
    for i, row in enumerate(rows):
        counts = densify(store, np.array([row]))
        ends = attribution.make_values(trained, *counts)
        others = [x * (start == "cells") for x in densify(store, references[i : i + 1])]
        starts = mean if start == "mean" else attribution.make_values(trained, *others)
        values = [
            (first + along * (last - first)).requires_grad_()
            for first, last in zip(starts, ends, strict=True)
        ]
        along_path = [part.expand(n_points, -1) for part in counts]
        total = attribution.log_odds(trained, tuple(values), *along_path, 1, [0, 2])
        gradients = torch.autograd.grad(total.sum(), values)
        expected = torch.stack(
            [
                ((last - first) * gradient.mean(0)).sum(2)[0]
                for first, last, gradient in zip(starts, ends, gradients, strict=True)
            ]
        )
        scale = expected.abs().sum()
        assert (torch.from_numpy(found[i]) - expected).abs().sum() < 0.01 * scale
        assert errors[i] < 0.02


def test_cells_without_promoters_are_explained_beside_others(trained, cells):
    store = MemoryStore(cells[0].rna, cells[0].promoter, np.arange(90) % 2 == 0)
    rows = np.arange(6)
    attributions, errors = attribution.integrated_gradients(
        trained, store, rows, 0, n_steps(trained), baseline=choose_start(trained, rows)
    )
    assert np.median(errors) < 0.02
    assert not attributions[1::2, 1].any() and attributions[::2, 1].any()
    references = np.array([60, 60, 60, 61, 61, 61])  # the cell, its reference, or both lack them
    attributions, _ = attribution.integrated_gradients(
        trained, store, np.arange(6), 0, 16, baseline=references
    )
    assert [part.any() for part in attributions[:, 1]] == [True, False, True, False, False, False]


def test_more_steps_are_taken_where_few_do_not_add_up(trained, cells):
    few = np.arange(12)
    n, start = n_steps(trained) // 16, choose_start(trained, few)
    _, coarse = attribution.integrated_gradients(trained, cells[0], few, 0, n, 64, start)
    _, fine = attribution.refine_gradients(
        trained, cells[0], few, 0, n, 64, start, tolerance=0.005, doublings=4
    )
    assert (coarse > 0.005).any()
    assert (fine > 0.005).sum() < (coarse > 0.005).sum()


def test_points_at_once_follow_the_memory(trained, cells):
    rows = np.arange(9)
    counts = [
        attribution.choose_batch_size(trained, cells[0], rows, gib) for gib in (1e-9, 2e-3, 6e-3)
    ]
    assert counts[0] == 1 and 1 < counts[1] < counts[2] <= attribution.MAX_POINTS
    again = attribution.choose_batch_size(trained, cells[0], rows[::-1], 6e-3)
    assert again == counts[2]
    if trained.encoder.config.architecture == "expressed":
        # Half way to another cell there are the genes of both, and to the mean cell all genes.
        counts = np.zeros((3, 40), dtype=np.int16)
        counts[0, :8], counts[1, 10:18], counts[2, :2] = 3, 3, 3
        few = MemoryStore(sparse.csr_matrix(counts), sparse.csr_matrix(counts), np.ones(3, bool))
        mean = attribution.average_values(trained, cells[0], np.arange(90))
        of_mean = attribution.choose_batch_size(trained, few, np.arange(3), 6e-3, mean)
        of_two = attribution.choose_batch_size(trained, few, np.arange(3), 6e-3)
        alone = attribution.choose_batch_size(trained, few, np.arange(1), 6e-3)
        assert of_mean < of_two < alone


@pytest.mark.parametrize(
    ("both_configs", "baseline"),
    [("paper", "other"), ("paper", "zero"), ("paper", "mean"), ("expressed", "other")],
    indirect=["both_configs"],
)
def test_each_classes_own_genes_are_the_most_specific(trained, cells, rows, baseline):
    changes = {"attribution_baseline": baseline, "steps": n_steps(trained) // 2}
    settings = SETTINGS.model_copy(update=changes)
    run, errors = runs.explain_run(trained, cells[0], rows, settings)
    assert np.median(errors) < 0.02
    genes = pd.DataFrame({"gene_id": range(40), "symbol": range(40), "is_tf": False})
    table = scores.attribution_table([run, run], genes)
    for name, (modality, own) in OWN_GENES.items():
        chosen = (table["class"] == name) & (table["modality"] == scores.MODALITIES[modality])
        top = table[chosen]
        n_found = len(set(top["gene_id"].head(3)) & set(own))
        assert n_found >= (3 if baseline == "other" else 2), (name, top.head(5))
        best = top.head(3)
        assert (best["specificity_low"] <= best["specificity"]).all()
        assert (best["specificity_high"] >= best["specificity"]).all()
        assert (best["specificity_median"] >= best["specificity"]).all()


def test_work_grows_little_with_the_classes(trained, cells, rows):
    run, errors = runs.explain_run(trained, cells[0], rows, SETTINGS)
    assert {pair: len(values) for pair, values in run.items()} == dict.fromkeys(
        [(a, b) for a in "xyz" for b in "xyz" if a != b], 10
    )
    assert len(errors) == 60


def test_cascade_draws_everything_anew_from_the_top_down(trained):
    names, changed = [], []
    before = {k: v.clone() for k, v in trained.state_dict().items()}
    for name, randomised in checks.randomise_cascade(trained, 0):
        names.append(name)
        state = randomised.state_dict()
        changed.append({k for k in state if not torch.equal(state[k], before[k])})
    assert names == ["head", "layer 4 to 3", "layer 2", "layer 1", "embeddings"]
    assert all(a < b for a, b in zip(changed, changed[1:], strict=False))
    assert all(key.startswith("head.") for key in changed[0])
    if trained.encoder.config.architecture == "expressed":
        # The labels chose the marker genes.
        assert "head.markers.genes" in changed[0] and "head.markers.scale" in changed[0]
    fixed = ("decoder", "rates", "components")
    matrices = {k for k, v in before.items() if v.ndim > 1 and not any(n in k for n in fixed)}
    assert matrices <= changed[-1]
    assert all(torch.equal(v, before[k]) for k, v in trained.state_dict().items())


def test_randomised_models_attributions_are_others(trained, cells, rows):
    found = checks.check_randomisation(trained, trained, cells[0], rows, SETTINGS)
    assert all(value == pytest.approx(1) for value in found["labels"].values())  # the same model
    last = list(found["cascade"][-1]["correlation"].values())
    assert np.abs(last).mean() < 0.6


def test_permuted_labels_are_learned_by_heart(model, cells, tmp_path):
    store, labels = cells
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    content = {
        "model": model.config.to_dict(),
        "model_sha256": sha256(tmp_path / "model.safetensors"),
        "tokens": {"vocabulary_sha256": "abc"},
    }
    (tmp_path / "config.json").write_text(json.dumps(content))
    learned = pd.DataFrame({"label": labels})
    longer = SETTINGS.training.model_copy(update={"epochs": 60})
    settings = SETTINGS.model_copy(update={"training": longer})
    classifier, fit = checks.fit_permuted_labels(store, learned, np.arange(90), settings, tmp_path)
    p, _ = run_classifier(classifier, store, np.arange(90))
    true = np.array(classifier.classes)[p.argmax(1)]
    assert fit > 0.5 and (true == labels).mean() < 0.7


def test_own_genes_deleted_cost_the_call_and_alone_suffice(trained, cells, rows):
    genes = np.arange(40)
    good = {n: np.r_[own, np.setdiff1d(genes, own)] for n, (_, own) in OWN_GENES.items()}
    bad = {name: order[::-1].copy() for name, order in good.items()}
    table = checks.compute_deletion_curves(
        trained, cells[0], rows, {"attribution": good, "wilcoxon": bad}, 0
    )
    areas = checks.compute_areas(table)
    assert areas["deletion"]["attribution"] < areas["deletion"]["wilcoxon"] - 0.1
    assert areas["insertion"]["attribution"] > areas["insertion"]["wilcoxon"] + 0.1
    whole = table[(table["what"] == "deletion") & (table["n_genes"] == 0)]
    assert (whole["probability"] > 0.9).all()
    twice = checks.average_curves([table, table])
    assert (twice["n_cells"] == 2 * table["n_cells"]).all()
    np.testing.assert_allclose(twice["probability"], table["probability"])


def test_what_was_not_measured_is_not_silenced_or_raised():
    counts = torch.tensor([[3, 0, 5], [NOT_MEASURED] * 3], dtype=torch.int16)
    assert checks.silence(counts, np.array([0, 2]))[0].tolist() == [0, 0, 0]
    assert checks.silence(counts, np.array([0]))[1].tolist() == [NOT_MEASURED] * 3
    edit, high = edits.Edit("a", (1,), True), edits.find_high_shares(counts)
    assert edits.apply_edit(edit, counts, high).tolist() == [[3, 1, 5], [NOT_MEASURED] * 3]


def test_a_raised_gene_gets_its_high_share_of_each_cells_counts():
    """Of 21 cells that express gene 0, the one but highest share is half of the counts."""
    shares = torch.linspace(0.02, 0.5, 20).tolist() + [0.9, 0.0]
    counts = torch.tensor([[1000 * share, 1000 * (1 - share)] for share in shares]).round().short()
    high = edits.find_high_shares(counts)
    assert high[0].item() == pytest.approx(0.5, abs=1e-3)
    cells = torch.tensor([[0, 40], [300, 100]], dtype=torch.int16)
    raised = edits.apply_edit(edits.Edit("a", (0,), True), cells, high)
    assert raised.tolist() == [[20, 40], [200, 100]] and raised.dtype == torch.int16
    # Deep cells have as many counts as there is place for.
    deep = torch.tensor([[0, 32_000, 32_000, 32_000]], dtype=torch.int16)
    raised = edits.apply_edit(edits.Edit("a", (0,), True), deep, torch.tensor([0.5] * 4))
    assert raised[0, 0] == torch.iinfo(torch.int16).max


def project(classifier, store):
    """Fit the embedding's projection, which a pretrained model of the paper has."""
    if classifier.encoder.config.architecture == "paper":
        embedding.fit_projection(classifier.encoder, store, np.arange(90))


def test_silencing_own_genes_is_told_from_random_ones(trained, cells, rows):
    project(trained, cells[0])
    chosen = in_silico.Cells(trained, cells[0], rows["x"], np.arange(90))
    names = [f"cell {i}" for i in range(20)]
    tried = [edits.Edit("own", (0, 1, 2)), edits.Edit("others", (12, 13), True)]
    drawn = edits.draw_edits_of_classes(cells[0], {"x": rows["x"]}, tried, 19, 0)
    trials = [in_silico.try_edit(chosen, "x", names, edit, drawn["x", edit]) for edit in tried]
    per_cell, random = (pd.concat(tables) for tables in zip(*trials, strict=True))
    table = in_silico.summarise_edits(per_cell, random).set_index("perturbation")
    assert table.loc["own", "shift"] < -1 and table.loc["own", "shift_p"] == pytest.approx(0.05)
    assert table.loc["own", "probability_shift"] < -0.3
    assert table.loc["own", "distance"] > table.loc["own", "random_distance"]
    assert table.loc["others", "shift"] < 0  # z's genes in x's cells
    own = per_cell[per_cell["perturbation"] == "own"]
    np.testing.assert_allclose(own.filter(regex="^shift_").sum(axis=1), 0, atol=1e-6)
    twice = in_silico.summarise_edits(pd.concat([per_cell, per_cell]), pd.concat([random, random]))
    assert twice["n_cells"].tolist() == [40, 40]
    np.testing.assert_allclose(twice["shift_p"], table["shift_p"])


def test_a_true_knockout_is_predicted_better_than_no_change(trained, cells, rows):
    project(trained, cells[0])
    knocked_out = cells[0].rna.tolil()
    knocked_out[:30, :3] = 0
    store = MemoryStore(knocked_out.tocsr(), cells[0].promoter)
    control = in_silico.Cells(trained, cells[0], rows["x"])
    perturbed = in_silico.Cells(trained, store, rows["x"])
    table = in_silico.compare_measured(
        control, perturbed, edits.Edit("own", (0, 1, 2)), 5, 0
    ).set_index("method")
    assert table.loc["silenced", "rmse"] < 0.5 * table.loc["no change", "rmse"]
    assert table.loc["silenced", "rmse"] < table.loc["random genes", "rmse"]
    assert table.loc["no change", "embedding_error"] == pytest.approx(1)
    assert table.loc["silenced", "embedding_correlation"] > 0.8
    assert table.loc["measured", "rmse"] == 0


def test_edits_are_found_by_name_and_others_refused():
    genes = pd.DataFrame({"symbol": ["A", "B", "C"]})
    rankings = pd.DataFrame({"class": "x", "symbol": ["A", "B", "C"], "attribution": [1, 2, 3]})
    rankings["is_tf"] = [True, True, False]
    regulons = {"A(+)": {"A", "C"}}
    settings = EditSettings(n_drivers=1, silenced=["A(+)"], raised=["C"])
    found = edits.list_edits(settings, rankings, genes, regulons)
    assert found == [
        edits.Edit("B", (1,), False, "x"),
        edits.Edit("A(+)", (0, 2)),
        edits.Edit("C", (2,), True),
    ]
    named = edits.list_edits(
        settings.model_copy(update={"silenced": ["B"]}), rankings, genes, regulons
    )
    assert named == [edits.Edit("B", (1,)), edits.Edit("C", (2,), True)]
    with pytest.raises(InputError, match="'D' is neither"):
        edits.find_edit("D", False, genes, regulons)
