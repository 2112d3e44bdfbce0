"""Batches that the decoder of whole cells is given."""

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


def test_the_decoder_learns_what_differs_between_batches(study):
    model = study.models["sample"]
    assert model.config["batches"] == ["a", "b"]
    bottleneck = model.model.bottleneck
    vectors = torch.zeros(1, 8)
    with torch.no_grad():
        of_batch = [bottleneck.decode(vectors, torch.tensor([i]))[0][0] for i in range(2)]
        between = bottleneck.decode(vectors)[0][0]
    change = (of_batch[1] - of_batch[0]).numpy()
    others = np.setdiff1d(np.arange(N_GENES), HIGHER)
    assert change[HIGHER].min() > change[others].max() + 0.5
    for low, high, mean in zip(*(logs[HIGHER] for logs in (*of_batch, between)), strict=True):
        assert low < mean < high


def test_given_the_batch_the_cell_vector_holds_less_of_it(study):
    explained = {}
    batch = np.repeat([0.0, 1.0], N_CELLS)
    for key, model in study.models.items():
        vectors = model.embed(study.corpus.to_memory())
        vectors = vectors - vectors.mean(0)
        between = ((vectors[batch == 1].mean(0) - vectors[batch == 0].mean(0)) / 2) ** 2
        explained[key] = between.sum() / vectors.var(0).sum()
    assert explained["sample"] < 0.8 * explained[None], explained


def test_a_model_without_batches_has_none(study):
    model = study.models[None]
    assert model.config["batches"] == []
    assert not any("batch" in name for name in model.model.state_dict())


def test_every_cell_needs_a_batch(study):
    settings = SETTINGS.model_copy(update={"batch_key": "donor"})
    with pytest.raises(InputError, match="batch_key: the cells have no column 'donor'"):
        scdyn.pretrain(study.corpus, study.folder / "donor", settings)
    donors = pd.Series(["x", None, "y"], ["c0", "c1", "c2"], name="donor")
    with pytest.raises(InputError, match=r"1 of 3 training cells have no 'donor', such as c1"):
        pretraining.code_batches(donors)
    codes, names = pretraining.code_batches(pd.Series(["s10", "s9", "s10"]))
    assert names == ["s9", "s10"] and codes.tolist() == [1, 0, 1]
