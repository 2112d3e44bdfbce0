"""What a stage wrote is read by the next, and refused by name if it was damaged since."""

import os
import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scdyn.errors import InputError, is_out_of_memory
from scdyn.grn.expression import read_expression
from scdyn.io import artefacts
from scdyn.io.files import write_json, write_table
from scdyn.tasks import splits


@pytest.fixture
def written(tmp_path):
    """A file of each kind and what reads it."""
    table = pd.DataFrame({"cell": ["a" * 50, "b" * 50], "fold": ["0", "1"], "label": ["x", "y"]})
    write_table(tmp_path / "table.tsv", table)
    artefacts.write_parquet(tmp_path / "table.parquet", table)
    write_json(tmp_path / "object.json", {"n": [1, 2, 3]})
    (tmp_path / "records.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    cells = ad.AnnData(sparse.random(30, 20, 0.3, format="csc", random_state=0))
    cells.var["symbol"] = [f"g{i}" for i in range(20)]
    cells.var["is_tf"] = [i < 3 for i in range(20)]
    artefacts.write_arrays(tmp_path / "arrays.npz", {"a": np.arange(999), "b": np.array(["x"])})
    cells.write_h5ad(tmp_path / "cells.h5ad", convert_strings_to_categoricals=False)
    return {
        tmp_path / "table.tsv": [artefacts.read_table, splits.read_splits],
        tmp_path / "table.parquet": [
            artefacts.read_parquet,
            lambda path: list(artefacts.iter_parquet(path)),
        ],
        tmp_path / "object.json": [artefacts.read_json],
        tmp_path / "records.jsonl": [artefacts.read_records],
        tmp_path / "arrays.npz": [artefacts.read_arrays, artefacts.read_stamp],
        tmp_path / "cells.h5ad": [artefacts.read_cells, read_expression],
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
    artefacts.write_parquet(tmp_path / "table.parquet", cells.obs)
    assert artefacts.read_stamp(tmp_path / "table.parquet") == artefacts.make_stamp()
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


def test_of_a_folder_that_a_rule_makes_as_a_whole_the_folder_is_named(tmp_path):
    write_json(tmp_path / "model/task.json", {})
    artefacts.write_parquet(tmp_path / "model/predictions.parquet", pd.DataFrame({"p": [0.5]}))
    os.truncate(tmp_path / "model/predictions.parquet", 50)
    with pytest.raises(InputError, match="model: was changed or truncated.*; remove it"):
        artefacts.read_parquet(tmp_path / "model/predictions.parquet")


def test_half_a_last_line_is_no_row_of_missing_values(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text("a\tb\n1\t2\n3\t")
    with pytest.raises(InputError, match="last line is truncated.*remove it and run the workflow"):
        artefacts.read_table(path)


def mixed_table():
    """A column of each kind, with missing values and a class called "NA"."""
    return pd.DataFrame(
        {
            "label": pd.Categorical(["b", "NA", None, "b"], categories=["z", "b", "NA"]),
            "order": pd.Categorical(["lo", "hi", "lo", "hi"], ["lo", "hi"], ordered=True),
            "text": ["NA", "", None, "nan"],
            "flag": [True, False, True, True],
            "known": pd.array([True, None, False, True], dtype="boolean"),
            "count": np.array([1, 2, 3, 4], dtype=np.int32),
            "p": np.array([0.1, np.nan, 3, 4], dtype=np.float32),
            "nothing": [None] * 4,
            "no_label": pd.Series([None] * 4, dtype=object).astype("category").array,
        },
        index=pd.Index(["s_1", "s_2", "s_3", "NA"], name="cell"),
    )


def test_a_parquet_table_is_read_as_it_was_written(tmp_path):
    table, path = mixed_table(), tmp_path / "table.parquet"
    artefacts.write_parquet(path, table)
    found = artefacts.read_parquet(path)
    text = pd.StringDtype("pyarrow", na_value=np.nan)
    expected = table.astype({"text": text, "nothing": text})
    pd.testing.assert_frame_equal(found, expected.set_axis(table.index.astype(text)))
    assert np.dtype(object) not in [*found.dtypes, found.index.dtype]


def test_only_the_columns_and_rows_asked_for_are_read(tmp_path):
    folder = tmp_path / "task=fate"  # which is not a column
    artefacts.write_parquet(folder / "table.parquet", mixed_table())
    found = artefacts.read_parquet(folder / "table.parquet", ["p", "label"])
    assert list(found) == ["p", "label"] and list(found.index) == ["s_1", "s_2", "s_3", "NA"]
    some = artefacts.read_parquet(folder / "table.parquet", ["count"], [("label", "==", "NA")])
    assert some.to_dict() == {"count": {"s_2": 2}}
    assert artefacts.read_parquet(folder / "table.parquet", []).shape == (4, 0)


def test_an_index_without_a_name_and_a_table_without_an_index_stay_so(tmp_path):
    path = tmp_path / "table.parquet"
    artefacts.write_parquet(path, mixed_table().rename_axis(None))
    assert artefacts.read_parquet(path).index.name is None
    assert artefacts.read_parquet(path).loc["s_2", "label"] == "NA"
    artefacts.write_parquet(path, mixed_table().reset_index())
    found = artefacts.read_parquet(path, ["label", "cell"])
    assert isinstance(found.index, pd.RangeIndex) and list(found) == ["label", "cell"]
    artefacts.write_parquet(path, mixed_table().iloc[:0])
    assert artefacts.read_parquet(path).shape == (0, 9)


def test_tables_of_one_file_are_read_one_at_a_time_and_together(tmp_path):
    path = tmp_path / "runs.parquet"
    many = [f"class {i}" for i in range(300)]  # of which the codes are of another type
    tables = [
        pd.DataFrame({"cell": ["a", "b"], "label": pd.Categorical(["x", "NA"])}),
        pd.DataFrame({"cell": ["c"], "label": pd.Categorical(["class 7"], many)}),
    ]
    with artefacts.writing_parquet(path) as write:
        for table in tables:
            write(table)
        assert not path.exists()
    found = list(artefacts.iter_parquet(path))
    assert [table["label"].tolist() for table in found] == [["x", "NA"], ["class 7"]]
    assert found[1]["label"].cat.categories.tolist() == many
    (second,) = artefacts.iter_parquet(path, ["cell"], [1])
    assert second.to_dict("list") == {"cell": ["c"]}
    whole = artefacts.read_parquet(path)
    assert whole["label"].tolist() == ["x", "NA", "class 7"]
    assert whole["label"].dtype == "category" and whole["cell"].tolist() == list("abc")


def test_a_failure_between_two_tables_leaves_no_file(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        artefacts.writing_parquet(tmp_path / "runs.parquet") as write,
    ):
        write(mixed_table())
        _ = 1 / 0
    assert not list(tmp_path.iterdir())


def test_a_changed_byte_of_a_parquet_table_is_found(tmp_path):
    path = tmp_path / "table.parquet"
    artefacts.write_parquet(path, pd.DataFrame({"p": np.random.default_rng(0).random(1000)}))
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    for read in (artefacts.read_parquet, lambda path: list(artefacts.iter_parquet(path))):
        with pytest.raises(InputError, match="table.parquet: was changed or truncated.*remove it"):
            read(path)


def test_a_parquet_table_of_another_program_is_refused_by_name(tmp_path):
    mixed_table().to_parquet(tmp_path / "other.parquet")
    with pytest.raises(InputError, match="other.parquet: was changed or truncated"):
        artefacts.read_parquet(tmp_path / "other.parquet")


def test_too_little_memory_is_not_called_damage(tmp_path, monkeypatch):
    path = tmp_path / "table.tsv"
    path.write_text("a\n1\n")
    with pytest.raises(MemoryError), artefacts.reading_artefact(path):
        np.empty(2**60, dtype=np.uint8)


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
