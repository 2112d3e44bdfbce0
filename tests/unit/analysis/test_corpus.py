"""A corpus: samples named in a manifest, whose cells are read in blocks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from small_corpus import make_genes, make_sample, make_samples, write_corpus

from scdyn.data import corpus as corpora
from scdyn.data.corpus import Corpus, make_corpus
from scdyn.errors import InputError
from scdyn.io.artefacts import write_parquet, writing_parquet
from scdyn.io.shards import write_shard
from scdyn.pp import counts


@pytest.fixture
def samples():
    return make_samples()


@pytest.fixture
def corpus(tmp_path, samples):
    return write_corpus(tmp_path / "corpus", samples)


def stack(samples, layer):
    parts = [s.X if layer == "rna" else s.layers["promoter"] for s in samples]
    return sparse.vstack(parts).toarray()


def test_a_corpus_lists_its_samples_and_copies_no_counts(corpus):
    files = {path.name for path in corpus.folder.iterdir()}
    assert files == {"manifest.json", "obs.parquet", "samples", "tokens"}
    manifest = json.loads((corpus.folder / "manifest.json").read_text())
    assert [sample["name"] for sample in manifest["samples"]] == ["a", "b", "c"]
    assert manifest["samples"][1]["path"] == "samples/b.zarr"
    assert len(corpus) == manifest["n_cells"] == 80
    assert repr(corpus).startswith("Corpus(80 cells of 3 samples, 23 genes")


def test_obs_is_that_of_the_samples(corpus, samples):
    names = [name for sample in samples for name in sample.obs_names]
    assert list(corpus.obs.index) == names
    assert corpus.obs["sample"].tolist() == ["a"] * 40 + ["b"] * 25 + ["c"] * 15
    assert corpus.measured.tolist() == [True] * 65 + [False] * 15
    np.testing.assert_array_equal(corpus.obs["rna_counts"], stack(samples, "rna").sum(1))


@pytest.mark.parametrize("rows", [None, [70, 3, 41, 41, 0, 79], []])
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_blocks_are_the_cells_in_the_order_of_the_rows(corpus, samples, rows, size):
    wanted = np.arange(80) if rows is None else np.array(rows, dtype=int)
    given = None if rows is None else wanted
    blocks = list(corpus.iter_blocks(given, ["rna", "promoter"], size))
    assert [len(block.rows) for block in blocks] == [
        len(wanted[start : start + size]) for start in range(0, len(wanted), size)
    ]
    for layer in ("rna", "promoter"):
        parts = [block.layers[layer].toarray() for block in blocks]
        found = np.concatenate([np.zeros((0, 23)), *parts])
        np.testing.assert_array_equal(found, stack(samples, layer)[wanted])


def test_values_are_normalised_as_those_of_cells_in_memory(corpus, samples):
    rows = np.array([70, 3, 41, 0])
    found = corpus.to_memory(rows, ["rna", "rna_log", "promoter_log"])
    cells = anndata.concat(samples)
    counts.normalise(cells)
    for layer in ("rna_log", "promoter_log"):
        expected = cells.layers[layer].toarray()[rows]
        np.testing.assert_allclose(found.layers[layer].toarray(), expected, rtol=1e-6)
    assert list(found.obs_names) == list(corpus.obs.index[rows])
    assert found.var["symbol"].tolist() == make_genes()["symbol"].tolist()


def test_the_depth_of_a_corpus_is_the_median_of_its_cells_with_counts(corpus, samples):
    for layer, modality in (("rna", "rna"), ("promoter", "promoter")):
        totals = stack(samples, layer).sum(1)
        np.testing.assert_array_equal(corpus.sizes[modality], totals)
        assert (totals == 0).any() and corpus.depths[modality] == np.median(totals[totals > 0])


def test_totals_are_those_of_the_counts_whatever_the_table_says(tmp_path):
    a, b = make_sample("a"), make_sample("b", measured=False)
    a.obs["rna_counts"], a.obs["promoter_counts"] = 1, 2
    corpus = Corpus.write(tmp_path, [a, b])
    np.testing.assert_array_equal(corpus.sizes["rna"], stack([a, b], "rna").sum(1))
    np.testing.assert_array_equal(corpus.sizes["promoter"], stack([a, b], "promoter").sum(1))
    assert corpus.obs["promoter_counts"].isna().tolist() == [False] * 40 + [True] * 40
    corpus = Corpus.write(tmp_path / "rna", [b])
    assert not corpus.sizes["promoter"].any() and corpus.depths["promoter"] == 1


def test_cells_are_found_by_name_and_strangers_refused(corpus):
    names = ["b_0003-1", "a_0000-1", "b_0003-1"]
    assert corpus.find_rows(names).tolist() == [43, 0, 43]
    assert corpus.find_rows([]).tolist() == []
    with pytest.raises(InputError, match="1 of 2 cells are not in this corpus, such as x"):
        corpus.find_rows(["a_0000-1", "x"])


def test_a_sample_is_added_without_copying_the_others(tmp_path, corpus, samples):
    before = {path: path.stat().st_mtime_ns for path in corpus.folder.glob("samples/**/*")}
    paths = [shard.path for shard in corpus.shards]
    write_shard(corpus.folder / "samples" / "d.zarr", counts.describe_sizes(make_sample("d", 9)))
    make_corpus(corpus.folder, [*paths, corpus.folder / "samples" / "d.zarr"])
    after = Corpus(corpus.folder)
    assert len(after) == 89 and after.id != corpus.id
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_a_corpus_is_opened_by_its_manifest_and_from_anywhere(corpus, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert len(Corpus("corpus/manifest.json")) == 80


def lose_a_sample(folder):
    (folder / "samples" / "b.zarr").rename(folder / "b.zarr")


def ingest_again(folder):
    sample = make_sample("b", 25, seed=1)
    write_shard(folder / "samples" / "b.zarr", counts.describe_sizes(sample))


def exchange_the_vocabulary(folder):
    sample = make_sample("b", 25, make_genes()[::-1])
    write_shard(folder / "samples" / "b.zarr", counts.describe_sizes(sample))


def cut_the_manifest(folder):
    os.truncate(folder / "manifest.json", 30)


def lose_the_manifest(folder):
    (folder / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lose_a_sample, r"b\.zarr: is missing"),
        (ingest_again, r"b\.zarr: was ingested again after .*manifest\.json was written"),
        (exchange_the_vocabulary, r"b\.zarr: has another vocabulary than the corpus"),
        (cut_the_manifest, r"manifest\.json: is not the manifest of a corpus"),
        (lose_the_manifest, "is not a corpus; write one with scdyn.Corpus.write"),
    ],
)
def test_samples_that_are_not_those_of_the_manifest_are_refused(corpus, damage, words):
    damage(corpus.folder)
    with pytest.raises(InputError, match=words) as error:
        Corpus(corpus.folder)
    assert str(error.value).endswith("[SCD-CORPUS]")


def test_a_sample_that_was_cut_short_is_named(corpus):
    os.truncate(corpus.shards[1].path / "X" / "data" / "c" / "0", 3)
    opened = Corpus(corpus.folder)
    opened.to_memory(np.arange(40))
    with pytest.raises(InputError, match=r"b\.zarr: the counts cannot be read.*has 3 bytes"):
        opened.to_memory(np.arange(41))


def test_a_table_of_another_corpus_is_refused(corpus):
    write_parquet(corpus.folder / "obs.parquet", corpus.obs)
    with pytest.raises(InputError, match=r"obs\.parquet: is of another corpus than the manifest"):
        len(Corpus(corpus.folder).obs)


def test_a_corpus_in_another_order_that_was_killed_halfway_is_refused(corpus):
    before = (corpus.folder / "manifest.json").read_text()
    make_corpus(corpus.folder, [shard.path for shard in corpus.shards[::-1]])
    (corpus.folder / "manifest.json").write_text(before)
    with pytest.raises(InputError, match=r"obs\.parquet: is of another corpus than the manifest"):
        Corpus(corpus.folder).find_rows(["a_0005-1"])


@pytest.mark.parametrize("rows", [[0, -1], [80], np.arange(80) < 2, [0.0, 1.0]])
def test_rows_that_are_no_rows_are_refused(corpus, rows):
    with pytest.raises(IndexError, match="integers from 0 to 79"):
        corpus.to_memory(rows)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([], "no samples"),
        ([make_sample("a"), make_sample("a")], "sample a is given twice"),
        (
            [make_sample("a"), make_sample("b", genes=make_genes().loc[[1, 0, *range(2, 23)]])],
            "another vocabulary",
        ),
    ],
)
def test_samples_that_make_no_corpus_are_refused(tmp_path, samples, words):
    with pytest.raises(InputError, match=words):
        Corpus.write(tmp_path / "corpus", samples)
    assert not (tmp_path / "corpus" / "manifest.json").exists()


def reverse_the_samples(manifest):
    manifest["samples"].reverse()


def drop_the_last_sample(manifest):
    manifest["samples"].pop()


def empty_the_samples(manifest):
    manifest["samples"] = []


@pytest.mark.parametrize("change", [reverse_the_samples, drop_the_last_sample, empty_the_samples])
def test_a_manifest_of_other_samples_than_its_id_is_refused(corpus, change):
    manifest = json.loads((corpus.folder / "manifest.json").read_text())
    change(manifest)
    (corpus.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"manifest\.json: is not the manifest of a corpus"):
        Corpus(corpus.folder)


def set_count(value):
    def change(cells):
        counts = cells.X.toarray().astype(float)
        counts[1, 0] = value
        cells.X = counts

    return change


def name_it(name):
    def change(cells):
        cells.obs["sample"] = name

    return change


def lose_promoter_sources(cells):
    cells.obs["promoter_source"] = [None, *cells.obs["promoter_source"][1:]]


def overflow_a_metric(cells):
    cells.obs["rna_genes"] = 3_000_000_000


def lose_a_length(cells):
    cells.var["length"] = 0


def lose_the_promoters(cells):
    del cells.layers["promoter"]


def put_a_tf_last(cells):
    is_tf = cells.var["is_tf"].to_numpy()
    cells.var["is_tf"] = is_tf[::-1] if is_tf.any() else np.arange(cells.n_vars) > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put_a_tf_last, "sample a: the TFs are not the first of its genes"),
        (set_count(-3), "sample a, X: the counts are not integers"),
        (set_count(0.4), "sample a, X: the counts are not integers"),
        (set_count(np.nan), "sample a, X: the counts are not integers"),
        (set_count(2.0**32), "exceeds the largest allowed"),
        (name_it("../evil"), "one name, without a slash"),
        (name_it(".."), "one name, without a slash"),
        (name_it([*"ab" * 20]), "has 2 names"),
        (lose_promoter_sources, r"obs\['promoter_source'\] is missing in some cells"),
        (overflow_a_metric, "rna_genes is not a whole number below"),
        (lose_a_length, "a length or n_tss that is not above zero"),
        (lose_the_promoters, r"a sample has no layers\['promoter'\]"),
    ],
)
def test_cells_that_are_no_sample_are_refused(tmp_path, change, words):
    cells = make_sample("a")
    change(cells)
    with pytest.raises(InputError, match=words):
        Corpus.write(tmp_path / "corpus", [cells])
    assert not (tmp_path / "corpus" / "manifest.json").exists()


def test_cells_in_memory_can_be_written(corpus, tmp_path):
    cells = corpus.to_memory(np.arange(3))
    cells.write_h5ad(tmp_path / "cells.h5ad")
    cells.write_zarr(tmp_path / "cells.zarr")
    assert anndata.read_h5ad(tmp_path / "cells.h5ad").obs.equals(
        anndata.read_zarr(tmp_path / "cells.zarr").obs
    )


def test_several_entries_of_one_gene_are_summed():
    cells = make_sample("a", 2)
    cells.X = sparse.csr_matrix(([3, 4, 5], [0, 0, 1], [0, 3, 3]), shape=cells.shape)
    found = counts.describe_sizes(cells)
    assert found.X.nnz == 2 and found.X[0, 0] == 7 and found.obs["rna_counts"].tolist() == [12, 0]


def test_rows_of_every_type_of_integers_are_read(corpus):
    for dtype in (np.uint8, np.uint64, np.int32):
        assert corpus.to_memory(np.array([41, 3], dtype)).obs_names[1] == corpus.obs.index[3]


def test_a_metric_that_a_sample_lacks_is_missing_there(tmp_path):
    a, b = make_sample("a"), make_sample("b")
    a.obs["rna_genes"], b.obs["tss_enrichment"] = 7, 1.5
    obs = Corpus.write(tmp_path, [a, b]).obs
    assert obs["rna_counts"].dtype == np.int32 and obs["rna_genes"].dtype == np.float32
    assert obs["rna_genes"].tolist()[:40] == [7] * 40 and obs["rna_genes"].isna().sum() == 40
    assert obs["tss_enrichment"].isna().tolist() == [True] * 40 + [False] * 40
    assert obs["sample"].tolist() == ["a"] * 40 + ["b"] * 40


def test_two_cells_of_one_name_are_refused(tmp_path):
    a, b = make_sample("a"), make_sample("a_0000", n_cells=10)
    b.obs_names = ["a_0005-1", *b.obs_names[1:]]
    with pytest.raises(InputError, match="duplicate cell a_0005-1"):
        Corpus.write(tmp_path, [a, b])


def test_rows_beyond_32_bits_are_looked_up(corpus):
    """Samples with more cells than 32 bits count, of which the first's first cells are read."""
    corpus.offsets = np.array([0, 40, 2**31 + 65, 2**31 + 80], dtype=np.int64)
    rows = np.array([2**31 + 66, 2])
    which = np.searchsorted(corpus.offsets, rows, side="right") - 1
    assert which.tolist() == [2, 0] and (rows - corpus.offsets[which]).tolist() == [1, 2]
    found = corpus.read(rows, "rna").to_csr(23).toarray()
    third, first = make_sample("c", 15, measured=False), make_sample("a", 40)
    np.testing.assert_array_equal(found, [third.X[1].toarray()[0], first.X[2].toarray()[0]])


OPEN = """
import resource, sys, time
import anndata, pandas, pyarrow.parquet, zarr
from scdyn.data.corpus import Corpus
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
before = peak()
corpus = Corpus(sys.argv[1])
assert corpus.obs.shape[0] == len(corpus) == 400_000
print(peak() - before)
"""


def test_opening_takes_memory_for_the_table_alone(tmp_path):
    """400,000 cells in 16 links to one sample, with 20 columns."""
    n_cells, n_samples = 25_000, 16
    genes = make_genes()
    obs = pd.DataFrame(
        {"sample": "s", "barcode": [f"{i:016d}-1" for i in range(n_cells)]},
        index=[f"s_{i:016d}-1" for i in range(n_cells)],
    ).assign(promoter_source="peaks")
    sample = make_sample("s", 8, genes)
    sample = sample[np.arange(n_cells) % 8].copy()
    metrics = dict.fromkeys(corpora.METRICS, 0.5) | dict.fromkeys(corpora.WHOLE_METRICS, 1)
    sample.obs = obs.assign(**metrics)
    write_shard(tmp_path / "s.zarr", counts.describe_sizes(sample))
    corpus = tmp_path / "corpus"
    make_corpus(corpus, [tmp_path / "s.zarr"])
    one = Corpus(corpus)
    manifest = json.loads((corpus / "manifest.json").read_text())
    manifest["samples"] *= n_samples
    manifest["n_cells"] = n_cells * n_samples
    manifest["id"] = corpora.hash_ids([sample["id"] for sample in manifest["samples"]])
    (corpus / "manifest.json").write_text(json.dumps(manifest))
    tables = [one.obs.rename(index=lambda name, i=i: f"{name}{i}") for i in range(n_samples)]
    with writing_parquet(corpus / "obs.parquet", corpus=manifest["id"]) as write:
        write(pd.concat(tables))
    printed = subprocess.run(
        [sys.executable, "-c", OPEN, str(corpus)],
        env={**os.environ, "PYTHONPATH": str(Path(corpora.__file__).parents[2])},
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    # 150 bytes per cell are 0.06 GiB; as objects of Python the names alone would be more.
    assert float(printed) < 0.25
