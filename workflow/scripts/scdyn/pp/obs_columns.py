"""Columns of ``obs`` and metadata, converted to types that every file format supports."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from scdyn.log import logger

# Words for missing values in pandas, R, Excel, Python and SQL.
MISSING = frozenset(
    ["", "nan", "NaN", "NAN", "-nan", "-NaN", "na", "NA", "N/A", "n/a", "#N/A", "#NA", "<NA>"]
    + ["None", "null", "Null", "NULL", "NaT"]
)
# Names of columns of barcodes, reduced to lower-case letters and digits.
BARCODES = frozenset(
    ["barcode", "barcodes", "cell", "cells", "cellid", "cellids", "cellbarcode", "cellbarcodes"]
    + ["cellname", "cellnames", "index", "rownames", "unnamed", "unnamed0"]
)
# Columns of the workflow itself: QC metrics, and all reserved names.
METRICS = (
    "rna_counts", "rna_genes", "mito_share", "promoter_counts", "promoter_genes", "fragments",
    "promoter_share", "nucleosome_signal", "tss_enrichment", "peak_share", "atac_mito_share",
    "doublet_score", "promoter_doublet_score",
)  # fmt: skip
# Metrics that are whole numbers in every cell that they are known of.
WHOLE_METRICS = ("rna_counts", "rna_genes", "promoter_counts", "promoter_genes")
RESERVED = ("cell", "sample", "barcode", "promoter_source", "promoters_measured", *METRICS)
# Line breaks, tabs and NUL, which TSV or HDF5 cannot store.
BREAKS = re.compile(r"[\x00\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
# True and False in R, Excel and JSON, and an integer written as a float, but not an id like 007.0.
TRUTH = {"TRUE": "True", "FALSE": "False", "true": "True", "false": "False"}
FLOAT_MARK = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")
# Larger integers are not all exact in float64.
MOST_WHOLE = 2**53


def clean_columns(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Convert a table of cells to plain types, and rename reserved columns.

    See :func:`to_plain_types`. Columns named as in :data:`RESERVED` get the suffix ``_in_file``.

    Parameters
    ----------
    table
        One row per cell, of any pandas types.
    origin
        The file, for the log.

    Returns
    -------
    DataFrame
        The same rows, in the same order.
    """
    return rename_reserved(to_plain_types(table, origin), origin)


def to_plain_types(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Convert every column to one of three types: text (object), int64 or float64.

    - Text: surrounding spaces are removed, line breaks and tabs become spaces, accented letters
      become one character (NFC), and :data:`MISSING` becomes NaN.
    - Booleans, dates and other types become text. Booleans and integers within text have one
      spelling (:func:`unify_spelling`).
    - Integers are int64, or text if some are missing, so that cluster 3 is "3" and not "3.0".
    - Columns without any value are float64.

    Column names that cannot be stored are changed. All changes are logged.
    """
    names = clean_names(list(table.columns), origin)
    columns = {
        name: to_plain_column(table.iloc[:, place], name, origin)
        for place, name in enumerate(names)
    }
    index = pd.Index([str(name) for name in table.index], dtype=object)
    if index.has_duplicates:
        twice = index[index.duplicated()]
        logger.info("%s: %d duplicate names of cells, such as %s", origin, len(twice), twice[0])
    return pd.DataFrame(columns, index=index)


def rename_reserved(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Add ``_in_file`` to the names of columns that the workflow reserves."""
    names = {name: f"{name}_in_file" for name in table if name in RESERVED}
    return table.set_axis(rename_unique(list(table.columns), names, origin), axis=1)


def is_barcode_name(name: str) -> bool:
    """Tell whether a column's name is one of :data:`BARCODES`."""
    return re.sub(r"[\W_]+", "", name.casefold()) in BARCODES


def clean_names(names: Sequence[Any], origin: str) -> list[str]:
    """Change column names that are not text, duplicates, or that h5ad and TSV cannot store."""
    clean = [clean_text(str(name)).replace("/", "_") for name in names]
    cannot = {"": "unnamed", ".": "unnamed", "_index": "index_in_file"}
    wanted = {name: cannot.get(text, text) for name, text in zip(names, clean, strict=True)}
    return rename_unique(names, wanted, origin)


def rename_unique(names: Sequence[Any], wanted: dict[Any, str], origin: str) -> list[str]:
    """Rename columns, with a number as suffix if a name is already taken."""
    kept = {name for name in names if wanted.get(name, name) == name}
    taken: set[str] = set()
    found = []
    for name in names:
        text = new = wanted.get(name, name)
        number = 2
        while new in taken or (new in kept and new != name):
            new, number = f"{text}_{number}", number + 1
        if new != name:
            logger.info("%s: column %r renamed to %s", origin, name, new)
        taken.add(new)
        found.append(new)
    return found


def to_plain_column(column: pd.Series, name: str, origin: str) -> np.ndarray:
    """Convert a column to text, int64 or float64; see :func:`to_plain_types`."""
    if isinstance(column.dtype, pd.SparseDtype):
        column = column.sparse.to_dense()
    if isinstance(column.dtype, pd.CategoricalDtype):
        return clean_text_column(
            column.cat.codes.to_numpy(), list(column.cat.categories), name, origin
        )
    if types.is_bool_dtype(column.dtype):
        pass
    elif types.is_integer_dtype(column.dtype):
        return place_integers(column[column.notna()].to_numpy(), column.notna().to_numpy())
    elif types.is_float_dtype(column.dtype):
        kind = {2: np.float16, 4: np.float32}.get(column.dtype.itemsize, np.float64)
        values = column.to_numpy(dtype=kind, na_value=np.nan)
        exact = values.astype(np.float64)
        if kind is not np.float64:  # keep 0.1 from becoming 0.10000000149
            exact = np.where(exact == np.rint(exact), exact, values.astype(str).astype(np.float64))
        return simplify_numbers(exact)
    elif types.is_datetime64_any_dtype(column.dtype):
        column = column.astype(str).where(column.notna(), None)
    values = column.astype(object).to_numpy()
    kind = types.infer_dtype(values, skipna=True)
    if kind == "integer":
        known = np.array([to_word(value) is not None for value in values], dtype=bool)
        return place_integers(values[known], known)
    if kind in ("floating", "mixed-integer-float"):
        texts = [to_word(value) for value in values]
        whole = [abs(int(value)) for value in values if isinstance(value, int | np.integer)]
        if max(whole, default=0) < MOST_WHOLE:
            return simplify_numbers(np.array([np.nan if t is None else float(t) for t in texts]))
        values = np.array(texts, dtype=object)
    elif kind != "string":
        # Convert before factorize, which would merge True and 1.
        values = np.array([to_word(value) for value in values], dtype=object)
    # To pandas a text ends at NUL, so that it would merge values.
    parts = [value.replace("\0", " ") if isinstance(value, str) else value for value in values]
    codes, words = pd.factorize(pd.Series(parts, dtype=object))
    return clean_text_column(codes, list(words), name, origin)


def place_integers(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Place integers where they are ``known``: as int64 if all are known and fit, else as text."""
    if not known.any():
        return np.full(len(known), np.nan)
    bounds = np.iinfo(np.int64)
    if known.all() and bounds.min <= values.min() and values.max() <= bounds.max:
        return values.astype(np.int64)
    result = np.full(len(known), np.nan, dtype=object)
    result[known] = [str(int(value)) for value in values]
    return result


def simplify_numbers(values: np.ndarray) -> np.ndarray:
    """Convert floats to integers if all of them are whole, else return them."""
    known = ~np.isnan(values)
    found = values[known]
    whole = np.isfinite(found).all() and (found == np.rint(found)).all()
    if len(found) and whole and (np.abs(found) < MOST_WHOLE).all():
        return place_integers(found, known)
    return values


def clean_text_column(codes: np.ndarray, words: list[Any], name: str, origin: str) -> np.ndarray:
    """Clean a column of text, and log the changes.

    Parameters
    ----------
    codes
        Index of each cell's value in ``words``, -1 if it is missing.
    words
        The unique values.
    name, origin
        The column and its file.
    """
    texts = [to_word(value) for value in words]
    clean = [None if text is None else clean_text(text) for text in texts]
    found = np.bincount(codes[codes >= 0], minlength=len(words))
    missing: dict[str, int] = {}
    for text, n in zip(clean, found, strict=True):
        if text in MISSING and n:
            missing[text] = missing.get(text, 0) + n
    if missing:
        shown = ", ".join(f"{text!r} ({n})" for text, n in missing.items())
        logger.info("%s: column %s: reading as missing: %s", origin, name, shown)
    changed = {t: n for t, c, n in zip(texts, clean, found, strict=True) if t != c and n}
    if kept := [text for text in changed if clean_text(text or "") not in MISSING]:
        logger.info(
            "%s: column %s: removed spaces, tabs or line breaks, or normalised Unicode, in %d "
            "values, such as %r",
            origin, name, sum(changed[text] for text in kept), kept[0],
        )  # fmt: skip
    # Reserved columns keep the spelling of the sample sheet, such as a sample called TRUE.
    spelt = [text if text is None or name in RESERVED else unify_spelling(text) for text in clean]
    if new := {t: s for t, s, n in zip(clean, spelt, found, strict=True) if t != s and n}:
        shown = ", ".join(f"{text!r} as {one!r}" for text, one in [*new.items()][:5])
        logger.info("%s: column %s: writing %s", origin, name, shown)
    values = [np.nan if text is None or text in MISSING else text for text in spelt]
    result = np.array([*values, np.nan], dtype=object)[codes]
    return result if any(isinstance(value, str) for value in result) else result.astype(np.float64)


def clean_text(text: str) -> str:
    """Strip spaces, replace line breaks and tabs by a space, and invalid Unicode by ``?``.

    Accented letters become one character (NFC); macOS writes two, which look the same.
    """
    text = BREAKS.sub(" ", text).strip().encode("utf-8", "replace").decode("utf-8")
    return unicodedata.normalize("NFC", text)


def unify_spelling(text: str) -> str:
    """Write TRUE as True and 3.0 as 3, so that values of different files are equal.

    This looks only at the value, because the column of a sample has only some of a study's values.
    """
    found = FLOAT_MARK.fullmatch(text)
    if not found:
        return TRUTH.get(text, text)
    return found[1] if found[1] != "-0" else "0"


def to_word(value: Any) -> str | None:
    """Convert a value to text, integers without ``.0``; None if it is missing."""
    if isinstance(value, str):
        return value
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float | complex | np.inexact) and np.isnan(value):
        return None
    if isinstance(value, np.datetime64 | np.timedelta64) and np.isnat(value):
        return None
    is_float = isinstance(value, float | np.floating)
    if is_float and abs(float(value)) < MOST_WHOLE and float(value).is_integer():
        return str(int(value))
    return str(value)


def to_text(column: pd.Series) -> pd.Series:
    """Convert a plain column to text, floats with all digits; missing values stay NaN."""
    if column.dtype == object:
        return column
    words = [to_word(value) for value in column]
    return pd.Series(words, index=column.index, dtype=object).where(column.notna(), np.nan)


def concatenate(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate tables of cells.

    Parameters
    ----------
    tables
        Of the samples of a corpus, or the libraries of a sample.

    Returns
    -------
    DataFrame
        With the columns of all tables, and missing values where a table lacks a column. Columns
        with text in one table become text; QC metrics stay numbers.
    """
    tables = [to_plain_types(table, "") for table in tables]
    index = pd.Index([name for table in tables for name in table.index], dtype=object)
    columns = {}
    for name in dict.fromkeys(name for table in tables for name in table):
        parts = [t[name] if name in t else pd.Series(np.nan, t.index) for t in tables]
        kinds = {part.dtype.kind for part in parts if part.notna().any()}
        large = any(
            part.dtype.kind == "i" and not part.between(-MOST_WHOLE, MOST_WHOLE).all()
            for part in parts
        )
        if "O" in kinds or (large and len({part.dtype for part in parts}) > 1):
            columns[name] = np.concatenate([to_text(part).astype(object) for part in parts])
        else:
            values = np.concatenate([part.to_numpy() for part in parts])
            as_is = values.dtype.kind != "f" or name in METRICS
            columns[name] = values if as_is else simplify_numbers(values)
    return pd.DataFrame(columns, index=index)
