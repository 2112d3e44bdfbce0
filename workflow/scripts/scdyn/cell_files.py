"""Files with tables about cells, as R, Excel, Python and people write them, read as text."""

from __future__ import annotations

import codecs
import csv
import io
from itertools import dropwhile, islice
from pathlib import Path

import pandas as pd

from scdyn.bounds import open_bytes
from scdyn.cell_columns import MISSING, column_names
from scdyn.errors import InputError, reading
from scdyn.log import logger

SEPARATORS = {"\t": "tabs", ";": "semicolons", ",": "commas", " ": "spaces"}
# Lines by which is told what separates the columns.
LINES_SEEN = 200
# What office programs' files begin with, and names of files in theirs that are zip archives.
OLD_OFFICE, ZIP = b"\xd0\xcf\x11\xe0", b"PK\x03\x04"
OFFICE = (b"[Content_Types].xml", b"xl/", b"docProps/", b"mimetype")
# What other binary files begin with: Parquet, HDF5, zip.
BINARY = (b"PAR1", b"\x89HDF", ZIP)
# Names of row names that have no name of their own.
ROW_NAMES = "row_names"
DECIMAL_COMMA = r"[+-]?\d+(?:,\d+)?(?:[eE][+-]?\d+)?"
REMEDY = "save it as comma- or tab-separated text with a header, in UTF-8"


def read_cell_table(path: str | Path) -> pd.DataFrame:
    """Read a table about cells, every column as text.

    Read are tabs, commas, semicolons or spaces between columns, whatever the file's name; plain
    or compressed text in UTF-8, UTF-16 with its mark (Excel's "Unicode text") or Windows-1252;
    line ends of any system; lines that begin with ``#`` before the header; quoted fields; row
    names, with an empty name or none in the header, as R writes them.

    Returns
    -------
    DataFrame
        Text, stripped of surrounding blanks, "" where there is none. Row names without a name are
        in the column ``row_names``. No number is read as such: 007 stays 007. Only these are
        changed: 3.0 in a column of whole numbers some of which are missing (as pandas writes it)
        is 3, and with semicolons 1,5 in a column of numbers is 1.5.

    Raises
    ------
    InputError
        If it is no such table.
    """
    text = read_text(path)
    # Comments, and the line by which Excel is told the separator.
    lines = dropwhile(
        lambda line: not line.strip() or line.startswith(("#", "sep=")),
        io.StringIO(text, newline=None),
    )
    body = "".join(lines)
    separator, header, n_fields = sniff(body)
    if not header:
        raise InputError(f"{path}: is empty; expected is a table with a header; {REMEDY}.")
    if len(header) < n_fields - 1:
        raise InputError(
            f"{path}: its header has {len(header)} names ({', '.join(header[:5])}), its rows have "
            f"{n_fields} fields; give every column a name; {REMEDY}."
        )
    with reading(path, "not a readable table of cells", REMEDY):
        table = pd.read_csv(
            io.StringIO(body), sep=separator, header=None, dtype=str, na_filter=False,
            names=list(range(max(n_fields, len(header)))), skipinitialspace=separator != " ",
        )  # fmt: skip
    # The first row is the header.
    table = table.iloc[1:].fillna("").apply(lambda column: column.str.strip())
    table = table[(table != "").any(axis=1)].reset_index(drop=True)
    if len(header) < table.shape[1]:
        # A separator at the end of every line, or R's row names.
        ends = (table.iloc[:, -1] == "").all()
        header = [*header, ""] if ends else [ROW_NAMES, *header]
    table = table.set_axis(header, axis=1)
    if header[0] == "":
        table = table.set_axis([ROW_NAMES, *header[1:]], axis=1)
    table = table.loc[:, [bool(name) or (table.iloc[:, i] != "").any()
                          for i, name in enumerate(table.columns)]]  # fmt: skip
    table = table.set_axis(column_names(list(table.columns), str(path)), axis=1)
    for name in table:
        table[name] = without_float_mark(table[name], path)
        if separator == ";" or (separator == "\t" and name in ("x", "y")):
            table[name] = with_decimal_point(table[name], path)
    logger.info(
        "%s: %d rows; columns, separated by %s: %s",
        path, len(table), SEPARATORS[separator], ", ".join(table),
    )  # fmt: skip
    return table


def read_text(path: str | Path) -> str:
    """Read a text file of any usual encoding and compression.

    Raises
    ------
    InputError
        If it is not there, cannot be unpacked, or is no text.
    """
    with reading(path, "not a readable table of cells", REMEDY):
        with open(path, "rb") as file:
            head = file.read(4096)
        if head.startswith(OLD_OFFICE) or (head.startswith(ZIP) and any(n in head for n in OFFICE)):
            raise InputError(
                f"{path}: is a workbook of Excel or another office program; save the sheet as "
                "CSV or tab-separated text, and name that file."
            )
        with open_bytes(path) as file:
            content = file.read()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ["utf-16"]
    else:
        encodings = ["utf-8-sig", "cp1252", "latin-1"]
    text = None
    for encoding in encodings:
        try:
            text = content.decode(encoding)
            break
        except UnicodeDecodeError:
            continue
    if text is None or "\0" in text or content.startswith(BINARY):
        raise InputError(f"{path}: is no text file; {REMEDY}.")
    if encoding in ("cp1252", "latin-1"):
        logger.info("%s: is not UTF-8; read as Windows-1252 (Latin-1)", path)
    return text


def sniff(text: str) -> tuple[str, list[str], int]:
    """Tell what separates the columns of a table.

    Returns
    -------
    separator : str
    header : list of str
        Names in the first line; empty if there is no line.
    n_fields : int
        Fields of the first row, or of the header where there is no row.
    """
    best: tuple[int, str, list[str], int] = (-1, ",", [], 0)
    for separator in SEPARATORS:
        rows = fields(text, separator)
        if not rows:
            break
        header, rest = rows[0], [len(row) for row in rows[1:]] or [len(rows[0])]
        same = len(set(rest)) == 1
        if same and rest[0] == len(header) > 1:
            rank = 4
        elif same and rest[0] == len(header) + 1:
            rank = 3 if len(header) > 1 else 1
        else:
            # Rows that lack their last fields, or a field that should have been quoted.
            rank = 2 if len(header) > 1 and max(rest) > 1 else 0
        if rank > best[0]:
            best = rank, separator, [name.strip() for name in header], rest[0]
    return best[1:]


def fields(text: str, separator: str) -> list[list[str]]:
    """Part the first lines of a table; blank lines are left out."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    found = []
    try:
        for row in islice(rows, LINES_SEEN):
            if any(row):
                found.append(row)
    except csv.Error:  # a field beyond measure
        pass
    return found


def without_float_mark(column: pd.Series, path: str | Path) -> pd.Series:
    """Write 3.0 as 3 where whole numbers were written so because some are missing."""
    known = ~column.isin(MISSING)
    if known.all() or not known.any() or not column[known].str.fullmatch(r"-?\d+\.0").all():
        return column
    logger.info("%s: column %s: whole numbers, read as 3 where it has 3.0", path, column.name)
    return column.str.removesuffix(".0")


def with_decimal_point(column: pd.Series, path: str | Path) -> pd.Series:
    """Write 1,5 as 1.5 in a column of such numbers."""
    known = column[~column.isin(MISSING)]
    if not known.str.contains(",").any() or not known.str.fullmatch(DECIMAL_COMMA).all():
        return column
    logger.info("%s: column %s: decimal commas are read as points", path, column.name)
    return column.str.replace(",", ".")
