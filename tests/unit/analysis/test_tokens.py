"""Bins, the regulon-aware vocabulary and the cells as the model reads them."""

import json

import numpy as np
import pandas as pd
import pytest
from small_corpus import make_genes, make_sample, write_corpus

from scdyn.data import tokens
from scdyn.errors import InputError
from scdyn.io.files import sha256

GENES = pd.DataFrame(
    {"gene_id": ["g1", "g2", "g3"], "symbol": ["Tf1", "Tf2", "Act"], "is_tf": [True, True, False]}
)
REGULONS = pd.DataFrame(
    {
        "regulon": ["Tf2(+)", "Tf2(+)", "Tf1(-)"],
        "tf": ["Tf2", "Tf2", "Tf1"],
        "target": ["Act", "Tf1", "Act"],
        "weight": [4.0, 1.0, 3.0],
    }
)
OF_CORPUS = pd.DataFrame({"regulon": ["G01(+)"], "tf": ["G01"], "target": ["G07"], "weight": [2.0]})


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus")


def test_a_gene_knows_its_regulons():
    found = tokens.add_regulons(GENES, REGULONS)["regulons"]
    assert found.tolist() == ["Tf2(+)", "", "Tf1(-),Tf2(+)"]


def test_regulon_weights_are_relative_and_hold_the_tf():
    found = tokens.weigh_regulons(GENES, REGULONS)
    weights = found.pivot_table(index="regulon", columns="gene_id", values="weight", fill_value=0)
    assert weights.loc["Tf2(+)"].to_dict() == {"g1": 0.25, "g2": 1, "g3": 1}
    assert weights.loc["Tf1(-)"].to_dict() == {"g1": 1, "g2": 0, "g3": 1}
    assert list(found["regulon"].unique()) == list(REGULONS["regulon"].unique())


def test_a_tf_that_is_its_own_target_has_the_weight_one():
    own = REGULONS.assign(target=["Act", "Tf2", "Act"])
    found = tokens.weigh_regulons(GENES, own).set_index(["regulon", "gene_id"])["weight"]
    assert found["Tf2(+)", "g2"] == 1 and found.index.is_unique


def test_the_store_has_the_weights_as_they_were_written(corpus):
    corpus.add_regulons(OF_CORPUS)
    weights = corpus.store.regulons
    assert list(weights.index) == ["G01(+)"] and weights.shape == (1, 23)
    assert weights.to_numpy()[0, [1, 7]].tolist() == [1, 1] and weights.to_numpy().sum() == 2
    assert corpus.store.vocabulary["regulons"].tolist()[7] == "G01(+)"


def test_a_corpus_without_regulons_has_no_weights(corpus):
    assert corpus.store.regulons.shape == (0, 23)
    assert (corpus.store.vocabulary["regulons"] == "").all()


def test_a_row_that_does_not_exist_is_an_error(corpus):
    with pytest.raises(IndexError):
        corpus.store.read_cells(np.array([80]))


def test_cells_that_are_taken_are_those_of_the_rows(corpus):
    cells = corpus.store.read_cells(np.arange(80))
    taken = cells.take(np.array([70, 3]))
    for modality in tokens.MODALITIES:
        expected = corpus.read(np.array([70, 3]), modality).to_csr(23)
        assert (taken.values[modality].to_csr(23) != expected).nnz == 0
    assert taken.measured.tolist() == [False, True] and len(taken) == 2


def lose_the_meta(folder):
    (folder / "meta.json").unlink()


def garble_the_meta(folder):
    (folder / "meta.json").write_text("{")


def exchange_the_vocabulary(folder):
    table = pd.read_csv(folder / "vocabulary.tsv", sep="\t")
    table[::-1].to_csv(folder / "vocabulary.tsv", sep="\t", index=False)


def cut_the_regulons(folder):
    (folder / "regulons.tsv").write_text("regulon\tgene_id\twei")


def rename_a_target(folder):
    text = (folder / "regulons.tsv").read_text()
    (folder / "regulons.tsv").write_text(text.replace("\tg", "\tx", 1).replace("\tE", "\tX", 1))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lose_the_meta, "tokens: the tokens cannot be read"),
        (garble_the_meta, "tokens: the tokens cannot be read"),
        (exchange_the_vocabulary, r"vocabulary\.tsv: is not the vocabulary of these tokens"),
        (cut_the_regulons, r"regulons\.tsv: was changed after these tokens were written"),
        (rename_a_target, r"regulons\.tsv: was changed after these tokens were written"),
    ],
)
def test_damaged_tokens_are_refused_in_one_sentence(corpus, damage, words):
    damage(corpus.folder / "tokens")
    with pytest.raises(InputError, match=words):
        assert len(corpus.store.vocabulary) and len(corpus.store.regulons) >= 0


def test_tokens_of_another_vocabulary_are_refused(tmp_path, corpus):
    genes = make_genes(30)
    other = write_corpus(tmp_path / "other", [make_sample("a", genes=genes)])
    with pytest.raises(InputError, match="have another vocabulary than .*other"):
        tokens.TokenStore(corpus.folder / "tokens", other)


def test_regulons_of_other_genes_are_refused_and_change_nothing(corpus):
    before = sha256(corpus.folder / "tokens")
    with pytest.raises(InputError, match="Act is not a symbol of the vocabulary"):
        corpus.add_regulons(REGULONS)
    with pytest.raises(InputError, match="regulons: no column weight"):
        corpus.add_regulons(OF_CORPUS.drop(columns="weight"))
    for weight in (0.0, np.nan, np.inf, -1.0):
        with pytest.raises(InputError, match="a weight is not above zero"):
            corpus.add_regulons(OF_CORPUS.assign(weight=weight))
    with pytest.raises(InputError, match="'a,b' has a comma"):
        corpus.add_regulons(OF_CORPUS.assign(regulon="a,b"))
    assert sha256(corpus.folder / "tokens") == before


def test_a_killed_run_leaves_nothing(tmp_path, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(tokens, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        tokens.write_tokens(tmp_path / "tokens", GENES, REGULONS)
    assert not list(tmp_path.iterdir())


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for name in ("x", "y"):
        tokens.write_tokens(tmp_path / name, GENES, REGULONS)
    assert sha256(tmp_path / "x") == sha256(tmp_path / "y")


def test_meta_is_plain_json_and_tells_of_the_regulons(tmp_path):
    tokens.write_tokens(tmp_path / "x", GENES, REGULONS)
    tokens.write_tokens(tmp_path / "y", GENES, None)
    one, other = (json.loads((tmp_path / name / "meta.json").read_text()) for name in "xy")
    assert one["n_tfs"] == 2
    assert one["vocabulary_sha256"] == other["vocabulary_sha256"]
    assert one["regulons_sha256"] != other["regulons_sha256"]
