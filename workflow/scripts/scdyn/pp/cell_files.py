"""Files with tables about cells, as R, Excel, Python and people write them, read as text."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pandas as pd

from scdyn.errors import InputError, reading
from scdyn.io.barcodes import NUCLEOTIDES
from scdyn.io.bounds import open_bytes
from scdyn.log import logger
from scdyn.pp.cell_columns import MISSING, column_names, names_barcodes

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
    line ends of any system; lines that begin with ``#`` before the header, and a header that does;
    quoted fields; row names, with an empty name or none in the header, as R writes them.

    Returns
    -------
    DataFrame
        Text, stripped of surrounding blanks, "" where there is none; each row once. Row names
        without a name are in the column ``row_names``. No number is read as such: 007 stays 007.
        Only with semicolons, 1,5 in a column of numbers is 1.5.

    Raises
    ------
    InputError
        If it is no such table.
    """
    text = read_text(path)
    skipped, body = after_comments(text)
    separator = sniff(body)
    if named := commented_header(skipped, body, separator):
        skipped, body = skipped[:-1], named + body
    enclose = do_quotes_enclose(body, separator, path, len(skipped))
    header = find_header(body, separator, enclose, path, len(skipped))
    with reading("METADATA", path, "not a readable table of cells", REMEDY):
        table = pd.read_csv(
            io.StringIO(body), sep=separator, header=None, dtype=str, na_filter=False,
            names=list(range(len(header))), skipinitialspace=separator != " ",
            quoting=csv.QUOTE_MINIMAL if enclose else csv.QUOTE_NONE,
        )  # fmt: skip
    # The first row is the header.
    table = table.iloc[1:].fillna("").apply(lambda column: column.str.strip())
    table = table[(table != "").any(axis=1)]
    again = table.duplicated()
    if again.any():
        logger.info("%s: %d duplicate rows are read once", path, again.sum())
    table = table[~again].reset_index(drop=True)
    table = table.set_axis(header, axis=1)
    if header[0] == "":
        table = table.set_axis([ROW_NAMES, *header[1:]], axis=1)
    table = table.loc[:, [bool(name) or (table.iloc[:, i] != "").any()
                          for i, name in enumerate(table.columns)]]  # fmt: skip
    table = table.set_axis(column_names(list(table.columns), str(path)), axis=1)
    for name in table:
        if separator == ";" or (separator == "\t" and name in ("x", "y")):
            table[name] = with_decimal_point(table[name], path)
    logger.info(
        "%s: %d rows; columns, separated by %s: %s",
        path, len(table), SEPARATORS[separator], ", ".join(table),
    )  # fmt: skip
    return table


def after_comments(text: str) -> tuple[list[str], str]:
    """Part a text before its first line that is no comment, nor Excel's hint of the separator."""
    lines, skipped, first = io.StringIO(text, newline=None), [], ""
    for first in lines:
        if first.strip() and not first.startswith(("#", "sep=")):
            break
        skipped.append(first)
    else:
        first = ""
    return skipped, first + lines.read()


def commented_header(skipped: list[str], body: str, separator: str) -> str:
    """Find a header that begins with ``#``, as some programs write it; "" if there is none.

    It is the last line before the table, with as many fields as its first row. To be no other
    comment it names the barcodes where that row does not, or that row has a barcode itself.
    """
    comment = skipped[-1].lstrip("# ") if skipped and skipped[-1].startswith("#") else ""
    names, first = (next(parted(text, separator), (0, []))[1] for text in (comment, body))
    is_named = any(map(names_barcodes, names)) and not any(map(names_barcodes, first))
    is_row = any(re.search(NUCLEOTIDES, value) for value in first)
    return comment if len(names) == len(first) and (is_named or is_row) else ""


def read_text(path: str | Path) -> str:
    """Read a text file of any usual encoding and compression.

    Raises
    ------
    InputError
        If it is not there, cannot be unpacked, or is no text.
    """
    with reading("METADATA", path, "not a readable table of cells", REMEDY):
        with open(path, "rb") as file:
            head = file.read(4096)
        if head.startswith(OLD_OFFICE) or (head.startswith(ZIP) and any(n in head for n in OFFICE)):
            raise InputError(
                "METADATA",
                f"{path}: is a workbook of Excel or another office program; save the sheet as "
                "CSV or tab-separated text, and name that file.",
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
        raise InputError("METADATA", f"{path}: is no text file; {REMEDY}.")
    if encoding in ("cp1252", "latin-1"):
        logger.info("%s: is not UTF-8; read as Windows-1252 (Latin-1)", path)
    return text


def sniff(text: str) -> str:
    """Tell what separates the columns of a table, from its first lines."""
    best = -1, ","
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
            best = rank, separator
    return best[1]


def do_quotes_enclose(text: str, separator: str, path: str | Path, n_skipped: int) -> bool:
    """Tell whether quotes enclose texts; with ``quote=FALSE`` of R they are part of them.

    They are part of them if they would enclose line breaks, and without them every row has as many
    fields.

    Parameters
    ----------
    text, separator, path, n_skipped
        See :func:`find_header`.

    Raises
    ------
    InputError
        If whole rows would be enclosed, and yet quotes are needed.
    """
    if '"' not in text:
        return True
    line, broken, widths = 0, [], Counter[int]()
    try:
        for line, row in parted(text, separator):
            widths[len(row)] += 1
            broken += [(line, value) for value in row if "\n" in value]
    except csv.Error:  # a field beyond measure
        rest = text.split("\n")[line:]
        broken.append((line + len(rest), "\n".join(rest)))
    if not broken:
        return True
    with reading("METADATA", path, "not a readable table of cells", REMEDY):
        rows = parted(text, separator, enclose=False)
        _, header = next(rows)
        plain = {len(row) if not any(map(is_quoted, row)) else 0 for _, row in rows}
    if (
        len(plain) == 1
        and plain <= {len(header), len(header) + 1}
        and not any(map(is_quoted, header))
    ):
        logger.info("%s: quotes are read as part of the texts", path)
        return False
    n_fields = widths.most_common(1)[0][0] if widths else 1
    for line, value in broken:
        start, *others = value.split("\n")
        if max(other.count(separator) for other in others) >= n_fields - 1:
            raise InputError(
                "METADATA",
                f"{path}: a quote in line {line - len(others) + n_skipped} ({start[:20]}) opens a "
                f"text, and whole rows follow before it is closed; remove the quote; {REMEDY}.",
            )
    return True


def is_quoted(value: str) -> bool:
    """Tell whether a field is enclosed in quotes."""
    return len(value) > 1 and value.startswith('"') and value.endswith('"')


def find_header(
    text: str, separator: str, enclose: bool, path: str | Path, n_skipped: int
) -> list[str]:
    """Find a name for every field of a table's rows.

    R writes row names, for which its header has no name. They are distinct, every row has one, and
    such a header names no barcodes in first place: any other field more than the header has is
    taken for a text with a separator in it, and refused.

    Parameters
    ----------
    text
        The table, from its header.
    separator, enclose
        What separates its columns, and whether quotes enclose texts.
    path
        The file, and
    n_skipped
        the number of its lines before the header, for the message.

    Returns
    -------
    list of str
        "" for fields that are empty in every row, such as after a separator at the line's end.

    Raises
    ------
    InputError
        If there is no header, or a row has more fields than it.
    """
    with reading("METADATA", path, "not a readable table of cells", REMEDY):
        rows = parted(text, separator, enclose)
        _, first = next(rows, (0, []))
        header, width = [name.strip() for name in first], len(first)
        named = bool(header) and not names_barcodes(header[0])
        names: set[str] = set()
        longest, at = len(header), 0
        for line, row in rows:
            width = max(width, len(row))
            if len(row) > longest and any(value.strip() for value in row[len(header) :]):
                longest, at = len(row), line + n_skipped
            if named:
                named = len(row) == len(header) + 1 and row[0] not in names
                names.add(row[0])
    if not header:
        raise InputError(
            "METADATA", f"{path}: is empty; expected is a table with a header; {REMEDY}."
        )
    if at and not named:
        raise InputError(
            "METADATA",
            f"{path}: line {at} has {longest} fields, its header has {len(header)} names "
            f"({', '.join(header[:5])}); quote every text that has {SEPARATORS[separator]} in it, "
            f"and give every column a name; {REMEDY}.",
        )
    if at:
        header = [ROW_NAMES, *header]
    return [*header, *[""] * (width - len(header))]


def parted(text: str, separator: str, enclose: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of a line and its fields; lines without any are left out."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator,
                      skipinitialspace=separator != " ",
                      quoting=csv.QUOTE_MINIMAL if enclose else csv.QUOTE_NONE)  # fmt: skip
    for row in rows:
        if any(value.strip() for value in row):
            yield rows.line_num, row


def fields(text: str, separator: str) -> list[list[str]]:
    """Part the first lines of a table."""
    found = []
    try:
        for _, row in islice(parted(text, separator), LINES_SEEN):
            found.append(row)
    except csv.Error:  # a field beyond measure
        pass
    return found


def with_decimal_point(column: pd.Series, path: str | Path) -> pd.Series:
    """Write 1,5 as 1.5 in a column of such numbers."""
    known = column[~column.isin(MISSING)]
    if not known.str.contains(",").any() or not known.str.fullmatch(DECIMAL_COMMA).all():
        return column
    logger.info("%s: column %s: decimal commas are read as points", path, column.name)
    return column.str.replace(",", ".")
