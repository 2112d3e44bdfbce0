"""Tables about cells, as people have them: read, found for a sample, joined, kept."""

import logging
from decimal import Decimal

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scdyn import cell_tables


def cells(n=12, seed=0, number=1):
    rng = np.random.default_rng(seed)
    return pd.Index(["".join(rng.choice(list("ACGT"), 16)) + f"-{number}" for _ in range(n)])


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, logger="scdyn")
    return caplog


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def table_of(names, values="T cell", column="barcode"):
    return pd.DataFrame({column: list(names), "cell_type": values})


# --- one plain form of every column -----------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a ", " b", "c\nd", "e\r\nf\tg"], ["a", "b", "c d", "e f g"]),
        (["", "  ", "nan", "NA", "N/A", "<NA>", "None", "NULL", "x"], [None] * 8 + ["x"]),
        (["none", "Nan", "unknown", "0"], ["none", "Nan", "unknown", "0"]),
        ([1.0, 2.0, np.nan], ["1", "2", None]),
        ([1.0, 2.0, 3.0], [1, 2, 3]),
        ([0.5, np.nan, np.inf], [0.5, None, np.inf]),
        (np.array([0.1, 7.25], np.float32), [0.1, 7.25]),
        (np.array([1, 2], np.uint8), [1, 2]),
        (np.array([2**64 - 1, 1], np.uint64), [str(2**64 - 1), "1"]),
        ([True, False], ["True", "False"]),
        (np.array([True, None, np.nan], object), ["True", None, None]),
        (np.array([True, 1, 1.0, "1", 2.5, None], object), ["True", "1", "1", "1", "2.5", None]),
        (np.array([1, 2.5, None], object), [1, 2.5, None]),
        (np.array([b"a", ("x", 1), Decimal("7.10"), 1j], object), ["a", "('x', 1)", "7.10", "1j"]),
        (pd.array(["x", None], "string"), ["x", None]),
        (pd.array(["x", None], pd.ArrowDtype(pd.api.types.pandas_dtype("string[pyarrow]").na_value
                                             and __import__("pyarrow").string())), ["x", None]),
        (pd.array([1, None], "Int64"), ["1", None]),
        (pd.array([1, 2], "Int64"), [1, 2]),
        (pd.array([0.1, None], "Float32"), [0.1, None]),
        (pd.array([True, None], "boolean"), ["True", None]),
        (pd.Categorical([3, 1, None]), ["3", "1", None]),
        (pd.Categorical([3.0, 0.5]), ["3", "0.5"]),
        (pd.Categorical(["b", "nan", " b"]), ["b", None, "b"]),
        (pd.to_datetime(["2024-01-02", None]), ["2024-01-02", None]),
        (pd.arrays.SparseArray([0, 0, 5]), [0, 0, 5]),
        ([None, None], [None, None]),
        (["a\0b", "c\ud800"], ["a b", "c?"]),
    ],
)  # fmt: skip
def test_every_column_becomes_text_or_numbers(values, expected, tmp_path):
    table = cell_tables.normalise(pd.DataFrame({"a": values}), "here")
    found = [None if pd.isna(value) else value for value in table["a"]]
    assert (
        found == expected
        and [type(v) for v in found] == [type(v) for v in expected]
        or (found == expected and table["a"].dtype in (np.int64, np.float64))
    )
    # Once more changes nothing, and a file holds it.
    pd.testing.assert_frame_equal(cell_tables.normalise(table, "here"), table)
    ad.AnnData(obs=table).write_h5ad(tmp_path / "t.h5ad")
