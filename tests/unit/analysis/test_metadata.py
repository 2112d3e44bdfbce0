"""Tables about cells, as people have them: read, found for a sample, joined, kept."""

import gzip
import logging
import math
import re
import unicodedata
import zipfile
from decimal import Decimal

import anndata as ad
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scdyn.errors import InputError
from scdyn.io.barcodes import join_barcodes
from scdyn.order import natural_key
from scdyn.pp import metadata, obs_columns
from scdyn.pp.metadata import join_metadata
from scdyn.pp.metadata_files import read_cell_table
from scdyn.pp.obs_columns import MISSING, RESERVED, unify_spelling
from scdyn.tasks.splits import make_splits


def cells(n=12, seed=0, number=1):
    rng = np.random.default_rng(seed)
    return pd.Index(["".join(rng.choice(list("ACGT"), 16)) + f"-{number}" for _ in range(n)])


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, logger="scdyn")
    return caplog


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def write_table(path, names, labels="T cell", **more):
    pd.DataFrame({"barcode": list(names), "cell_type": labels, **more}).to_csv(path, index=False)
    return str(path)


def values_of(column):
    return [None if pd.isna(value) else value for value in column]


# One plain form of every column.


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
        (["TRUE", "FALSE", "True", "true", "T"], ["True", "False", "True", "True", "T"]),
        (["8.0", "8.5", "-3.00", "007.0", "v1.0"], ["8", "8.5", "-3", "007.0", "v1.0"]),
        (pd.Categorical(["8.0", "FALSE", "-0.0"]), ["8", "False", "0"]),
        (np.array([1, 2.5, None], object), [1.0, 2.5, None]),
        (np.array([2**70, None], object), [str(2**70), None]),
        (np.array([b"a", ("x", 1), Decimal("7.10"), 1j], object), ["a", "('x', 1)", "7.10", "1j"]),
        (np.array([1j, np.nan]), ["1j", None]),
        (pd.array(["x", None], "string"), ["x", None]),
        (pd.array(["x", None], pd.ArrowDtype(pa.string())), ["x", None]),
        (pd.array([1, None], pd.ArrowDtype(pa.int32())), ["1", None]),
        (pd.array([0.1, None], pd.ArrowDtype(pa.float32())), [0.1, None]),
        (pd.array([Decimal("7.10"), None], pd.ArrowDtype(pa.decimal128(4, 2))), ["7.10", None]),
        (pd.array([True, None], pd.ArrowDtype(pa.bool_())), ["True", None]),
        (pd.array([1, None], "Int64"), ["1", None]),
        (pd.array([1, 2], "Int64"), [1, 2]),
        (pd.array([0.1, None], "Float32"), [0.1, None]),
        (pd.array([True, None], "boolean"), ["True", None]),
        (pd.Categorical([3, 1, None]), ["3", "1", None]),
        (pd.Categorical([3.0, 0.5]), ["3", "0.5"]),
        (pd.Categorical(["b", "nan", " b"]), ["b", None, "b"]),
        (pd.to_datetime(["2024-01-02", None]), ["2024-01-02", None]),
        (pd.arrays.SparseArray([0, 0, 5]), [0, 0, 5]),
        (np.array([None, None], object), [None, None]),
        (["a\0b", "c\ud800"], ["a b", "c?"]),
        (["M\u00fcller", "Mu\u0308ller"], ["M\u00fcller"] * 2),
        (pd.Categorical(["M\u00fcller", "Mu\u0308ller"]), ["M\u00fcller"] * 2),
        ([], []),
    ],
)
def test_every_column_becomes_text_or_numbers(values, expected, tmp_path):
    table = obs_columns.clean_columns(pd.DataFrame({"a": values}), "here")
    assert table["a"].dtype in (object, np.int64, np.float64)
    assert [*map(repr, values_of(table["a"].tolist()))] == [*map(repr, expected)]
    pd.testing.assert_frame_equal(obs_columns.clean_columns(table, "here"), table)
    ad.AnnData(obs=table).write_h5ad(tmp_path / "t.h5ad")


def test_what_is_read_as_missing_is_in_the_log(said):
    table = pd.DataFrame({"cell_type": ["NA", "", "NA", "x"], "n": ["1", "2", "3", "4"]})
    obs_columns.clean_columns(table, "cells.csv")
    assert "cells.csv: column cell_type: reading as missing: 'NA' (2), '' (1)" in said.text
    assert "column n" not in said.text


def test_names_that_cannot_be_written_are_changed(said, tmp_path):
    names = ["a", "a", "_index", "G1/S", "", ".", "sample", "barcode", "cell", "rna_counts", 3,
             "sample_in_file", "two\nlines"]  # fmt: skip
    table = obs_columns.clean_columns(pd.DataFrame([range(len(names))], columns=names), "x.h5ad")
    assert list(table) == [
        "a", "a_2", "index_in_file", "G1_S", "unnamed", "unnamed_2", "sample_in_file_2",
        "barcode_in_file", "cell_in_file", "rna_counts_in_file", "3", "sample_in_file", "two lines",
    ]  # fmt: skip
    assert "x.h5ad: column 'G1/S' renamed to G1_S" in said.text
    assert table.iloc[0].tolist() == list(range(len(names)))
    ad.AnnData(obs=table).write_h5ad(tmp_path / "t.h5ad")


TEXT = st.text(st.characters(max_codepoint=0x2FFF), max_size=4) | st.sampled_from(sorted(MISSING))
WHOLE = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=True)
# What anndata may hold in a column of obs: name of the type, and its values.
KINDS = [
    ("object", TEXT), ("object", TEXT | st.none() | st.booleans() | WHOLE | FLOATS),
    ("category", TEXT), ("category", WHOLE), ("category", st.booleans()),
    ("string", TEXT | st.none()), ("Int64", WHOLE | st.none()), ("boolean", st.booleans()),
    ("float64", FLOATS), ("float32", st.floats(width=32)), ("int64", WHOLE),
    ("int8", st.integers(-128, 127)), ("bool", st.booleans()),
    ("uint64", st.integers(0, 2**64 - 1)), ("complex128", st.complex_numbers()),
    ("datetime64[ns]", st.datetimes(min_value=pd.Timestamp("1900-01-01").to_pydatetime(),
                                    max_value=pd.Timestamp("2100-01-01").to_pydatetime())),
]  # fmt: skip
NAMES = st.text(st.characters(max_codepoint=0x2FF), max_size=3) | st.sampled_from(
    [*RESERVED, "_index", "x/y", "cell_type", "x"]
)


@st.composite
def tables(draw):
    n_cells = draw(st.integers(1, 5))
    columns = []
    for _ in range(draw(st.integers(1, 4))):
        kind, values = draw(st.sampled_from(KINDS))
        column = draw(st.lists(values, min_size=n_cells, max_size=n_cells))
        columns.append(pd.Series(column, dtype="object").astype(kind))
    table = pd.concat(columns, axis=1) if columns else pd.DataFrame(index=range(n_cells))
    table.columns = draw(st.lists(NAMES, min_size=len(columns), max_size=len(columns)))
    return table.set_axis([f"c{i}" for i in range(n_cells)])


def is_same(value, text):
    """Whether a text, a number of a position, or None, says what a value was."""
    if isinstance(text, int | float):
        return float(value) == text or np.float32(text) == value
    if isinstance(value, str):
        words = re.sub(r"[\x00\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+", " ", value).strip()
        words = unicodedata.normalize("NFC", words.encode("utf-8", "replace").decode())
        return text is None if words in MISSING else text == unify_spelling(words)
    if pd.isna(value):
        return text is None
    if isinstance(value, bool | np.bool_):
        return text == str(bool(value))
    if isinstance(value, int | np.integer):
        return int(text) == int(value) and "." not in text
    if isinstance(value, np.float32):
        return np.float32(text) == value
    if isinstance(value, float):
        return float(text) == value or math.isinf(value)
    if isinstance(value, pd.Timestamp):
        return pd.Timestamp(text) == value
    return text == str(value)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(tables(), min_size=1, max_size=3))
def test_whatever_is_known_of_cells_survives(tmp_path_factory, drawn):
    """Through the file of a sample, the join of samples, and the corpus' table."""
    folder = tmp_path_factory.mktemp("cells")
    samples, columns = [], []
    for i, obs in enumerate(drawn):
        plain = obs_columns.clean_columns(obs, "any")
        assert len(set(plain)) == len(obs.columns) and not set(plain) & set(RESERVED)
        plain = plain.assign(sample=f"s{i}", barcode=plain.index)
        ad.AnnData(obs=plain.set_axis(f"s{i}_" + plain.index)).write_h5ad(folder / f"{i}.h5ad")
        read = ad.read_h5ad(folder / f"{i}.h5ad").obs
        samples.append(metadata.annotate(read, f"s{i}", {}, "", 0.5))
        columns.append(list(samples[-1].columns)[: len(obs.columns)])
    metadata.write_cells(folder / "cells.parquet", obs_columns.concatenate(samples))
    table = metadata.read_cells_table(folder / "cells.parquet")
    assert table.index.is_unique and len(table) == sum(map(len, drawn))
    for i, (obs, names) in enumerate(zip(drawn, columns, strict=True)):
        found = table.loc[f"s{i}_" + obs.index]
        for place, name in enumerate(names):
            column = obs.iloc[:, place]  # pandas would make a float of a float32
            held = column.to_numpy() if column.dtype == np.float32 else column
            for value, text in zip(held, values_of(found[name]), strict=True):
                assert is_same(value, text), (name, value, text)


def test_texts_that_differ_after_a_nul_stay_apart():
    table = pd.DataFrame({"x": ["", "\x000", "a\0b", "a\0c"]}, index=list("abcd"))
    found = obs_columns.clean_columns(table, "x.h5ad")["x"]
    assert np.isnan(found["a"]) and found.tolist()[1:] == ["0", "a b", "a c"]


def test_a_number_in_one_sample_and_a_word_in_another_is_text(tmp_path):
    a = pd.DataFrame({"week": [22, 23], "x": [0.25, 1e-9 / 3], "n": [1, 2]}, ["a1", "a2"])
    b = pd.DataFrame({"week": ["postnatal"], "x": [3]}, ["b1"])
    both = obs_columns.concatenate([a, b])
    assert values_of(both["week"]) == ["22", "23", "postnatal"]
    assert values_of(both["n"]) == ["1", "2", None]
    metadata.write_cells(tmp_path / "cells.parquet", both)
    read = metadata.read_cells_table(tmp_path / "cells.parquet")
    assert read["x"].tolist() == [0.25, 1e-9 / 3, 3]
    assert read.index.tolist() == ["a1", "a2", "b1"]


def test_no_class_is_made_of_a_word_for_missing():
    label = ["x"] * 30 + ["y"] * 30 + ["nan"] * 10 + [""] * 10
    obs = obs_columns.clean_columns(
        pd.DataFrame({"cell_type": label}, map(str, range(80))), "s.h5ad"
    )
    everyone, nobody = np.ones(80, bool), np.zeros(80, bool)
    splits, _ = make_splits(obs, everyone, nobody, "cell_type", None, 2, 0)
    assert splits["label"].value_counts().to_dict() == {"x": 30, "y": 30}


# Files as they come.

B = cells(6)


def lines(separator, *rows):
    return "".join(separator.join(row) + "\n" for row in rows)


FORMS = {
    "tabs in a csv": lines("\t", ("barcode", "a"), *((b, "T cell") for b in B)),
    "commas": lines(",", ("barcode", "a"), *((b, "T cell") for b in B)),
    "semicolons": lines(";", ("barcode", "a"), *((b, "T cell") for b in B)),
    "spaces": lines(" ", ("barcode", "a"), *((b, '"T cell"') for b in B)),
    "comments": "# mine, of May\n#\n\n" + lines(",", ("barcode", "a"), *((b, "T cell") for b in B)),
    "a header with #": "# mine\n" + lines("\t", ("#barcode", "a"), *((b, "T cell") for b in B)),
    "a header with # behind": lines(",", ("# a", "CB"), *(("T cell", b) for b in B)),
    "a comment of two fields": "# barcode, type\n"
    + lines(",", ("barcode", "a"), *((b, "T cell") for b in B)),
    "Excel's hint": "sep=;\n" + lines(";", ("barcode", "a"), *((b, "T cell") for b in B)),
    "write.table": lines("\t", ("a",), *((b, "T cell") for b in B)),
    "write.csv": lines(",", ('""', '"a"'), *((f'"{b}"', '"T cell"') for b in B)),
    "a comma at the end": lines(",", ("barcode", "a", ""), *((b, "T cell", "") for b in B)),
    "blanks": lines(" , ", ("barcode", "a"), *((b, "T cell ") for b in B)),
    "quoted line break": lines(",", ("barcode", "a"), *((b, '"T\ncell"') for b in B)),
    "empty rows": lines(",", ("barcode", "a"), *((b, "T cell") for b in B), ("", ""), ("", "")),
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "crlf", "gzip"])
def test_forms_of_tables(text, encoding, tmp_path):
    path = tmp_path / ("cells.csv.gz" if encoding == "gzip" else "cells.csv")
    if encoding == "crlf":
        path.write_bytes(text.replace("\n", "\r\n").encode())
    elif encoding == "gzip":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_bytes(text.encode(encoding))
    table = join_metadata(B, path, "S")
    assert list(table) == ["a"] and list(table.index) == list(B)
    assert table["a"].tolist() == ["T cell"] * 6


def test_nothing_is_taken_for_a_number(tmp_path):
    header = "barcode;donor;day;x;cluster;pair;when"
    path = write(
        tmp_path / "cells.csv", header, "A;007;1E5;1,5;3.0;1.0;TRUE", "B;010;2E5;-2;;2.0;FALSE"
    )
    table = obs_columns.to_plain_types(read_cell_table(path), path).fillna("")
    assert table.to_dict("list") == {
        "barcode": ["A", "B"], "donor": ["007", "010"], "day": ["1E5", "2E5"],
        "x": ["1.5", "-2"], "cluster": ["3", ""], "pair": ["1", "2"], "when": ["True", "False"],
    }  # fmt: skip


def test_a_class_is_the_same_whatever_wrote_its_sample(tmp_path):
    """R's TRUE beside h5ad's booleans, and 8.0 as text beside the number, in parts of a study."""
    names = cells(4)
    values = ["TRUE", "FALSE", "unknown", "TRUE"], ["8.0", "8.0", "8.5", "8.0"]
    path = write_table(tmp_path / "cells.csv", names, infected=values[0], stage=values[1])
    file = pd.DataFrame({"infected": [True, False], "stage": [8.0, 8.0]}, ["a", "b"])
    words = pd.DataFrame({"infected": ["TRUE"], "stage": pd.Categorical(["8.0"])}, ["c"])
    samples = [
        join_metadata(names, path, "S", 0.5),
        join_metadata(names[:2], path, "S", 0.5),  # none of 8.5, nor of unknown
        obs_columns.clean_columns(file, "s.h5ad"),
        obs_columns.clean_columns(words, "t.h5ad"),
        metadata.annotate(
            pd.DataFrame({"barcode": ["d"]}, ["U_d"]), "U", {"infected": "TRUE", "stage": "8.0"},
            "", 0.5,
        ),
    ]  # fmt: skip
    both = obs_columns.concatenate(samples)
    assert set(both["infected"]) == {"True", "False", "unknown"}
    assert set(both["stage"]) == {"8", "8.5"}
    obs = pd.DataFrame({"barcode": ["d"], "sample": "TRUE"}, ["TRUE_d"])
    assert metadata.annotate(obs, "TRUE", {}, "", 0.5)["sample"].tolist() == ["TRUE"]


def test_other_alphabets_and_what_is_no_text(tmp_path, said):
    path = tmp_path / "cells.csv"
    path.write_bytes("barcode,a\nA,Müller glia\n".encode("latin-1"))
    assert read_cell_table(path)["a"].tolist() == ["Müller glia"]
    assert f"{path}: is not UTF-8; reading it as Windows-1252 (Latin-1)" in said.text
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "")
    with pytest.raises(
        InputError, match="cells.csv: Excel and other workbooks are not supported; save the sheet"
    ):
        read_cell_table(path)
    path.write_bytes(b"\xd0\xcf\x11\xe0" + b"\0" * 600)
    with pytest.raises(InputError, match="cells.csv: Excel and other workbooks"):
        read_cell_table(path)
    for content in (b"\x89HDF\r\n", b"PAR1abc", "barcode,a\n".encode("utf-16-le"), b"\xff\xfea"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="cells.csv: is not a text file; save it as"):
            read_cell_table(path)
    path.write_text("# nothing\n")
    with pytest.raises(InputError, match="cells.csv: the table is empty"):
        read_cell_table(path)
    with pytest.raises(InputError, match="nowhere.csv: not a readable table of cells"):
        read_cell_table(tmp_path / "nowhere.csv")
    path.write_text("barcode,a\n")
    with pytest.raises(
        InputError, match="no barcodes in common with sample S: 0 of 6 .* has nothing"
    ):
        join_metadata(B, path, "S")


UNQUOTED = {
    "some rows, the first too": (",", "barcode,a", ["{b},T cell, CD4", "{b},B cell"], 2),
    "every row": (",", "Cell ID,a", ["{b},T cell, CD4", "{b},B cell, naive"], 2),
    "every row, before the barcode": (",", "a,barcode", ["T cell, CD4,{b}"], 2),
    "and another column": (",", "barcode,a,n", ["{b},B cell,1", "{b},T cell, CD4,1"], 3),
    "late": (",", "barcode,a", [*["{b},T cell"] * 300, "{b},T cell, CD4"], 302),
    "spaces": (" ", "barcode a", ["{b} B cell"], 2),
    "spaces, and row names": (" ", "a n", ["{b} B cell 1", "{b} T 1"], 2),
    "a note": (",", "barcode,a", ["{b},T cell,note", "{b},T cell"], 2),
    "no names": (",", "a,b", ["1,2,3,4"], 2),
}


@pytest.mark.parametrize("case", UNQUOTED)
def test_a_row_with_more_fields_than_the_header_is_refused(case, tmp_path):
    separator, header, rows, line = UNQUOTED[case]
    rows = rows * 20 if len(rows) < 3 else rows
    body = [row.format(b=b) for row, b in zip(rows, cells(len(rows)), strict=True)]
    path = write(tmp_path / "cells.csv", "# of May", header, *body)
    n = len(header.split(separator))
    words = rf"cells.csv: line {line + 1} has \d fields, but the header has {n} names \("
    with pytest.raises(InputError, match=words):
        read_cell_table(path)


@pytest.mark.parametrize("at", [[3], [3, 4], [3, 40], [0, 79]])
@pytest.mark.parametrize("names", ["barcode\ta\tn", "a\tn"])
def test_lone_quotes_of_r_swallow_no_rows(at, names, tmp_path):
    labels = ['"odd' if i in at else f"T{i}" for i in range(80)]
    rows = [f"{b}\t{a}\t{i}" for i, (b, a) in enumerate(zip(cells(80), labels, strict=True))]
    table = read_cell_table(write(tmp_path / "cells.tsv", names, *rows))
    assert table["a"].tolist() == labels and table["n"].tolist() == [str(i) for i in range(80)]


def test_a_quote_that_swallows_rows_is_refused_if_quotes_are_needed(tmp_path):
    rows = ['A,"T, CD4"', 'B,"odd', "C,T", "D,T", 'E,odd"']
    path = write(tmp_path / "cells.csv", "# of May", "barcode,a", *rows)
    with pytest.raises(
        InputError, match=r"the quote in line 4 \(odd\) is not closed before whole rows"
    ):
        read_cell_table(path)
    path = write(tmp_path / "cells.csv", "barcode,a", 'A,"T, CD4"', 'B,"odd', *["C,T"] * 40000)
    with pytest.raises(InputError, match="the quote in line 3 .* is not closed before whole rows"):
        read_cell_table(path)


def test_separators_at_lines_ends_make_no_field(tmp_path):
    for header, *rows in [("barcode,a", "A,T,", "B,T"), ("barcode,a,,", "A,T", "B,T"),
                          ("barcode,a", "A,T,", "B,T,")]:  # fmt: skip
        table = read_cell_table(write(tmp_path / "cells.csv", header, *rows))
        assert table.to_dict("list") == {"barcode": ["A", "B"], "a": ["T", "T"]}
    path = write(tmp_path / "cells.tsv", "a\tb", "A\t\t", "B\tT\tx")
    assert read_cell_table(path).to_dict("list") == {
        "row_names": ["A", "B"], "a": ["", "T"], "b": ["", "x"],
    }  # fmt: skip


def test_a_row_that_stands_there_twice_is_read_once(tmp_path, said):
    rows = [f"{b},T" for b in B]
    path = write(tmp_path / "cells.csv", "barcode,a", *rows, rows[0], f" {rows[2]} ")
    assert join_metadata(B, path, "S")["a"].tolist() == ["T"] * 6
    assert f"{path}: ignoring 2 duplicate rows" in said.text
    path = write(tmp_path / "other.csv", "barcode,a", *rows, f"{B[0]},B")
    with pytest.raises(InputError, match=f"duplicate barcode {B[0]} of sample S"):
        join_metadata(B, path, "S")


def test_a_column_named_twice_is_renamed(tmp_path, said):
    path = write(tmp_path / "cells.csv", "barcode,a,a", *(f"{b},1,2" for b in B))
    assert join_metadata(B, path, "S").iloc[0].to_dict() == {"a": "1", "a_2": "2"}
    assert "column 'a' renamed to a_2" in said.text


# Whose rows are whose.


@pytest.mark.parametrize(
    ("form", "how"),
    [
        ("{b}-1", "as they are"),
        ("{b}", "by nucleotides and library"),
        ("{b}.1", "by nucleotides and library"),
        ("S1_{b}-1", "by nucleotides and library with S1_|"),
        ("S1#{b}-1", "by nucleotides and library with S1#|"),
        ("{b}-1_2", "by nucleotides and library"),
        ("{b}-1-0", "by nucleotides and library"),
        ("{b}-3", "by nucleotides"),
        ("{b}-1_gex", "without the modality's name"),
    ],
)
def test_forms_of_barcodes(form, how, tmp_path, said):
    own = cells(12)
    names = [form.format(b=name[:-2]) for name in own[::-1]]
    path = write_table(tmp_path / "cells.csv", names, [str(i) for i in range(12)][::-1])
    table = join_metadata(own, path, "S1")
    assert table["cell_type"].tolist() == [str(i) for i in range(12)]
    assert f"12 of 12 cells (column barcode, {how})" in said.text


def test_names_that_are_no_nucleotides(tmp_path):
    own = pd.Index([f"plate_{i}" for i in range(12)])
    path = write_table(tmp_path / "cells.csv", "S1_" + own[::-1], list("abcdefghijkl")[::-1])
    assert join_metadata(own, path, "S1")["cell_type"].tolist() == list("abcdefghijkl")


def test_names_that_are_numbers(tmp_path):
    own = pd.Index([str(i) for i in range(80)])
    table = pd.DataFrame({"barcode": cells(80), "rank": range(80), "cell_type": "T"})
    table.to_csv(tmp_path / "ranks.csv", index=False)
    with pytest.raises(InputError, match="no barcodes in common with sample S: 0 of 80"):
        join_metadata(own, tmp_path / "ranks.csv", "S")
    table = table.assign(cell_type=[f"t{i}" for i in range(80)])
    table.iloc[10:].to_csv(tmp_path / "python.csv")
    found = join_metadata(own, tmp_path / "python.csv", "S")["cell_type"]
    assert values_of(found) == [None] * 10 + [f"t{i}" for i in range(10, 80)]
    for by, words in [(1, "1 higher"), (-1, "1 lower")]:
        table.set_axis(table.index + by).to_csv(tmp_path / "r.csv")
        with pytest.raises(InputError, match=f"sample S in column row_names are {words}"):
            join_metadata(own, tmp_path / "r.csv", "S")


def of_two_samples(a, b, columns, tmp_path):
    """A table of the samples A and B, with columns of them; labels say whose a row is."""
    table = pd.concat(
        [
            pd.DataFrame({"cell_type": f"of {sample}", **columns(sample, number, names)})
            for number, (sample, names) in enumerate([("A", a), ("B", b)], start=1)
        ]
    )
    table.sample(frac=1, random_state=0).to_csv(tmp_path / "cells.csv", index=False)
    return str(tmp_path / "cells.csv")


TOLD = {
    "a column sample": lambda s, n, names: {"barcode": names, "sample": s},
    "orig.ident": lambda s, n, names: {"barcode": names, "orig.ident": s},
    "any column": lambda s, n, names: {"barcode": names, "of_mine": s},
    "a prefix": lambda s, n, names: {"barcode": f"{s}_" + names},
    "a prefix in R": lambda s, n, names: {"barcode": f"{s}#" + names.str.replace("-", ".")},
    "a suffix": lambda s, n, names: {"barcode": names + f"_{s}"},
    "row names, and bare barcodes": lambda s, n, names: {"r": f"{s}_" + names, "barcode": names},
}


@pytest.mark.parametrize("columns", TOLD.values(), ids=TOLD)
def test_the_same_barcodes_in_two_samples(columns, tmp_path):
    """All of B's barcodes are A's too, and A has cells that the table has of B alone."""
    own = cells(40)
    path = of_two_samples(own[:30], own, columns, tmp_path)
    assert values_of(join_metadata(own, path, "A")["cell_type"]) == ["of A"] * 30 + [None] * 10
    assert values_of(join_metadata(own, path, "B")["cell_type"]) == ["of B"] * 40


def test_a_column_that_names_the_sample_in_few_rows_is_not_believed(tmp_path, said):
    own = cells(80)
    telling = ["S"] * 4 + ["SeuratProject"] * 76
    labels = [f"t{i}" for i in range(80)]
    path = write_table(tmp_path / "cells.csv", own, labels, **{"orig.ident": telling})
    assert join_metadata(own, path, "S")["cell_type"].tolist() == labels
    assert "80 of 80 cells (column barcode, as they are, not where orig.ident is S)" in said.text
    telling = ["S"] * 41 + ["T"] * 39
    path = write_table(tmp_path / "half.csv", own, labels, **{"orig.ident": telling})
    assert join_metadata(own, path, "S")["cell_type"].notna().sum() == 41
    # Of a matrix with every barcode there is, the other samples' rows agree with it, too.
    raw = own.append(cells(2000, seed=1))
    path = write_table(tmp_path / "raw.csv", own, labels, sample=["S"] * 4 + ["T"] * 76)
    assert join_metadata(raw, path, "S")["cell_type"].notna().sum() == 4
    # The rows that are called the sample's are of other cells: its files may be exchanged.
    names = [*cells(40, seed=2), *own]
    path = write_table(tmp_path / "other.csv", names, "T", sample=["S"] * 40 + ["T"] * 80)
    with pytest.raises(InputError, match="no barcodes in common with sample S: 0 of 80"):
        join_metadata(own, path, "S")


def test_a_samples_name_in_a_column_may_differ_in_case_and_marks(tmp_path):
    own = cells(40)
    for name, other, written in [("d1-ctrl", "d2-ctrl", "D1_ctrl"), ("s1", "s2", "S1")]:
        path = of_two_samples(
            own, own, lambda s, n, names, w=written: {"barcode": names, "sample": [w, "x"][n - 1]},
            tmp_path,
        )  # fmt: skip
        assert (join_metadata(own, path, name)["cell_type"] == "of A").all()
        with pytest.raises(InputError, match="duplicate barcode"):
            join_metadata(own, path, other)
    # The name itself, beside another of which that is true, leaves no doubt.
    path = write_table(tmp_path / "a.csv", own, "T", sample=["s1"] * 20 + ["S1"] * 20)
    assert join_metadata(own, path, "s1")["cell_type"].notna().sum() == 20
    samples = [("S1", own, path), ("s.1", own, path)]
    assert [f.passed for f in metadata.examine_metadata(samples, 0.5)] == [True, False]
    path = write_table(tmp_path / "b.csv", own, "T", sample="S1")
    samples = [("S1", own, path), ("s1", own, path)]
    assert [f.passed for f in metadata.examine_metadata(samples, 0.5)] == [False, False]


@pytest.mark.parametrize("n_shared", [0, 3, 40])
def test_of_two_columns_with_the_samples_name_the_narrower_counts(n_shared, tmp_path):
    own = cells(44)
    a, b = own[:40], own[40:].append(own[:n_shared]).append(cells(40 - n_shared, seed=1))

    def columns(sample, n, names):
        return {"barcode": names, "orig.ident": "A", "library": "x", "sample": sample}

    path = of_two_samples(a, b, columns, tmp_path)
    assert values_of(join_metadata(own, path, "A")["cell_type"]) == ["of A"] * 40 + [None] * 4
    assert (join_metadata(b, path, "B")["cell_type"] == "of B").all()


def test_numbers_of_samples_are_told_by_their_cells_or_not_at_all(tmp_path):
    a, b = cells(40, seed=0), cells(40, seed=1)
    b = b[:38].append(a[38:])  # two by chance
    for form in ("{}_{n}", "{}-{n}"):

        def columns(_, n, names, form=form):
            return {"barcode": [form.format(x[:-2] if "-" in form else x, n=n) for x in names]}

        path = of_two_samples(a[:38], b, columns, tmp_path)
        assert values_of(join_metadata(b, path, "B")["cell_type"]) == ["of B"] * 40
        assert values_of(join_metadata(a, path, "A")["cell_type"])[:38] == ["of A"] * 38
        path = of_two_samples(a, a, columns, tmp_path)
        if form == "{}_{n}":
            with pytest.raises(
                InputError, match="duplicate barcode .*no column identifies the rows"
            ):
                join_metadata(a, path, "A")


def test_a_cluster_with_the_samples_name_tells_nothing(tmp_path):
    own = cells(40)

    def columns(sample, n, names):
        return {"barcode": names, "cluster": ["1"] * 20 + ["2"] * 20}

    path = of_two_samples(own, own, columns, tmp_path)
    with pytest.raises(InputError, match="duplicate barcode"):
        join_metadata(own, path, "1")
    path = write_table(tmp_path / "one.csv", own, "T", cluster=["1"] * 20 + ["2"] * 20)
    assert join_metadata(own, path, "1")["cell_type"].notna().all()


@pytest.mark.parametrize(
    "form", ["{b}-{n}", "{b}-1_{n}", "{b}-1-{m}", "lane{n}#{b}-1", "S_{b}-{n}"]
)
def test_libraries_that_another_tool_numbered(form, tmp_path):
    """The same barcodes in twelve libraries: the number alone tells the cells apart."""
    libraries = [cells(10)] * 12
    own = join_barcodes(libraries)
    names = [form.format(b=b[:-2], n=n, m=n - 1) for n in range(1, 13) for b in libraries[0]]
    labels = [f"{n}:{b}" for n in range(1, 13) for b in libraries[0]]
    table = join_metadata(own, write_table(tmp_path / "cells.csv", names, labels), "S")
    assert table["cell_type"].tolist() == labels


def test_lanes_are_numbered_as_people_count():
    names = [f"lane{i}/outs" for i in range(1, 13)]
    assert sorted(sorted(names), key=natural_key) == names
    assert join_barcodes([cells(2), cells(2)]).str[-2:].tolist() == ["-1", "-1", "-2", "-2"]
    with pytest.raises(InputError, match="duplicate barcode .* in library 1"):
        join_barcodes([cells(2).append(cells(2, number=2)), cells(2)])


@pytest.mark.parametrize("form", ["lib{x}#{b}-1", "{b}-{n}", "{b}-1-{m}"])
def test_libraries_are_told_by_the_cells_they_share(form, tmp_path, said):
    """Two libraries in another order than the matrix has them, a tenth of their barcodes shared."""
    a, b = cells(80), cells(80, seed=1)
    b = b[:72].append(a[:8])
    names = [
        form.format(b=name[:-2], x="AB"[i], n=i + 1, m=i) for i in (0, 1) for name in (b, a)[i]
    ]
    labels = [f"{i}:{name}" for i in (0, 1) for name in (b, a)[i]]
    path = write_table(tmp_path / "cells.csv", names, labels)
    found = join_metadata(join_barcodes([a, b]), path, "S")["cell_type"]
    assert found.tolist() == labels[80:] + labels[:80]
    assert "the library with the same cells" in said.text


def test_a_wrong_order_of_many_lanes_is_put_right(tmp_path):
    libraries = [cells(40, seed=i)[:30].append(cells(10, seed=99)) for i in range(12)]
    own = join_barcodes(libraries)
    order = sorted(range(12), key=str)
    names = np.concatenate([libraries[i].str[:-1] + str(n) for n, i in enumerate(order, 1)])
    labels = [f"{i}:{name}" for i in order for name in libraries[i]]
    found = join_metadata(own, write_table(tmp_path / "cells.csv", names, labels), "S")
    assert found["cell_type"].tolist() == [f"{i}:{b}" for i in range(12) for b in libraries[i]]


def test_a_library_that_is_left_out_is_named(tmp_path):
    a, b = cells(80), cells(80, seed=1)
    own = join_barcodes([a, b[:79].append(a[:1])])
    path = write_table(tmp_path / "bare.csv", a.append(b[:79]).str[:-2])
    with pytest.raises(
        InputError, match="no barcodes in common with library 2 of sample S, although 79"
    ):
        join_metadata(own, path, "S")
    path = write_table(tmp_path / "one.csv", a)  # of one library alone
    assert join_metadata(own, path, "S")["cell_type"].notna().sum() == 80


def test_too_few_matched_are_refused_with_both_sides(tmp_path):
    own, other = cells(80), cells(80, seed=1)
    other = other[:78].append(own[78:])
    path = write_table(tmp_path / "cells.csv", other)
    words = r"in common with sample S: 2 of 80 \(2%, where .*min_metadata_overlap requires "
    with pytest.raises(InputError, match=words) as caught:
        join_metadata(own, path, "S")
    assert ", ".join(own[:3]) in str(caught.value) and ", ".join(other[:3]) in str(caught.value)
    assert join_metadata(own, path, "S", 0.02)["cell_type"].notna().sum() == 2
    with pytest.raises(InputError, match="no barcodes in common with sample S: 0 of 80"):
        join_metadata(own, write_table(tmp_path / "none.csv", cells(80, seed=2)), "S", 0.0)
    few = write_table(tmp_path / "few.csv", own[:5])  # a table of the cells of interest
    assert join_metadata(own, few, "S")["cell_type"].notna().sum() == 5
    (tmp_path / "bare.csv").write_text("".join(f"{b},T\n" for b in own))
    with pytest.raises(InputError, match=f"has no header .its first line is the cell {own[0]}"):
        join_metadata(own, tmp_path / "bare.csv", "S")
    twice = pd.Index([*own, own[0]])
    with pytest.raises(InputError, match=f"sample S: duplicate barcode {own[0]}"):
        join_metadata(twice, path, "S")


def test_all_tables_are_examined_and_exchanged_ones_are_named(tmp_path):
    a, b, c = (cells(80, seed=i) for i in range(3))
    b = b[:78].append(a[78:])
    of_a, of_b, of_c = (
        write_table(tmp_path / f"{i}.csv", names) for i, names in enumerate([a, b, c])
    )
    samples = [("A", a, of_b), ("B", b, of_a), ("C", c, of_c), ("D", a, ""), ("E", a, "none.csv")]
    findings = metadata.examine_metadata(samples, 0.5)
    assert [(f.subject, f.passed) for f in findings] == [
        ("A", False), ("B", False), ("C", True), ("E", False),
    ]  # fmt: skip
    assert findings[0].found == (
        f"the tables of A and B may be swapped: {of_b} has 2 of 80 barcodes of A, but 80 of 80 of "
        "B; check metadata in the sample sheet. [SCD-METADATA]"
    )
    assert findings[2].found == f"80 of 80 barcodes match {of_c} (column barcode, as they are)"
    one = of_two_samples(a, b, lambda s, n, names: {"barcode": names, "sample": s}, tmp_path)
    assert all(f.passed for f in metadata.examine_metadata([("A", a, one), ("B", b, one)], 0.5))


@pytest.mark.parametrize("numbered", [False, True])
def test_a_sample_whose_files_are_not_there_leaves_the_others_examined(numbered, tmp_path):
    a, b = (pd.Index([*map(str, range(80))]) if numbered else cells(80, seed=i) for i in range(2))
    none = pd.Index([], dtype=str)
    of_a = write_table(tmp_path / "a.csv", a)
    of_b = write_table(tmp_path / "b.csv", b[:60])
    samples = [("A", a, of_a), ("missing", none, of_a), ("B", b, of_b), ("gone", none, of_b)]
    findings = metadata.examine_metadata(samples, 0.5)
    assert [(f.subject, f.passed) for f in findings] == [("A", True), ("B", True)]


def test_rows_of_two_samples_cells_are_given_to_neither_unless_told(tmp_path):
    a, b = cells(80), cells(80, seed=1)
    b = b[:72].append(a[:8])
    path = write_table(tmp_path / "once.csv", a.append(b[:72]))
    samples = [("A", a, path), ("B", b, path), ("C", cells(80, seed=2), "")]
    for finding, other in zip(metadata.examine_metadata(samples, 0.5), "BA", strict=True):
        assert not finding.passed and finding.found.startswith(
            f"{path}: 8 rows, such as {a[0]}, match cells of both {finding.subject} and {other}; "
            "add a column 'sample'"
        )
    # The rows that are A's by their name are not B's.
    path = write_table(tmp_path / "half.csv", [*("A_" + a), *b[:72]])
    samples = [("A", a, path), ("B", b, path)]
    assert [f.passed for f in metadata.examine_metadata(samples, 0.5)] == [True, True]
    path = write_table(tmp_path / "told.csv", a, sample="A")
    samples = [("A", a, path), ("B", b[72:], path)]
    assert [f.passed for f in metadata.examine_metadata(samples, 0.5)] == [True, False]


# What is known of a sample's cells.


def obs_of(names, sample="S", **more):
    table = pd.DataFrame({"sample": sample, "barcode": list(names), **more})
    return table.set_axis(sample + "_" + names)


def test_the_sheet_comes_before_the_table_and_the_table_before_the_file(tmp_path, said):
    own = cells(12)
    obs = obs_of(own, cell_type="old", condition="own", rna_counts=7)
    path = write_table(tmp_path / "cells.csv", own[:10], "new", condition="told", is_doublet=True)
    table = metadata.annotate(obs, "S", {"condition": "treated", "donor": ""}, path, 0.5)
    assert list(table.index) == list(obs.index)
    assert table.iloc[0].dropna().to_dict() == {
        "sample": "S", "barcode": own[0], "rna_counts": 7, "cell_type": "new", "is_doublet": "True",
        "cell_type_in_file": "old", "condition": "treated", "condition_in_file": "own",
        "condition_in_table": "told",
    }  # fmt: skip
    assert table["cell_type"].isna().sum() == 2 == table["is_doublet"].isna().sum()
    assert table["donor"].isna().all()
    assert f"sample S: cell_type: using the values of {path}" in said.text
    assert "sample S: condition: using the values of the sample sheet" in said.text


def test_an_empty_covariate_hides_no_column_of_the_table_or_the_file(tmp_path):
    own = cells(12)
    path = write_table(tmp_path / "cells.csv", own, "new", donor="d1")
    obs = obs_of(own, genotype="knockout")
    table = metadata.annotate(obs, "S", {"genotype": "", "donor": "", "day": ""}, path, 0.5)
    assert set(table["genotype"]) == {"knockout"} and set(table["donor"]) == {"d1"}
    assert table["day"].isna().all()
    assert not [name for name in table if "_in_" in name]


def test_a_table_is_matched_by_all_barcodes_of_the_matrix_whatever_quality_control_left(tmp_path):
    of_matrix = cells(40)
    left = of_matrix[:3]
    path = write_table(tmp_path / "cells.csv", of_matrix[2:], "of the matrix")
    with pytest.raises(InputError, match="1 of 3"):
        metadata.annotate(obs_of(left), "S", {}, path, 0.5)
    table = metadata.annotate(obs_of(left), "S", {}, path, 0.5, barcodes=of_matrix)
    assert table["cell_type"].isna().tolist() == [True, True, False]


def test_a_table_of_another_sample_is_refused_where_the_matrix_has_all_droplets(tmp_path):
    of_matrix = cells(3000)
    left = of_matrix[:80]

    def labelled(names, barcodes=of_matrix):
        path = write_table(tmp_path / "cells.csv", names)
        table = metadata.annotate(obs_of(left), "S", {}, path, 0.5, barcodes=barcodes)
        return table["cell_type"].notna().sum()

    words = (
        "has 2 of the 80 cells of sample S that pass .* and 80 of the 3000 barcodes of its matrix"
    )
    with pytest.raises(InputError, match=words):
        labelled(of_matrix[78:158])
    with pytest.raises(InputError, match="has 0 of the 80 cells"):
        labelled(of_matrix[100:180])
    assert labelled(of_matrix[:500]) == 80  # quality control was milder there
    assert labelled(of_matrix[60:160]) == 20  # and here it dropped most of their cells
    assert labelled(of_matrix[76:84]) == 4  # cells of interest, of which half were dropped
    # A matrix of cells alone has no others' barcodes.
    assert labelled(of_matrix[78:158], of_matrix[:400]) == 2


def test_two_columns_that_hold_the_barcodes_in_another_order_are_refused_unless_one_is_called_so(
    tmp_path,
):
    own = cells(12)
    path = str(tmp_path / "cells.csv")
    table = pd.DataFrame({"rank": own[::-1], "id": own, "cell_type": [f"t{i}" for i in range(12)]})
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match="columns rank and id both have the barcodes of sample S"):
        metadata.annotate(obs_of(own), "S", {}, path, 0.5)
    table.rename(columns={"id": "Cell_ID"}).to_csv(tmp_path / "named.csv", index=False)
    found = metadata.annotate(obs_of(own), "S", {}, str(tmp_path / "named.csv"), 0.5)
    assert found["cell_type"].tolist() == table["cell_type"].tolist()


def test_a_barcode_with_blanks_is_found_again(tmp_path):
    own = pd.Index([f"{name} " for name in cells(6)])
    path = write_table(tmp_path / "cells.csv", own.str.strip(), "neuron")
    table = metadata.annotate(obs_of(own), "S", {}, path, 0.5, barcodes=own)
    assert (table["cell_type"] == "neuron").all()


def test_positions(tmp_path):
    own = cells(12)
    places = np.arange(36, dtype=np.float32).reshape(12, 3) / 7
    table = metadata.annotate(obs_of(own), "S", {}, "", 0.5, places)
    np.testing.assert_array_equal(table[["x", "y"]].astype(np.float32), places[:, :2])
    path = write_table(tmp_path / "cells.csv", own[:11], x=range(11), y="2.5")
    table = metadata.annotate(obs_of(own), "S", {}, path, 0.5, places)
    assert table["x"].tolist()[:11] == list(range(11)) and table["x"].isna().sum() == 1
    assert table["x_in_file"].dtype == float
    places = [f"row {i}" for i in range(12)]
    table = metadata.annotate(obs_of(own, x=places, y=1.0), "S", {}, "", 0.5)
    assert "x" not in table and table["x_in_file"].tolist() == places
    with pytest.raises(InputError, match="sample sheet: 'left' in column x .* is not a number"):
        metadata.annotate(obs_of(own), "S", {"x": "left", "y": "1"}, "", 0.5)
    path = write_table(tmp_path / "cells.csv", own, x="left", y="1")
    with pytest.raises(InputError, match="'left' in column x .* is not a number; x and y are pos"):
        metadata.annotate(obs_of(own), "S", {}, path, 0.5)


def test_all_samples_are_annotated_each_by_its_own_table_and_covariates(tmp_path):
    samples, names = [], {}
    for sample in "AB":
        names[sample] = cells(seed=ord(sample))
        index = f"{sample}_" + names[sample]
        obs = pd.DataFrame({"sample": sample, "barcode": names[sample]}, index)
        places = np.full((4, 2), 2.5) if sample == "B" else None
        obs = obs.assign(rna_counts=7)  # a metric, which the corpus has
        samples.append((obs.iloc[:4], places, pd.DataFrame({"cell": index})))
    # The table is of all cells, so that its overlap is that of the matrix and not of what is left.
    path = write_table(tmp_path / "a.csv", names["A"], ["T cell"] * 4 + ["B cell"] * 8)
    table = metadata.annotate_samples(
        samples, {"A": {"day": "1"}, "B": {"day": "2"}}, {"A": path, "B": ""}, 0.9
    )
    assert list(table.index) == [f"{s}_{name}" for s in "AB" for name in names[s][:4]]
    assert values_of(table["cell_type"]) == ["T cell"] * 4 + [None] * 4
    assert values_of(table["x"]) == [None] * 4 + [2.5] * 4
    assert table["day"].astype(str).tolist() == ["1"] * 4 + ["2"] * 4
    assert "rna_counts" not in table
