"""What a stage wrote is read by the next, and refused by name if it was damaged since."""

import os
import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scdyn.data import tokens
from scdyn.errors import InputError, is_out_of_memory
from scdyn.grn.expression import read_expression
from scdyn.io import artefacts
from scdyn.io.files import write_json, write_table
from scdyn.tasks import splits
from scdyn.tasks.baselines import fit_baselines
from scdyn.tasks.embeddings import gather_embeddings


@pytest.fixture
def written(tmp_path):
    """A file of each kind and what reads it."""
    table = pd.DataFrame({"cell": ["a" * 50, "b" * 50], "fold": ["0", "1"], "label": ["x", "y"]})
    write_table(tmp_path / "table.tsv", table)
    write_json(tmp_path / "object.json", {"n": [1, 2, 3]})
    (tmp_path / "records.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    cells = ad.AnnData(sparse.random(30, 20, 0.3, format="csc", random_state=0))
    cells.var["symbol"] = [f"g{i}" for i in range(20)]
    cells.var["is_tf"] = [i < 3 for i in range(20)]
    artefacts.write_arrays(tmp_path / "arrays.npz", {"a": np.arange(999), "b": np.array(["x"])})
    cells.write_h5ad(tmp_path / "cells.h5ad", convert_strings_to_categoricals=False)
    return {
        tmp_path / "table.tsv": [artefacts.read_table, splits.read_splits],
        tmp_path / "object.json": [artefacts.read_json],
        tmp_path / "records.jsonl": [artefacts.read_records],
        tmp_path / "arrays.npz": [artefacts.read_arrays, artefacts.read_stamp],
        tmp_path / "cells.h5ad": [artefacts.read_cells, artefacts.read_obs, read_expression],
    }


def test_whole_files_are_read(written):
    for path, readers in written.items():
        for read in readers:
            assert read(path) is not None


def test_an_artefact_says_which_code_and_format_wrote_it(written, tmp_path):
    cells = artefacts.read_cells(tmp_path / "cells.h5ad")
    assert artefacts.read_stamp(tmp_path / "cells.h5ad") == {"version": "unknown", "format": 1}
    artefacts.write_h5ad(tmp_path / "stamped.h5ad", cells)
    assert artefacts.read_stamp(tmp_path / "stamped.h5ad") == artefacts.make_stamp()
    assert artefacts.read_stamp(tmp_path / "arrays.npz") == artefacts.make_stamp()
    assert set(artefacts.read_arrays(tmp_path / "arrays.npz")) == {"a", "b"}
    np.savez(tmp_path / "plain.npz", a=np.ones(1))
    assert artefacts.read_stamp(tmp_path / "plain.npz")["version"] == "unknown"
    (tmp_path / "folder").mkdir()
    write_json(tmp_path / "folder/meta.json", {artefacts.STAMP: {"version": "v", "format": 7}})
    assert artefacts.read_stamp(tmp_path / "folder") == {"version": "v", "format": 7}


@pytest.mark.parametrize("share", [0, 0.3, 0.6, 0.95])
def test_what_was_cut_short_is_named_with_what_to_do(written, share):
    for path, readers in written.items():
        os.truncate(path, int(share * path.stat().st_size))
        for read in readers:
            with pytest.raises(InputError, match=path.name):
                read(path)


def test_half_a_last_line_is_no_row_of_missing_values(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text("a\tb\n1\t2\n3\t")
    with pytest.raises(InputError, match="last line is truncated.*remove it and run the workflow"):
        artefacts.read_table(path)


def test_too_little_memory_is_not_called_damage(tmp_path, monkeypatch):
    path = tmp_path / "table.tsv"
    path.write_text("a\n1\n")
    with pytest.raises(MemoryError), artefacts.reading_artefact(path):
        np.empty(2**60, dtype=np.uint8)


def test_a_split_of_another_corpus_is_refused_and_not_read_as_other_cells():
    split = pd.DataFrame(
        {"cell": ["a", "z"], "label": ["x", "y"], "fold": ["0", "1"], "validation": ["0", "0"]}
    )
    cells = ad.AnnData(np.ones((2, 1), dtype=np.float32), obs=pd.DataFrame(index=["a", "b"]))
    cells.layers["rna_log"] = cells.layers["promoter_log"] = sparse.csr_matrix(cells.X)
    with pytest.raises(InputError, match="1 of the split's 2 cells are not in the corpus.* z"):
        fit_baselines(cells, split, "0", {})


def test_an_embedding_of_other_cells_is_refused():
    one = ad.AnnData(obs=pd.DataFrame(index=["a", "b"]), obsm={"X_scdyn": np.ones((2, 2))})
    other = ad.AnnData(obs=pd.DataFrame(index=["b", "a"]))
    with pytest.raises(InputError, match="cells of the embedding differ"):
        gather_embeddings(one, other, None, 0)


def test_tokens_of_another_corpus_or_with_another_vocabulary_are_refused(tmp_path):
    genes = pd.DataFrame(
        {"gene_id": ["g1", "g2"], "symbol": ["A", "B"], "chrom": "1", "tss": "5"}
    ).assign(is_tf=[True, False])
    cells = ad.AnnData(obs=pd.DataFrame({"promoter_source": "peaks"}, index=["a"]))
    cells = ad.AnnData(np.ones((1, 2)), obs=cells.obs, var=pd.DataFrame(index=genes["gene_id"]))
    cells.layers["rna_log"] = cells.layers["promoter_log"] = sparse.csr_matrix(cells.X)
    corpus, other = tmp_path / "corpus.h5ad", tmp_path / "other.h5ad"
    corpus.write_text("one")
    other.write_text("another")
    regulons = pd.DataFrame({"target": ["B"], "regulon": ["A(+)"]})
    tokens.write_tokens(cells, genes, regulons, 4, corpus, tmp_path / "tokens")
    store = tokens.TokenStore(tmp_path / "tokens")
    store.require_corpus(corpus)
    with pytest.raises(InputError, match="made from another corpus than .*other.h5ad"):
        store.require_corpus(other)
    assert list(store.vocabulary["symbol"]) == ["A", "B"]
    write_table(tmp_path / "tokens/vocabulary.tsv", genes.iloc[::-1])
    with pytest.raises(InputError, match="vocabulary.tsv: is not the vocabulary"):
        _ = tokens.TokenStore(tmp_path / "tokens").vocabulary


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), True),
        (ImportError("x.so: failed to map segment from shared object"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), False),
        (ValueError("a number is missing"), False),
    ],
)
def test_too_little_memory_is_told_by_what_libraries_say(error, expected):
    assert is_out_of_memory(error) is expected


def test_a_reader_that_does_not_say_that_it_got_no_memory_is_not_believed():
    """In a process of its own, which may take little more than it has."""
    code = """
import resource
from scdyn.errors import reading
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 2**21, size + 2**21))
with reading("FORMAT", "f.h5", "is damaged"):
    raise OSError("filter returned failure during read")
"""
    environment = {**os.environ, "PYTHONPATH": "workflow/scripts"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert run.stderr.strip().endswith("OSError: filter returned failure during read")
