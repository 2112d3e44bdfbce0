"""Batches that the decoder of whole cells is given."""

import copy
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from small_corpus import make_genes

import scdyn
from scdyn.errors import InputError
from scdyn.model.architecture import ModelConfig
from scdyn.model.transformer import Bottleneck
from scdyn.settings import PretrainingSettings
from scdyn.training import pretraining

N_GENES, N_CELLS = 40, 150
HIGHER = np.arange(20, 30)  # genes with more counts in the second batch
SETTINGS = PretrainingSettings(
    width=16, n_layers=2, n_heads=2, n_latents=4, ffn_width=16, dropout=0.0, cell_width=8,
    batch_key="sample", training={"epochs": 15, "batch_size": 16, "learning_rate": 1e-2},
)  # fmt: skip


def simulate(name, factor):
    """Cells of two kinds, which differ in ten genes; other genes differ between batches."""
    rng = np.random.default_rng([*name.encode()])
    means = np.full((N_CELLS, N_GENES), 3.0)
    means[::2, 10:20] *= 4
    means[:, HIGHER] *= factor
    counts = sparse.csr_matrix(rng.poisson(means).astype(np.int32))
    obs = pd.DataFrame(
        {"sample": name, "promoter_source": "fragments"},
        index=[f"{name}{i}" for i in range(N_CELLS)],
    )
    genes = make_genes(N_GENES).assign(chrom="chr1", strand="+", tss="100")
    cells = ad.AnnData(counts, obs, genes.set_index("gene_id"))
    cells.layers["promoter"] = sparse.csr_matrix(rng.poisson(means / 3).astype(np.int32))
    return cells


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches")
    corpus = scdyn.Corpus.write(folder / "corpus", [simulate("a", 1.0), simulate("b", 4.0)])
    corpus.add_regulons(
        pd.DataFrame([("G00(+)", "G00", f"G{gene:02}", 1.0) for gene in range(10, 15)],
                     columns=["regulon", "tf", "target", "weight"])
    )  # fmt: skip
    models = {
        key: scdyn.pretrain(
            corpus, folder / str(key), SETTINGS.model_copy(update={"batch_key": key})
        )
        for key in ("sample", None)
    }
    return SimpleNamespace(corpus=corpus, folder=folder, models=models)


def test_the_decoder_learns_what_differs_between_batches(study, monkeypatch):
    """It forgets the single batches in the end; their mean, weighted by counts, is kept."""
    store, folder = study.corpus.store, study.folder / "kept"
    merged = []
    merge = Bottleneck.merge_batches

    def keep(bottleneck, n_counts):
        merged.append((copy.deepcopy(bottleneck), n_counts))
        merge(bottleneck, n_counts)

    monkeypatch.setattr(Bottleneck, "merge_batches", keep)
    rows = np.arange(2 * N_CELLS)
    sample = study.corpus.obs["sample"]
    pretraining.pretrain(store, rows, SETTINGS, folder, folder / "checkpoints", sample)
    ((bottleneck, n_counts),) = merged
    vectors = torch.zeros(1, 8)
    with torch.no_grad():
        of_batch = [bottleneck.decode(vectors, torch.tensor([i]))[0][0] for i in range(2)]
    change = (of_batch[1] - of_batch[0]).numpy()
    others = np.setdiff1d(np.arange(N_GENES), HIGHER)
    assert change[HIGHER].min() > change[others].max() + 0.5
    assert n_counts.shape == (2, 2) and n_counts[0, 1] > n_counts[0, 0]
    model = scdyn.load(folder)
    assert model.config["batches"] == ["a", "b"]
    shifts, weights = bottleneck.batch_embedding.weight, n_counts[0] / n_counts[0].sum()
    expected = bottleneck.rna.bias + weights.float() @ shifts[:, :N_GENES]
    torch.testing.assert_close(model.model.bottleneck.rna.bias, expected)
    straight = study.models["sample"].model.state_dict()
    for name, values in model.model.state_dict().items():
        torch.testing.assert_close(values, straight[name])
        assert "batch" not in name
    with pytest.raises(ValueError, match="no batches"):
        model.model.bottleneck.decode(vectors, torch.tensor([0]))


def test_a_batch_without_promoters_does_not_count_for_their_mean():
    bottleneck = Bottleneck(ModelConfig(n_genes=3, n_tfs=1, width=4, n_heads=1, cell_width=2))
    bottleneck.add_batches(2)
    with torch.no_grad():
        bottleneck.rna.bias.zero_(), bottleneck.promoter.bias.zero_()
        bottleneck.batch_embedding.weight.copy_(torch.tensor([[2.0] * 6, [6.0] * 6]))
    bottleneck.merge_batches(torch.tensor([[30.0, 10.0], [0.0, 5.0]]))
    assert bottleneck.rna.bias.tolist() == [3.0] * 3
    assert bottleneck.promoter.bias.tolist() == [6.0] * 3


def test_given_the_batch_the_cell_vector_holds_less_of_it(study):
    explained = {}
    batch = np.repeat([0.0, 1.0], N_CELLS)
    for key, model in study.models.items():
        vectors = model.embed(study.corpus.to_memory())
        vectors = vectors - vectors.mean(0)
        between = ((vectors[batch == 1].mean(0) - vectors[batch == 0].mean(0)) / 2) ** 2
        explained[key] = between.sum() / vectors.var(0).sum()
    assert explained["sample"] < 0.8 * explained[None], explained


def test_another_batch_of_a_cell_makes_another_model(study):
    folder, obs = study.models["sample"].folder, study.corpus.obs
    assert scdyn.pretrain(study.corpus, folder, SETTINGS, obs).folder == folder
    obs = obs.assign(sample=obs["sample"].astype(str).where(np.arange(len(obs)) > 0, "b"))
    with pytest.raises(InputError, match="a model of other settings, batches or another corpus"):
        scdyn.pretrain(study.corpus, folder, SETTINGS, obs)


def test_every_cell_needs_a_batch(study):
    settings = SETTINGS.model_copy(update={"batch_key": "donor"})
    with pytest.raises(InputError, match="batch_key: the cells have no column 'donor'"):
        scdyn.pretrain(study.corpus, study.folder / "donor", settings)
    donors = pd.Series(["x", None, "y"], ["c0", "c1", "c2"], name="donor")
    with pytest.raises(InputError, match=r"1 of 3 cells have no 'donor', such as c1"):
        pretraining.number_batches(donors)


def test_batches_have_cells_enough_and_a_natural_order():
    names = pd.Series(np.repeat(["s10", "s9"], 30), name="sample")
    codes, found = pretraining.number_batches(names)
    assert found == ["s9", "s10"] and codes.tolist() == [1] * 30 + [0] * 30
    barcodes = pd.Series([f"c{i}" for i in range(60)], name="barcode")
    with pytest.raises(InputError, match=r"'barcode' has 60 values in 60 cells, fewer than 20"):
        pretraining.number_batches(barcodes)
