"""Bins, the regulon-aware vocabulary and the token store."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse

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


def corpus():
    values = sparse.csr_matrix(np.array([[0.0, 0.2, 13.7], [1.0, 1.01, 40.0]], dtype=np.float32))
    return ad.AnnData(
        values,
        obs=pd.DataFrame({"promoter_source": ["peaks", "none"]}, index=["a", "b"]),
        var=pd.DataFrame(index=["g1", "g2", "g3"]),
        layers={"rna_log": values, "promoter_log": values[::-1].copy()},
    )


def write(folder):
    source = folder / "corpus.h5ad"
    corpus().write_h5ad(source)
    tokens.write_tokens(corpus(), GENES, REGULONS, 14, source, folder / "tokens")
    return folder / "tokens"


def many_cells(n_cells=40, n_genes=23):
    """Cells of random values, some of them empty, one modality sparser than the other."""
    rng = np.random.default_rng(5)
    layers = {}
    for layer, share in (("rna_log", 0.4), ("promoter_log", 0.1)):
        values = rng.uniform(0, 20, (n_cells, n_genes)) * (rng.random((n_cells, n_genes)) < share)
        values[[0, 7, 8, n_cells - 1]] = 0
        layers[layer] = sparse.csr_matrix(values.astype(np.float32))
    ids = [f"g{i}" for i in range(n_genes)]
    genes = pd.DataFrame({"gene_id": ids, "symbol": ids, "is_tf": False})
    source = {"promoter_source": "fragments"}
    names = pd.DataFrame(source, index=[f"s_{i}" for i in range(n_cells)])
    cells = ad.AnnData(layers["rna_log"], obs=names, var=pd.DataFrame(index=ids), layers=layers)
    return cells, genes


def write_cells(cells, genes, folder):
    source = folder / "corpus.h5ad"
    source.write_text("any")
    tokens.write_tokens(cells, genes, REGULONS, 14, source, folder / "tokens")
    return folder / "tokens"


def test_bins_are_the_ceiling_and_capped():
    bins = tokens.bin_values(corpus().X, 14)
    np.testing.assert_array_equal(bins.toarray(), [[0, 1, 14], [1, 2, 14]])
    assert bins.dtype == np.uint8


def test_a_gene_knows_its_regulons():
    assert tokens.add_regulons(GENES, REGULONS)["regulons"].tolist() == [
        "Tf2(+)",
        "",
        "Tf1(-),Tf2(+)",
    ]


def test_regulon_weights_are_relative_and_hold_the_tf():
    weights = tokens.regulon_weights(GENES, REGULONS)
    np.testing.assert_allclose(weights, [[0.25, 1, 1], [1, 0, 1]])
    assert list(weights.index) == list(REGULONS["regulon"].unique())


def test_store_gives_back_what_was_written(tmp_path):
    store = tokens.TokenStore(write(tmp_path))
    assert list(store.cells) == ["a", "b"]
    rna, promoter = store.read(np.array([1]))
    np.testing.assert_array_equal(rna.toarray(), [[1, 2, 14]])
    np.testing.assert_array_equal(promoter.toarray(), [[0, 1, 14]])
    assert store.meta["n_tfs"] == 2


def test_cells_are_found_by_name_and_strangers_refused(tmp_path):
    store = tokens.TokenStore(write(tmp_path))
    assert store.find_rows(["b", "a"]).tolist() == [1, 0]
    with pytest.raises(InputError, match="1 of 2 cells .* such as x"):
        store.find_rows(["a", "x"])


@pytest.mark.parametrize(
    "rows",
    [
        None,
        np.arange(40),
        np.array([3, 4, 5, 20]),
        np.array([39, 0, 12, 11, 12, 12, 8, 7]),
        np.array([], dtype=int),
        np.array([-1, 2]),
        np.arange(40) % 3 == 0,
    ],
)
def test_rows_are_those_of_the_matrix(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(tokens, "CELLS_AT_ONCE", 7)
    # So few that mapped pages are let go again and again.
    monkeypatch.setattr(tokens, "MAPPED_VALUES", 10)
    cells, genes = many_cells()
    store = tokens.TokenStore(write_cells(cells, genes, tmp_path))
    for _ in range(3):
        for read, layer in zip(store.read(rows), tokens.MODALITIES.values(), strict=True):
            expected = tokens.bin_values(cells.layers[layer], 14)
            expected = expected if rows is None else expected[rows]
            assert read.shape == expected.shape
            assert read.dtype == np.uint8
            for part in ("data", "indices", "indptr"):
                np.testing.assert_array_equal(getattr(read, part), getattr(expected, part))
                assert getattr(read, part).dtype == getattr(expected, part).dtype


def test_a_row_that_is_not_there_is_no_other_row(tmp_path):
    with pytest.raises(IndexError):
        tokens.TokenStore(write(tmp_path)).read(np.array([2]))


def test_any_zarr_reader_reads_what_stands_in_the_files(tmp_path):
    cells, genes = many_cells()
    group = zarr.open_group(str(write_cells(cells, genes, tmp_path) / "tokens.zarr"), mode="r")
    assert list(group["cells"][:]) == list(cells.obs_names)
    for modality, layer in tokens.MODALITIES.items():
        expected = tokens.bin_values(cells.layers[layer], 14)
        for name, dtype in (("data", "u1"), ("indices", "<u2"), ("indptr", "<i8")):
            file = tmp_path / "tokens" / "tokens.zarr" / modality / name / "c" / "0"
            np.testing.assert_array_equal(group[modality][name][:], getattr(expected, name))
            np.testing.assert_array_equal(np.fromfile(file, dtype), getattr(expected, name))


def test_what_is_read_can_be_changed_and_the_store_not(tmp_path):
    store = tokens.TokenStore(write(tmp_path))
    store.read()[0].data[:] = 9
    np.testing.assert_array_equal(store.read()[0].toarray(), [[0, 1, 14], [1, 2, 14]])


def test_a_corpus_without_counts(tmp_path):
    cells, genes = many_cells()
    for layer in tokens.MODALITIES.values():
        cells.layers[layer] = sparse.csr_matrix(cells.shape, dtype=np.float32)
    store = tokens.TokenStore(write_cells(cells, genes, tmp_path))
    assert [part.nnz for part in store.read(np.array([3, 1]))] == [0, 0]
    assert store.read()[1].shape == cells.shape


def test_a_corpus_without_cells(tmp_path):
    cells, genes = many_cells()
    store = tokens.TokenStore(write_cells(cells[:0].copy(), genes, tmp_path))
    assert len(store.cells) == 0
    assert store.read()[0].shape == (0, cells.n_vars)


def test_indices_of_nothing_but_zeros_are_written(tmp_path):
    cells, genes = many_cells()
    first = sparse.csr_matrix(np.eye(1, cells.n_vars, dtype=np.float32).repeat(cells.n_obs, 0))
    for layer in tokens.MODALITIES.values():
        cells.layers[layer] = first
    store = tokens.TokenStore(write_cells(cells, genes, tmp_path))
    np.testing.assert_array_equal(store.read()[0].toarray(), first.toarray())


@pytest.mark.parametrize(("n_genes", "dtype"), [(65536, np.uint16), (65537, np.int32)])
def test_indices_are_as_small_as_the_vocabulary_lets_them(tmp_path, n_genes, dtype):
    values = sparse.csr_matrix(([1.0, 2.0], ([0, 1], [0, n_genes - 1])), shape=(2, n_genes))
    group = zarr.create_group(str(tmp_path / "rna"))
    tokens.write_bins(group, values, 14)
    assert group["indices"].dtype == dtype
    bins = tokens.MappedBins(tmp_path / "rna", values.shape).take(slice(None))
    assert (bins != values).nnz == 0


OPEN_AND_READ = """
import numpy as np, sys
from scdyn.data.tokens import TokenStore
def memory(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024
before = memory("VmRSS")
store = TokenStore(sys.argv[1])
opened = memory("VmHWM") - before
for start in range(0, 200_000, 1000):
    rna, _ = store.read(np.arange(start, start + 1000))
    assert rna.shape == (1000, 22000) and rna.nnz == 200_000
print(opened, memory("VmHWM") - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux's accounts")
def test_a_big_store_is_opened_and_read_in_little_memory(tmp_path):
    # As many cells as the paper's, so that opening them could not go unnoticed.
    n_cells, n_genes, per_cell = 750_000, 22_000, 200
    lengths = {
        "data": (np.uint8, n_cells * per_cell),
        "indices": (np.uint16, n_cells * per_cell),
        "indptr": (np.int64, n_cells + 1),
    }
    (tmp_path / "meta.json").write_text(json.dumps({"n_cells": n_cells, "n_genes": n_genes}))
    store = zarr.open_group(str(tmp_path / "tokens.zarr"), mode="w")
    names = np.array([f"sample_{i:016d}" for i in range(n_cells)], dtype=np.dtypes.StringDType())
    tokens.write_cell_arrays(store, names, np.ones(n_cells, dtype=np.uint8))
    for modality in tokens.MODALITIES:
        group = store.create_group(modality)
        for name, (dtype, length) in lengths.items():
            group.create_array(
                name, shape=(length,), chunks=(length,), dtype=dtype, compressors=None
            )
            file = tokens.chunk_file(tmp_path / "tokens.zarr" / modality / name)
            file.parent.mkdir()
            # A hole: zeros that take no room on the disk.
            with file.open("wb") as handle:
                handle.truncate(length * np.dtype(dtype).itemsize)
        np.arange(0, n_cells * per_cell + 1, per_cell).tofile(file)
    library = Path(tokens.__file__).parents[2]
    printed = subprocess.run(
        [sys.executable, "-c", OPEN_AND_READ, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(library)},
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    opened, read = (float(megabytes) for megabytes in printed.split())
    # The files are 912 MB, the names alone would be 70 MB once they are strings.
    assert opened < 10
    assert read < 200


def lose_what_was_measured(store):
    shutil.rmtree(store / "promoter_measured" / "c")


def cut_short(store):
    with (store / "rna" / "data" / "c" / "0").open("r+b") as file:
        file.truncate(2)


def lose_a_chunk(store):
    (store / "promoter" / "indices" / "c" / "0").unlink()


def lose_the_names(store):
    shutil.rmtree(store / "cells" / "c")


def lose_the_meta(store):
    (store.parent / "meta.json").unlink()


def garble_the_layout(store):
    (store / "rna" / "indptr" / "zarr.json").write_text("{")


def count_other_cells(store):
    meta = json.loads((store.parent / "meta.json").read_text())
    (store.parent / "meta.json").write_text(json.dumps({**meta, "n_cells": 3}))


def disagree(store):
    np.array([0, 2, 4]).tofile(store / "rna" / "indptr" / "c" / "0")


def compress(store):
    group = zarr.open_group(str(store), mode="r+")
    group["rna"].create_array("data", data=group["rna"]["data"][:], overwrite=True)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut_short, "rna/data is 2 bytes long and not 5"),
        (lose_a_chunk, "promoter/indices"),
        (lose_the_names, "cells does not have 2 cells"),
        (lose_what_was_measured, "promoter_measured does not have 2 cells"),
        (lose_the_meta, "meta.json"),
        (garble_the_layout, "line 1"),
        (count_other_cells, "2 cells, not 3"),
        (disagree, "different lengths"),
        (compress, "rna/data is compressed"),
    ],
)
def test_a_damaged_or_older_store_is_refused_in_one_sentence(tmp_path, damage, reason):
    folder = write(tmp_path)
    damage(folder / "tokens.zarr")
    with pytest.raises(InputError, match=reason) as error:
        tokens.TokenStore(folder)
    assert str(error.value).startswith(f"{folder}: ")
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("run the workflow again. [SCD-CORPUS]")


def test_a_killed_run_leaves_nothing(tmp_path, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(tokens, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.h5ad"]


@pytest.mark.parametrize("cells_at_once", [1024, 3])
def test_same_input_gives_the_same_bytes(tmp_path, monkeypatch, cells_at_once):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    first = write_cells(*many_cells(), tmp_path / "x")
    monkeypatch.setattr(tokens, "CELLS_AT_ONCE", cells_at_once)
    assert sha256(first) == sha256(write_cells(*many_cells(), tmp_path / "y"))


def test_vocabulary_hash_tells_order_and_tfs():
    same = tokens.hash_vocabulary(GENES.copy())
    assert tokens.hash_vocabulary(GENES) == same
    assert tokens.hash_vocabulary(GENES[::-1]) != same
    assert tokens.hash_vocabulary(GENES.assign(is_tf=False)) != same


def test_another_vocabulary_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="genes.tsv"):
        tokens.write_tokens(corpus(), GENES[::-1], REGULONS, 14, tmp_path, tmp_path / "tokens")
    assert not list(tmp_path.iterdir())


def test_meta_is_plain_json(tmp_path):
    meta = json.loads((write(tmp_path) / "meta.json").read_text())
    assert meta["n_bins"] == 14
    assert len(meta["corpus_sha256"]) == 64
