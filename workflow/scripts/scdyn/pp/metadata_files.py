"""Reading tables of cells (metadata) as text, from R, Excel, Python and other programs."""

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
from scdyn.io.files import open_bytes
from scdyn.log import logger
from scdyn.pp.obs_columns import MISSING, clean_names, is_barcode_name

SEPARATORS = {"\t": "tabs", ";": "semicolons", ",": "commas", " ": "spaces"}
# Number of lines used to detect the separator.
LINES_SEEN = 200
# First bytes of workbooks, and names of files within those that are zip archives.
OLD_OFFICE, ZIP = b"\xd0\xcf\x11\xe0", b"PK\x03\x04"
OFFICE = (b"[Content_Types].xml", b"xl/", b"docProps/", b"mimetype")
# First bytes of other binary files: Parquet, HDF5, zip.
BINARY = (b"PAR1", b"\x89HDF", ZIP)
# Name given to a column of row names that has none.
ROW_NAMES = "row_names"
DECIMAL_COMMA = r"[+-]?\d+(?:,\d+)?(?:[eE][+-]?\d+)?"
REMEDY = "save it as comma- or tab-separated text with a header, in UTF-8"


def read_cell_table(path: str | Path) -> pd.DataFrame:
    """Read a table of cells, with all columns as text.

    Supported are columns separated by tabs, commas, semicolons or spaces, whatever the file's
    name; plain or compressed text in UTF-8, UTF-16 with byte-order mark (Excel's "Unicode text")
    or Windows-1252; any line ends; comments (``#``) before the header, and a header that begins
    with ``#``; quoted fields; and R's row names, with an empty name or none in the header.

    Returns
    -------
    DataFrame
        Text without surrounding spaces, "" for missing values, without duplicate rows. Row names
        without a name become the column ``row_names``. Numbers are not parsed, so that 007 stays
        007; but decimal commas become points if semicolons separate the columns (for ``x`` and
        ``y`` also if tabs do).

    Raises
    ------
    InputError
        If the file is not such a table.
    """
    text = read_text(path)
    skipped, body = split_off_comments(text)
    separator = detect_separator(body)
    if named := find_commented_header(skipped, body, separator):
        skipped, body = skipped[:-1], named + body
    enclose = detect_quoting(body, separator, path, len(skipped))
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
        logger.info("%s: ignoring %d duplicate rows", path, again.sum())
    table = table[~again].reset_index(drop=True)
    table = table.set_axis(header, axis=1)
    if header[0] == "":
        table = table.set_axis([ROW_NAMES, *header[1:]], axis=1)
    table = table.loc[:, [bool(name) or (table.iloc[:, i] != "").any()
                          for i, name in enumerate(table.columns)]]  # fmt: skip
    table = table.set_axis(clean_names(list(table.columns), str(path)), axis=1)
    for name in table:
        if separator == ";" or (separator == "\t" and name in ("x", "y")):
            table[name] = replace_decimal_commas(table[name], path)
    logger.info(
        "%s: %d rows; columns, separated by %s: %s",
        path, len(table), SEPARATORS[separator], ", ".join(table),
    )  # fmt: skip
    return table


def split_off_comments(text: str) -> tuple[list[str], str]:
    """Split off the comments, empty lines and Excel's ``sep=`` at the beginning of a text."""
    lines, skipped, first = io.StringIO(text, newline=None), [], ""
    for first in lines:
        if first.strip() and not first.startswith(("#", "sep=")):
            break
        skipped.append(first)
    else:
        first = ""
    return skipped, first + lines.read()


def find_commented_header(skipped: list[str], body: str, separator: str) -> str:
    """Find a header that begins with ``#``; "" if there is none.

    This is the last comment before the table, if it has as many fields as the first row, and
    either names a column of barcodes while the first row does not, or the first row has a barcode.
    """
    comment = skipped[-1].lstrip("# ") if skipped and skipped[-1].startswith("#") else ""
    names, first = (next(iter_rows(text, separator), (0, []))[1] for text in (comment, body))
    is_named = any(map(is_barcode_name, names)) and not any(map(is_barcode_name, first))
    is_row = any(re.search(NUCLEOTIDES, value) for value in first)
    return comment if len(names) == len(first) and (is_named or is_row) else ""


def read_text(path: str | Path) -> str:
    """Read a text file of any usual encoding and compression.

    Raises
    ------
    InputError
        If it does not exist, cannot be decompressed, or is not text.
    """
    with reading("METADATA", path, "not a readable table of cells", REMEDY):
        with open(path, "rb") as file:
            head = file.read(4096)
        if head.startswith(OLD_OFFICE) or (head.startswith(ZIP) and any(n in head for n in OFFICE)):
            raise InputError(
                "METADATA",
                f"{path}: Excel and other workbooks are not supported; save the sheet as CSV or "
                "tab-separated text, and name that file.",
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
        raise InputError("METADATA", f"{path}: is not a text file; {REMEDY}.")
    if encoding in ("cp1252", "latin-1"):
        logger.info("%s: is not UTF-8; reading it as Windows-1252 (Latin-1)", path)
    return text


def detect_separator(text: str) -> str:
    """Detect the column separator of a table from its first lines."""
    best = -1, ","
    for separator in SEPARATORS:
        rows = read_first_rows(text, separator)
        if not rows:
            break
        header, rest = rows[0], [len(row) for row in rows[1:]] or [len(rows[0])]
        same = len(set(rest)) == 1
        if same and rest[0] == len(header) > 1:
            rank = 4
        elif same and rest[0] == len(header) + 1:
            rank = 3 if len(header) > 1 else 1
        else:
            # Some rows lack their last fields, or have an unquoted separator in a field.
            rank = 2 if len(header) > 1 and max(rest) > 1 else 0
        if rank > best[0]:
            best = rank, separator
    return best[1]


def detect_quoting(text: str, separator: str, path: str | Path, n_skipped: int) -> bool:
    """Tell whether quotes enclose fields, or are part of them as with ``quote=FALSE`` in R.

    They are part of the fields if they would enclose line breaks, and all rows have the same
    number of fields without them.

    Parameters
    ----------
    text, separator, path, n_skipped
        See :func:`find_header`.

    Raises
    ------
    InputError
        If a quote encloses whole rows, although other quotes are needed.
    """
    if '"' not in text:
        return True
    line, broken, widths = 0, [], Counter[int]()
    try:
        for line, row in iter_rows(text, separator):
            widths[len(row)] += 1
            broken += [(line, value) for value in row if "\n" in value]
    except csv.Error:  # a field beyond the size limit of csv
        rest = text.split("\n")[line:]
        broken.append((line + len(rest), "\n".join(rest)))
    if not broken:
        return True
    with reading("METADATA", path, "not a readable table of cells", REMEDY):
        rows = iter_rows(text, separator, enclose=False)
        _, header = next(rows)
        plain = {len(row) if not any(map(is_quoted, row)) else 0 for _, row in rows}
    if (
        len(plain) == 1
        and plain <= {len(header), len(header) + 1}
        and not any(map(is_quoted, header))
    ):
        logger.info("%s: reading quotes as part of the fields", path)
        return False
    n_fields = widths.most_common(1)[0][0] if widths else 1
    for line, value in broken:
        start, *others = value.split("\n")
        if max(other.count(separator) for other in others) >= n_fields - 1:
            raise InputError(
                "METADATA",
                f"{path}: the quote in line {line - len(others) + n_skipped} ({start[:20]}) is not "
                f"closed before whole rows follow; remove the quote; {REMEDY}.",
            )
    return True


def is_quoted(value: str) -> bool:
    """Tell whether a field is enclosed in quotes."""
    return len(value) > 1 and value.startswith('"') and value.endswith('"')


def find_header(
    text: str, separator: str, enclose: bool, path: str | Path, n_skipped: int
) -> list[str]:
    """Read the header of a table, with a name for every field of its rows.

    If rows have one more field than the header, the first one may be R's row names, which have
    no name in the header. They must be unique and in every row, and the first name in the header
    must not be that of barcodes. Otherwise the extra field comes from an unquoted separator, which
    is an error.

    Parameters
    ----------
    text
        The table, from its header on.
    separator, enclose
        Column separator, and whether quotes enclose fields.
    path, n_skipped
        The file, and its number of lines before the header, for messages.

    Returns
    -------
    list of str
        "" for fields that are empty in every row, such as after a separator at the line's end.

    Raises
    ------
    InputError
        If there is no header, or a row has more fields than the header.
    """
    with reading("METADATA", path, "not a readable table of cells", REMEDY):
        rows = iter_rows(text, separator, enclose)
        _, first = next(rows, (0, []))
        header, width = [name.strip() for name in first], len(first)
        named = bool(header) and not is_barcode_name(header[0])
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
            "METADATA", f"{path}: the table is empty; write a table with a header: {REMEDY}."
        )
    if at and not named:
        raise InputError(
            "METADATA",
            f"{path}: line {at} has {longest} fields, but the header has {len(header)} names "
            f"({', '.join(header[:5])}); quote fields that contain {SEPARATORS[separator]}, and "
            f"name every column; {REMEDY}.",
        )
    if at:
        header = [ROW_NAMES, *header]
    return [*header, *[""] * (width - len(header))]


def iter_rows(text: str, separator: str, enclose: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the fields of each line that is not empty."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator,
                      skipinitialspace=separator != " ",
                      quoting=csv.QUOTE_MINIMAL if enclose else csv.QUOTE_NONE)  # fmt: skip
    for row in rows:
        if any(value.strip() for value in row):
            yield rows.line_num, row


def read_first_rows(text: str, separator: str) -> list[list[str]]:
    """Split the first lines of a table into fields."""
    found = []
    try:
        for _, row in islice(iter_rows(text, separator), LINES_SEEN):
            found.append(row)
    except csv.Error:  # a field beyond the size limit of csv
        pass
    return found


def replace_decimal_commas(column: pd.Series, path: str | Path) -> pd.Series:
    """Replace decimal commas by points if all values of a column are such numbers."""
    known = column[~column.isin(MISSING)]
    if not known.str.contains(",").any() or not known.str.fullmatch(DECIMAL_COMMA).all():
        return column
    logger.info("%s: column %s: reading decimal commas as points", path, column.name)
    return column.str.replace(",", ".")
