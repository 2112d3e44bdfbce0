"""Expression decoded from cell vectors: of regulons, after edits, and in a knockout."""

from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from small_corpus import make_genes

import scdyn
from scdyn.data.loader import NOT_MEASURED, MemoryStore, densify
from scdyn.explain import expression, in_silico
from scdyn.explain.edits import Edit
from scdyn.grn.activity import aucell
from scdyn.model import decoding
from scdyn.settings import (
    EditSettings,
    FineTuningSettings,
    InSilicoSettings,
    MeasuredKnockout,
    PretrainingSettings,
    SplitSettings,
    TrainingSettings,
)
from scdyn.training import pretraining

N_GENES, N_CELLS = 40, 200
# The targets of both TFs.
TARGETS = {0: range(10, 16), 1: range(20, 26)}
SETTINGS = PretrainingSettings(
    width=16, n_layers=2, n_heads=2, n_latents=4, ffn_width=16, dropout=0.0, cell_width=8,
    promoter_dropout=0.2, training={"epochs": 10, "batch_size": 16, "learning_rate": 1e-2},
)  # fmt: skip


def simulate(name, knocked_out=False):
    """Cells of two kinds; in each, one TF and its targets vary from cell to cell."""
    rng = np.random.default_rng([*name.encode()])
    genes = make_genes(N_GENES).assign(chrom="chr1", strand="+", tss="100")
    kinds = np.arange(N_CELLS) % 2
    logs = np.zeros((N_CELLS, N_GENES))
    activity = np.zeros((N_CELLS, 2))
    for tf, targets in TARGETS.items():
        activity[:, tf] = np.where(kinds == tf, rng.normal(1.5, 0.7, N_CELLS), -0.5)
        on = activity[:, tf] * (0.0 if knocked_out and tf == 0 else 1.0)
        logs[:, [tf, *targets]] = on[:, None]
    means = 2 * np.exp(logs)
    if knocked_out:
        means[:, 0] = 0
    obs = pd.DataFrame(
        {"sample": name, "promoter_source": "fragments"},
        index=[f"{name}{i}" for i in range(N_CELLS)],
    )
    counts = sparse.csr_matrix(rng.poisson(means).astype(np.int32))
    cells = ad.AnnData(counts, obs, genes.set_index("gene_id"))
    cells.layers["promoter"] = sparse.csr_matrix(rng.poisson(0.5 * means).astype(np.int32))
    return cells, activity


REGULONS = pd.DataFrame(
    [(f"G{tf:02}(+)", f"G{tf:02}", f"G{gene:02}", 1.0) for tf in TARGETS for gene in TARGETS[tf]],
    columns=["regulon", "tf", "target", "weight"],
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A pretrained and a fine-tuned model of the control; the knockout is only in the corpus."""
    folder = tmp_path_factory.mktemp("study")
    (control, activity), (other, _) = simulate("a"), simulate("b")
    knockout, _ = simulate("k", knocked_out=True)
    corpus = scdyn.Corpus.write(folder / "corpus", [control, other, knockout])
    corpus.add_regulons(REGULONS)
    rows = np.arange(2 * N_CELLS)
    pretraining.pretrain(corpus.store, rows, SETTINGS, folder / "model", folder / "checkpoints")
    model = scdyn.load(folder / "model")
    obs = corpus.obs.assign(kind=np.where(np.arange(3 * N_CELLS) % 2, "y", "x"))
    split = SplitSettings(label="kind", train={"sample": ["a", "b"]}, folds=2, seeds=[1])
    training = TrainingSettings(epochs=3, batch_size=16, learning_rate=5e-3)
    settings = FineTuningSettings(training=training, n_pools=4, hidden=8, head_steps=1)
    task = scdyn.finetune(model, corpus, obs, folder / "task", split, settings)
    return SimpleNamespace(
        corpus=corpus, model=model, task=task, obs=obs, control=control, activity=activity,
        folder=folder,
    )  # fmt: skip


# Rows of the corpus: control cells of the kind x and y, and cells of the knockout of kind x.
X, Y, KNOCKOUT = (np.arange(first, last, 2) for first, last in ((0, 400), (1, 400), (400, 600)))
SILENCED = Edit("G00", (0,))


def test_shares_are_decoded_and_averaged_over_cells_with_the_modality(study):
    rna, promoter = densify(study.corpus.store, X[:6])
    promoter[2:] = NOT_MEASURED
    store = MemoryStore.from_dense(rna, promoter)
    model = study.model.model
    (logs, measured), *_ = decoding.decode_cells(model, store, np.arange(6))
    assert logs.shape == (2, 6, N_GENES)
    np.testing.assert_allclose((2**logs).sum(2), 1, rtol=1e-5)
    assert measured.tolist() == [[True] * 6, [True] * 2 + [False] * 4]
    mean = decoding.average_decoded(model, store, np.arange(6))
    np.testing.assert_allclose(mean, [logs[0].mean(0), logs[1, :2].mean(0)], rtol=1e-6)
    mean = decoding.average_decoded(model, store, np.arange(2, 6))
    assert np.isnan(mean[1]).all() and np.isfinite(mean[0]).all()


def test_regulons_are_scored_as_their_simulated_activity_and_as_by_aucell(study):
    scores = study.model.regulons(study.control)
    assert scores.columns.tolist() == ["G00(+)", "G01(+)"]
    assert scores.index.equals(study.control.obs_names)
    values = sparse.csr_matrix(np.log1p(study.control.X.toarray()))
    compared = aucell(values, list(study.control.var["symbol"]), REGULONS, 0.25, 0)
    for i, name in enumerate(scores):
        truth = study.activity[:, i]
        assert np.corrcoef(scores[name], truth)[0, 1] > 0.85
        assert np.corrcoef(scores[name], compared[name])[0, 1] > 0.85


def test_a_regulons_score_is_the_mean_of_its_targets_and_of_one_cell_alone(study):
    scores = study.model.regulons(study.control)
    alone = study.model.regulons(study.control[3:4])
    np.testing.assert_allclose(alone.iloc[0], scores.iloc[3], rtol=1e-4, atol=1e-5)
    model, counts = (
        study.model.model,
        densify(study.model.tokens(study.control[3:4]), np.array([0])),
    )
    with torch.no_grad():
        profile = model.bottleneck.decode(model.embed_cells(*counts))[0].softmax(1)[0]
        mean = model.bottleneck.rna.bias.softmax(0)
    targets = list(TARGETS[0])
    expected = torch.log2(profile[targets] / mean[targets]).mean()
    assert alone.iloc[0, 0] == pytest.approx(expected.item(), rel=1e-4)


def test_targets_of_a_silenced_tf_are_predicted_to_decrease_most(study, monkeypatch):
    store, genes, targets = study.corpus.store, study.corpus.genes, {"G00"}
    targets |= {f"G{i:02}" for i in TARGETS[0]}
    rows = {"x": X[:20], "y": Y[:20]}
    # Random genes are drawn among all but those that are silenced.
    edits = [Edit("G00", (0, 10, 11, 12)), Edit("G01", (1,), raised=True, only_in="y")]
    table = expression.predict_edits(study.model.model, store, rows, edits, genes, 9, 0)
    assert list(table.columns) == list(expression.COLUMNS)
    keys = table.groupby(["perturbation", "class", "modality"]).size()
    assert set(keys.index.droplevel(2)) == {("G00", "x"), ("G00", "y"), ("G01", "y")}
    of_x = table[(table["perturbation"] == "G00") & (table["class"] == "x")]
    for _, part in of_x.groupby("modality"):
        assert part["log2_fold_change"].is_monotonic_decreasing
        assert set(part["symbol"].iloc[-7:]) == targets
        assert (part["z"].iloc[-7:] < -2).all()
        assert set(part.loc[part["edited"], "symbol"]) == {"G00", "G10", "G11", "G12"}
    monkeypatch.setattr(expression, "N_LISTED", 3)
    few = expression.predict_edits(study.model.model, store, rows, edits, genes, 9, 0)
    few = few[(few["perturbation"] == "G00") & (few["class"] == "x") & (few["modality"] == "rna")]
    whole = of_x[of_x["modality"] == "rna"]
    kept = whole["edited"].to_numpy(copy=True)
    kept[[0, 1, 2, -3, -2, -1]] = True
    pd.testing.assert_frame_equal(
        few.reset_index(drop=True), whole[kept].reset_index(drop=True), check_exact=False
    )


def test_promoters_that_were_not_measured_have_no_fold_change(study):
    rna, promoter = densify(study.corpus.store, X[:5])
    store = MemoryStore.from_dense(rna, torch.full_like(promoter, NOT_MEASURED))
    rows = {"x": np.arange(5)}
    genes = study.corpus.genes
    table = expression.predict_edits(study.model.model, store, rows, [SILENCED], genes, 3, 0)
    assert set(table["modality"]) == {"rna"}


def test_a_knockout_is_predicted_in_direction(study):
    store, model, genes = study.corpus.store, study.model.model, study.corpus.genes
    control, perturbed = {"x": X, "y": Y}, {"x": KNOCKOUT, "y": Y[:3]}
    per_gene, scores = expression.compare_knockout(
        model, store, control, perturbed, SILENCED, genes, 19, 0
    )
    assert scores.index.tolist() == [
        "measured", "silenced", "random genes", "no change", "mean shift",
    ]  # fmt: skip
    assert scores.loc["silenced", "expression_correlation"] > 0.8
    assert scores.loc["silenced", "expression_error"] < 1
    # Some of the random genes are targets of the TF, and are as good.
    assert 0.05 <= scores.loc["silenced", "expression_p"] <= 0.5
    assert scores.loc["random genes", "expression_correlation"] < 0.6
    assert np.isnan(scores.loc["no change", "expression_correlation"])
    assert scores.loc["no change", "expression_error"] == 1
    # y has too few cells of the knockout; the mean of the control's classes has both.
    assert set(per_gene["class"]) == {"x"} and len(per_gene) == N_GENES
    assert per_gene[["n_control", "n_perturbed"]].drop_duplicates().to_numpy().tolist() == [
        [len(X), len(KNOCKOUT)]
    ]
    shares = []
    for rows in (X, Y, KNOCKOUT):
        counts = densify(store, rows)[0].double().sum(0).numpy() + 2
        shares.append(counts / counts.sum())
    mean_shift = np.log2((shares[0] + shares[1]) / 2 / shares[0])
    measured = np.log2(shares[2] / shares[0])
    np.testing.assert_allclose(per_gene["mean_shift"], mean_shift, rtol=1e-6)
    np.testing.assert_allclose(per_gene["measured"], measured, rtol=1e-6)
    # Without the edited gene, the first.
    expected = np.corrcoef(measured[1:], mean_shift[1:])[0, 1]
    assert scores.loc["mean shift", "expression_correlation"] == pytest.approx(expected)
    expected = np.corrcoef(measured[1:], per_gene["silenced"][1:])[0, 1]
    assert scores.loc["silenced", "expression_correlation"] == pytest.approx(expected)


def test_a_class_without_counts_of_the_silenced_gene_has_no_score(study):
    counts = densify(study.corpus.store, np.arange(3 * N_CELLS))
    for part in counts:
        part[Y, 0] = 0
    store = MemoryStore.from_dense(*counts)
    given = SILENCED, study.corpus.genes, 5, 0
    control, perturbed = {"x": X, "y": Y}, {"x": KNOCKOUT, "y": KNOCKOUT + 1}
    model = study.model.model
    per_gene, both = expression.compare_knockout(model, store, control, perturbed, *given)
    assert (per_gene.loc[per_gene["class"] == "y", "silenced"] == 0).all()
    _, alone = expression.compare_knockout(model, store, control, {"x": KNOCKOUT}, *given)
    pd.testing.assert_frame_equal(both, alone)
    _, none = expression.compare_knockout(model, store, control, {"y": KNOCKOUT + 1}, *given)
    assert none.loc["silenced", "expression_error"] == 1
    assert none.loc["silenced", ["expression_correlation", "expression_p"]].isna().all()


def test_the_genes_of_the_highest_expression_are_compared(study, monkeypatch):
    monkeypatch.setattr(expression, "N_COMPARED", 7)
    per_gene, _ = expression.compare_knockout(
        study.model.model, study.corpus.store, {"x": X}, {"x": KNOCKOUT}, SILENCED,
        study.corpus.genes, 2, 0,
    )  # fmt: skip
    assert per_gene["symbol"].tolist() == ["G00", *(f"G{i:02}" for i in TARGETS[0])]


def test_without_a_common_class_or_a_decoder_no_expression_is_compared(study, caplog):
    given = study.corpus.store, {"x": X}, {"y": Y}, SILENCED, study.corpus.genes, 2, 0
    with caplog.at_level("WARNING", logger="scdyn"):
        per_gene, scores = expression.compare_knockout(study.model.model, *given)
    assert "no class has 10 cells in the control and in the knockout" in caplog.text
    assert per_gene.empty and scores.empty and "mean_shift" in per_gene
    given = study.corpus.store, {"x": X}, {"x": KNOCKOUT}, SILENCED, study.corpus.genes, 2, 0
    assert all(table.empty for table in expression.compare_knockout(None, *given))
    table = expression.predict_edits(None, given[0], {"x": X}, [SILENCED], given[4], 2, 0)
    assert table.empty and list(table.columns) == list(expression.COLUMNS)


def test_a_task_joins_the_expression_with_the_shifts_of_its_runs(study):
    measured = MeasuredKnockout(
        silenced="G00", control={"sample": ["a", "b"]}, perturbed={"sample": ["k"]}
    )
    settings = InSilicoSettings(
        folds=2, seeds=[1], checked_cells=8, in_silico=EditSettings(n_random=2, measured=measured)
    )
    given = study.corpus.store, study.obs, [SILENCED], study.task.folders, study.folder / "model"
    found = in_silico.perturb_task(*given, settings)
    assert set(found) == {"effects", "cells", "measured", "expression", "knockout"}
    table = found["measured"].set_index("method")
    assert table.index.tolist() == [
        "measured", "silenced", "random genes", "no change", "mean shift",
    ]  # fmt: skip
    assert table.loc["measured", ["rmse", "expression_error"]].tolist() == [0, 0]
    assert table.loc["mean shift", ["shift_x", "rmse"]].isna().all()
    assert np.isfinite(table.loc["mean shift", "expression_correlation"])
    assert set(found["knockout"]["class"]) <= {"x", "y"} and len(found["knockout"]) > 0
    assert set(found["expression"]["class"]) == set(found["effects"]["class"]) == {"x", "y"}
    options = EditSettings(n_random=2)
    none = in_silico.perturb_task(*given, settings.model_copy(update={"in_silico": options}))
    assert none["measured"].empty and none["knockout"].empty
    assert {"method", "rmse", *expression.SCORES} <= set(none["measured"])
