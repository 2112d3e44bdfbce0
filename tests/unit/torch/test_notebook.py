"""From counts to attributed genes by the functions for notebooks, as the rules do it."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import scdyn
from scdyn import notebook
from scdyn.errors import InputError
from scdyn.model.paper import PaperModel
from scdyn.settings import (
    OF_PAPER,
    ExplanationSettings,
    FineTuningSettings,
    PretrainingSettings,
    SplitSettings,
    TrainingSettings,
)

N_GENES, N_TFS, N_CELLS = 30, 6, 80
GENES = pd.DataFrame({
    "gene_id": [f"G{i:02d}" for i in range(N_GENES)], "symbol": [f"g{i}" for i in range(N_GENES)],
    "chrom": "chr1", "strand": "+", "length": 1000, "n_tss": 1, "tss": "100",
    "is_tf": np.arange(N_GENES) < N_TFS, "is_mt": False,
})  # fmt: skip
# Genes of which the cells of each kind have many counts.
OWN = {"x": range(10, 14), "y": range(20, 24)}
REGULONS = pd.DataFrame(
    {"regulon": "g0(+)", "tf": "g0", "target": [f"g{i}" for i in OWN["x"]], "weight": 1.0}
)
TRAINING = TrainingSettings(epochs=12, batch_size=8, learning_rate=5e-3)
SMALL = PretrainingSettings(
    width=8, n_layers=2, n_heads=2, n_latents=4, ffn_width=16, dropout=0.0,
    training={"epochs": 2, "batch_size": 16, "learning_rate": 1e-2},
)  # fmt: skip


def sample(name):
    """Counts of one sample, half of its cells of each kind."""
    rng = np.random.default_rng(ord(name))
    kinds = np.array(["x", "y"])[np.arange(N_CELLS) % 2]
    means = np.ones((N_CELLS, N_GENES))
    for kind, own in OWN.items():
        means[np.ix_(kinds == kind, list(own))] = 20
    barcodes = [f"{name}_{i}" for i in range(N_CELLS)]
    obs = pd.DataFrame({"sample": name, "barcode": barcodes, "promoter_source": "fragments"})
    cells = ad.AnnData(
        sparse.csr_matrix(rng.poisson(means).astype(np.int32)),
        obs=obs.set_index(pd.Index(barcodes)),
        var=GENES.set_index("gene_id"),
    )
    cells.layers["promoter"] = sparse.csr_matrix(rng.poisson(1, means.shape).astype(np.int32))
    return cells, pd.Series(kinds, barcodes)


@pytest.fixture(scope="module", params=["expressed", "paper"])
def small(request):
    of_one = {"cell_width": 8} if request.param == "expressed" else {}
    return SMALL.model_copy(update={"architecture": request.param, **of_one})


@pytest.fixture(scope="module")
def made(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    (one, kinds), (other, others) = sample("a"), sample("b")
    corpus = scdyn.Corpus.write(folder / "corpus", [one, other])
    corpus.add_regulons(REGULONS)
    model = scdyn.pretrain(corpus, folder / "model", small)
    obs = corpus.obs.assign(kind=pd.concat([kinds, others]))
    split = SplitSettings(label="kind", split_by="sample", folds=2, seeds=[1])
    how = OF_PAPER if small.architecture == "paper" else {"head_epochs": 30, "head_steps": 1}
    settings = FineTuningSettings(training=TRAINING, n_pools=4, hidden=8, **how)
    task = scdyn.finetune(model, corpus, obs, folder / "task", split, settings)
    return corpus, model, task, obs, split, settings


def test_a_corpus_opens_again_with_its_cells_genes_and_regulons(made):
    corpus = scdyn.Corpus(made[0].folder)
    assert list(corpus.store.cells) == list(made[3].index)
    assert corpus.store.vocabulary.loc[10, "regulons"] == "g0(+)"
    assert (corpus.store.regulons > 0).sum(axis=1).to_dict() == {"g0(+)": 1 + len(REGULONS)}
    assert "160 cells of 2 samples, 30 genes" in repr(corpus)


def test_a_folder_that_is_no_corpus_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a corpus.*SCD-CORPUS"):
        scdyn.Corpus(tmp_path)


def test_cells_are_embedded_and_predicted_by_models_that_did_not_see_their_sample(made):
    corpus, model, task, obs, *_ = made
    width = 4 * 4 if isinstance(model.model, PaperModel) else 8
    assert model.embed(corpus.to_memory()).shape == (160, width)
    assert model.latents[0] == "g0(+)"
    held_out = pd.concat(pd.read_parquet(folder / "predictions.parquet") for folder in task.folders)
    assert sorted(held_out["cell"]) == sorted(obs.index)
    assert (held_out["label"] == held_out["predicted"]).mean() > 0.9
    assert (task.predict(corpus.to_memory())["predicted"] == obs["kind"]).mean() > 0.9


def test_predictions_are_attributed_to_the_genes_that_differ(made):
    table = scdyn.explain.attribute(made[2], made[0], ExplanationSettings(explained_cells=8))
    of_rna = table[table["modality"] == "rna"]
    # High counts of a class's genes tell for it, and so do low counts of the other's.
    differ = {f"g{i}" for own in OWN.values() for i in own}
    for kind in OWN:
        top = of_rna[of_rna["class"] == kind].nlargest(4, "mean")["symbol"]
        assert set(top) < differ


def test_models_of_another_split_or_of_other_settings_are_not_mixed(made):
    corpus, model, task, obs, split, settings = made
    folder = task.folders[0].parents[2]
    again = scdyn.finetune(model, corpus, obs, folder, split, settings)
    assert again.folders == task.folders
    with pytest.raises(InputError, match="has models of another split"):
        others = obs.assign(kind=obs["kind"].replace({"x": "y", "y": "x"}))
        scdyn.finetune(model, corpus, others, folder, split, settings)
    longer = TRAINING.model_copy(update={"epochs": 13})
    # A key without effect does not matter.
    unused = {"training": longer} if settings.adapter == "none" else {"n_markers": 3}
    of_other = settings.model_copy(update=unused)
    assert scdyn.finetune(model, corpus, obs, folder, split, of_other).folders == task.folders
    decisive = {"head_epochs": 31} if settings.adapter == "none" else {"training": longer}
    for changed in ({"penalty": 0.5}, {"adapter": "full"}, {"modalities": "rna"}, decisive):
        other = settings.model_copy(update=changed)
        with pytest.raises(InputError, match="was fine-tuned with other settings"):
            scdyn.finetune(model, corpus, obs, folder, split, other)


def test_a_finished_model_is_opened_and_one_of_other_settings_refused(made, small):
    corpus, model, *_ = made
    weights = model.folder / "model.safetensors"
    before = weights.stat().st_mtime_ns
    scdyn.pretrain(corpus, model.folder, small)
    assert weights.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="has a model of other settings"):
        scdyn.pretrain(corpus, model.folder, small.model_copy(update={"seed": 5}))


def test_labels_of_other_cells_are_refused(made, tmp_path):
    corpus, model, _, obs, split, settings = made
    for table, words in (
        (obs.set_axis(obs["barcode"] + "-1"), "no cells in common with the corpus"),
        (pd.concat([obs, obs.iloc[:1]]), "duplicate cell a_0"),
    ):
        with pytest.raises(InputError, match=words):
            scdyn.finetune(model, corpus, table, tmp_path, split, settings)


def test_labels_that_are_true_or_false_keep_their_names(made):
    corpus, *_ = made
    for cells in (corpus.obs.index, corpus.obs.index[1:]):
        obs = pd.DataFrame({"flag": [True, *[False] * (len(cells) - 1)]}, index=cells)
        labels = notebook.align_obs(obs, corpus.obs.index)["flag"].dropna().astype(str)
        assert sorted(set(labels)) == ["False", "True"]


def test_cells_with_hardly_any_of_the_genes_are_refused(made):
    cells, model = made[0].to_memory(), made[1]
    assert model.embed(cells[:2, :15]).shape[0] == 2
    with pytest.raises(InputError, match="14 of the model's 30 genes were found"):
        model.embed(cells[:2, :14])


def test_few_validation_cells_are_said_to_flag_nothing(made, caplog):
    scdyn.load_task(made[2].folders[0].parents[2])
    assert "with fewer than 100 no cell can be flagged" in caplog.text


def test_too_few_cells_are_not_pretrained_on(made, small, tmp_path):
    changed = small.model_copy(update={"validation_share": 0.99})
    with pytest.raises(InputError, match="pretraining needs at least 3 training cells"):
        scdyn.pretrain(made[0], tmp_path / "model", changed)


def test_promoters_alone_are_not_learned_where_there_are_none(small, tmp_path):
    one, kinds = sample("a")
    one.obs["promoter_source"] = ["none"] * 3 + ["fragments"] * (N_CELLS - 3)
    corpus = scdyn.Corpus.write(tmp_path / "corpus", [one])
    model = scdyn.pretrain(corpus, tmp_path / "model", small)
    split = SplitSettings(label="kind", folds=2, seeds=[1])
    settings = FineTuningSettings(training=TRAINING, modalities="promoter")
    obs = corpus.obs.assign(kind=kinds)
    with pytest.raises(InputError, match="training cells have no promoter counts"):
        scdyn.finetune(model, corpus, obs, tmp_path / "task", split, settings)


def test_samples_are_written_without_a_change(tmp_path):
    one, _ = sample("a")
    one.obs["own"], one.obsm["X_own"] = 1, np.zeros((N_CELLS, 2))
    columns = list(one.obs), list(one.var)
    corpus = scdyn.Corpus.write(tmp_path, [one])
    assert (list(one.obs), list(one.var)) == columns and "X_own" in one.obsm
    assert "own" not in corpus.obs and "own" in corpus.shards[0].read_table("obs")


def test_public_names_are_listed():
    assert {"Corpus", "pretrain", "finetune", "pp", "explain"} <= set(dir(scdyn))
    assert "ingest" in dir(scdyn.pp)
