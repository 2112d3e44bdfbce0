"""Metadata: match the rows of a table to a sample's cells by barcode, and join them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from scdyn.errors import InputError
from scdyn.io.artefacts import artefact, read_cells, read_table
from scdyn.io.barcodes import FORMS, NUCLEOTIDES, SEQUENCE, Form, sample_barcodes
from scdyn.io.files import write_table
from scdyn.log import logger
from scdyn.pp.cell_columns import (
    as_text,
    join,
    names_barcodes,
    new_names,
    normalise,
    plain,
    rename_own,
)
from scdyn.pp.cell_files import read_cell_table
from scdyn.pp.findings import METADATA, Finding

__all__ = [
    "annotate", "examine_metadata", "join", "join_metadata", "match", "normalise", "plain",
    "read_cell_table", "read_cells_table", "sample_barcodes", "write_cells",
]  # fmt: skip

# Names of columns that identify the sample of a row, in Seurat, scanpy and other tables.
TELLING = (
    "sample", "sample_id", "sampleid", "sample_name", "samplename", "orig.ident", "orig_ident",
    "library", "library_id", "dataset",
)  # fmt: skip
WITHOUT_NAME = "without the sample's name"
# Pattern of the part that identifies the cell; the rest, prefix and suffix, identifies samples.
BY_LIBRARY = "by nucleotides and library"
CORE = {BY_LIBRARY: NUCLEOTIDES, "by nucleotides": SEQUENCE}
NUMBER = r"-?\d+"
# Number of rows used to decide whether a column may have barcodes.
ROWS_SEEN = 200
# A prefix or suffix that identifies samples has at least this many rows on average.
ROWS_PER_GROUP = 4
# If a sample matches this share of its table, it is not compared with other samples' tables.
SURE = 0.9
# A matrix with this many barcodes per cell that passes quality control has all droplets.
DROPLETS_PER_CELL = 10
# A match with a higher p-value may be due to chance.
BY_CHANCE = 1e-3


@dataclass(frozen=True)
class Match:
    """The rows of a table that match a sample's cells.

    Attributes
    ----------
    column
        The column of the barcodes.
    how
        Description of the form in which the barcodes match.
    rows
        (cells,) row number of each cell, -1 if it has none.
    n_rows
        Number of rows of this sample, including those of cells that the matrix lacks.
    is_told
        Whether a column, or a prefix or suffix of the barcodes, names the sample.
    n_own
        Number of rows that a column assigns to the sample; all rows if there is no such column.
    twice
        A barcode with several rows, which makes the match invalid; "" if there is none.
    shift
        1 if the table numbers the cells one higher than the matrix, -1 if one lower, else 0.
    rival
        Another column with as many matching barcodes in other rows; "" if there is none.
    """

    column: str
    how: str
    rows: np.ndarray
    n_rows: int
    is_told: bool = False
    twice: str = ""
    n_own: int = 0
    shift: int = 0
    rival: str = ""

    @property
    def n_matched(self) -> int:
        """Number of cells with a row."""
        return int((self.rows >= 0).sum())

    @property
    def share(self) -> float:
        """Number of cells with a row, relative to the cells or the sample's rows if fewer."""
        return self.n_matched / max(1, min(len(self.rows), self.n_rows))


@dataclass(frozen=True)
class CellTable:
    """A table of cells, with its barcodes in each form cached for all samples.

    Attributes
    ----------
    path
        The file.
    values
        From :func:`scdyn.pp.cell_files.read_cell_table`, in plain types
        (:func:`scdyn.pp.cell_columns.plain`).
    """

    path: str
    values: pd.DataFrame
    _found: dict[tuple[str, str], pd.Series] = field(default_factory=dict, repr=False)

    @cached_property
    def ids(self) -> dict[str, pd.Series]:
        """Known values of each text column, indexed by row number."""
        values = self.values.reset_index(drop=True)
        return {name: values[name].dropna() for name in values if values[name].dtype == object}

    @cached_property
    def likely(self) -> list[str]:
        """Columns that probably have barcodes: many unique values, and nucleotides if possible."""
        seen = {name: ids.iloc[:ROWS_SEEN] for name, ids in self.ids.items()}
        likely = [n for n, ids in seen.items() if ids.nunique() * ROWS_PER_GROUP >= len(ids) > 0]
        core = CORE["by nucleotides"]
        return [n for n in likely if seen[n].str.contains(core).mean() > 0.5] or likely

    def formed(self, column: str, how: str, form: Form) -> pd.Series:
        """Convert a column's barcodes to a form that does not depend on the sample."""
        if (column, how) not in self._found:
            self._found[column, how] = form(self.ids[column])
        return self._found[column, how]


def load(path: str | Path) -> CellTable:
    """Read a table of cells; the last one is cached, since samples can share it."""
    state = Path(path).stat() if Path(path).exists() else None
    return _load(str(path), state and (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=1)
def _load(path: str, state: tuple[int, int] | None) -> CellTable:
    if state is None:
        raise InputError("PATH", f"{path}: no such file; correct metadata in the sample sheet.")
    return CellTable(path, plain(read_cell_table(path), path))


def match(barcodes: pd.Index, table: CellTable, sample: str, min_overlap: float) -> Match:
    """Match the rows of a table to a sample's cells, whatever form its barcodes have.

    - Any column may have the barcodes; but if the cells are numbered, only row names or a column
      with a name in :data:`scdyn.pp.cell_columns.BARCODES`.
    - If a column of :data:`TELLING` has the sample's name, only its rows are used; of several
      such columns, the one with the fewest rows. A column is ignored if it matches less than half
      of the cells that the barcodes alone match unambiguously.
    - If barcodes have the sample's name as prefix or suffix, only those rows are used.
    - A form that creates duplicate barcodes is not used, unless a prefix, a suffix or another
      column identifies the rows of the sample.

    Parameters
    ----------
    barcodes
        Unique barcodes of the sample's matrix.
    table
        Of this sample, and possibly others.
    sample
        Name of the sample.
    min_overlap
        Minimum share of a valid match.

    Returns
    -------
    Match
        The best valid match, else the one that comes closest.
    """
    enough = 0.0

    def rank(one: Match) -> tuple[bool, bool, int, int, bool]:
        is_sure = one.is_told and not one.twice and one.share >= min_overlap
        is_sure = is_sure and one.n_matched >= enough
        n_own = one.n_own if is_sure else 0
        return is_sure, not one.twice, -n_own, one.n_matched, names_barcodes(one.column)

    found: list[Match] = []
    told = tellings(table, sample)
    everything = np.ones(len(table.values), dtype=bool)
    for number, (is_own, said) in enumerate(told or [(everything, "")]):
        for one in matches(barcodes, table, sample, min_overlap, is_own, said):
            found.append(one)
            is_all = one.n_matched == len(barcodes) and names_barcodes(one.column)
            if number == 0 and is_all and rank(one)[0]:
                return one
    if told and any(rank(one)[0] and 2 * one.n_matched < len(barcodes) for one in found):
        plain = [
            one
            for one in matches(barcodes, table, sample, min_overlap, everything, "")
            if not (one.is_told or one.twice) and one.n_matched >= min_overlap * len(barcodes)
        ]
        enough = max((one.n_matched for one in plain), default=0) / 2
        found += [replace(one, how=f"{one.how}, not where{told[0][1][1:]}") for one in plain]
    if not found:
        column = next(iter(table.values), "")
        return Match(column, "", np.full(len(barcodes), -1), len(table.values))
    best = max(found, key=rank)
    if best.share < min_overlap:
        # Duplicate barcodes are a more helpful error than too few matches in another form.
        return max([best, *(one for one in found if one.twice)], key=lambda one: one.share)
    rivals = (one.column for one in found if rank(one) == rank(best) and differ(one, best))
    return replace(best, rival=next(rivals, ""))


def differ(one: Match, other: Match) -> bool:
    """Tell whether two matches use different columns and different rows."""
    return one.column != other.column and not np.array_equal(one.rows, other.rows)


def tellings(table: CellTable, sample: str) -> list[tuple[np.ndarray, str]]:
    """Find the rows of a sample by each column of :data:`TELLING` that has its name.

    If no column has the exact name, one that differs only in case and punctuation is used.

    Returns
    -------
    list of (array, str)
        A mask of the rows, and its description; masks with the fewest rows first.
    """
    columns = {n: ids for n, ids in table.ids.items() if n.casefold() in TELLING}
    names = {n: sample for n, ids in columns.items() if (ids == sample).any()}
    if not names:
        for name, ids in columns.items():
            alike = [value for value in ids.unique() if tidy(value) == tidy(sample)]
            if len(alike) == 1:
                names[name] = alike[0]
    found = [
        ((table.values[column] == name).to_numpy(), f", {column} is {name}")
        for column, name in names.items()
    ]
    return sorted(found, key=lambda telling: telling[0].sum())


def matches(
    barcodes: pd.Index,
    table: CellTable,
    sample: str,
    min_overlap: float,
    is_own: np.ndarray,
    told: str,
) -> Iterator[Match]:
    """Yield the matches of each column in each form, forms with the fewest changes first.

    Only rows of ``is_own`` are used; ``told`` describes the column that identifies them, "" if
    there is none.
    """
    cells = pd.Series(barcodes.astype(str), dtype=object)
    n_own = int(is_own.sum())
    # Numbered cells would match any column of numbers, such as a rank.
    are_numbers = len(cells) > 0 and cells.str.fullmatch(NUMBER).all()
    for how, (of_cells, of_rows) in forms(cells, sample).items():
        names = pd.Index(of_cells(cells))
        if names.has_duplicates:
            continue
        for column in table.ids if how == next(iter(FORMS)) else table.likely:
            if are_numbers and not names_barcodes(column):
                continue
            ids = table.ids[column]
            keys = of_rows(ids) if how == WITHOUT_NAME else table.formed(column, how, of_rows)
            for kept, group, is_named in groups(how, column, table, keys, names, sample, is_own,
                                                min_overlap):  # fmt: skip
                said = f"column {column}, {how}{group}{told}"
                one = pick(column, said, names, kept, bool(told) or is_named)
                yield replace(one, n_own=n_own, shift=shift(names, kept) if are_numbers else 0)
                if one.twice and not told:
                    for other in told_apart(table.values, one, names, kept, sample):
                        yield replace(other, n_own=n_own)

    names = pd.Index(FORMS[BY_LIBRARY](cells))
    if names.has_duplicates or are_numbers or len(libraries(names)) == 1:
        return
    for column in table.likely:
        keys = by_shared_cells(table, column, names, is_own, min_overlap)
        if len(keys):
            said = f"column {column}, by nucleotides and the library whose cells are shared{told}"
            yield replace(pick(column, said, names, keys, bool(told)), n_own=n_own)


def libraries(names: pd.Index) -> dict[str, pd.Index]:
    """Group cells named by nucleotides and library: nucleotides by library number."""
    parts = names.to_series().str.extract(rf"^{NUCLEOTIDES}$").dropna()
    return {number: pd.Index(part[0]) for number, part in parts.groupby(1, sort=False)}


def by_shared_cells(
    table: CellTable, column: str, names: pd.Index, is_own: np.ndarray, min_overlap: float
) -> pd.Series:
    """Assign library numbers to rows: each prefix or suffix gets the library with the same cells.

    Parameters
    ----------
    table, column
        The table and its column of barcodes.
    names
        Of the sample's cells, by nucleotides and library.
    is_own, min_overlap
        See :func:`groups`.

    Returns
    -------
    Series
        Nucleotides and library of the rows whose library is unambiguous.
    """
    how = "by nucleotides"
    keys = table.formed(column, how, FORMS[how])
    keys = keys[is_own[keys.index]]
    rest = rest_of(table, column, how)[keys.index].cat.remove_unused_categories()
    if len(rest.cat.categories) > len(keys) / ROWS_PER_GROUP:
        return keys[:0]
    own = libraries(names)
    shared = pd.DataFrame(
        {n: keys.isin(cells).groupby(rest, observed=True).sum() for n, cells in own.items()}
    )
    number, most = shared.idxmax(axis=1), shared.max(axis=1)
    others = shared.where(shared.columns.to_numpy() != number.to_numpy()[:, None]).max(axis=1)
    n_rows = rest.value_counts().reindex(shared.index)
    enough = min_overlap * np.minimum(n_rows, number.map(lambda n: len(own[n])))
    is_clear = (most >= enough.clip(lower=ROWS_PER_GROUP)) & (most > 2 * others)
    keys, rest = keys[rest.isin(number.index[is_clear])], rest.astype(object)
    return keys + "-" + rest[keys.index].map(number)


def forms(cells: pd.Series, sample: str) -> dict[str, tuple[Form, Form]]:
    """List the forms in which barcodes of the matrix and of a table can match.

    These are :data:`scdyn.io.barcodes.FORMS` and barcodes without the sample's name. If there are
    several libraries, also nucleotides with the number that another tool gave to the library: after
    the barcode (``_1`` in Seurat, ``-0`` in scanpy), or in a prefix. A wrong numbering matches
    too few cells and is rejected.
    """
    found: dict[str, tuple[Form, Form]] = {how: (form, form) for how, form in FORMS.items()}
    name, marks = re.escape(sample), r"[-_.#:| ]+"
    at_ends = rf"^{name}{marks}|{marks}{name}$"

    def without_name(ids: pd.Series) -> pd.Series:
        return ids.str.replace(at_ends, "", n=1, regex=True)

    found[WITHOUT_NAME] = without_name, without_name
    by_library = FORMS[BY_LIBRARY]
    if by_library(cells).str.extract(r"-(\d+)$")[0].nunique() > 1:
        behind, before = (
            rf"(?P<core>{SEQUENCE})(?:.*\D)?(?P<n>\d+)$",
            rf"^(?:.*\D)?(?P<n>\d+)\D*?(?P<core>{SEQUENCE})",
        )
        for how, pattern, first in [
            ("by nucleotides and the number behind them", behind, 1),
            ("by nucleotides and the number behind them, from 0", behind, 0),
            ("by nucleotides and the number before them", before, 1),
        ]:
            found[how] = by_library, partial(with_number, pattern=pattern, first=first)
    return found


def with_number(ids: pd.Series, pattern: str, first: int) -> pd.Series:
    """Reduce barcodes to nucleotides and the number in ``pattern``, counted from 1."""
    parts = ids.str.extract(pattern)
    numbers = pd.to_numeric(parts["n"]).add(1 - first).astype("Int64").astype("string")
    return (parts["core"] + "-" + numbers).astype(object).fillna(ids)


def groups(
    how: str,
    column: str,
    table: CellTable,
    keys: pd.Series,
    names: pd.Index,
    sample: str,
    is_own: np.ndarray,
    min_overlap: float,
) -> Iterator[tuple[pd.Series, str, bool]]:
    """Select the rows of a sample by the prefix and suffix of their barcodes.

    In a table of several samples, each has its own prefix or suffix. The sample's is the one with
    its name, else those with enough matching barcodes.

    Parameters
    ----------
    how, column, table
        The form, and the column of the table's barcodes.
    keys
        Barcodes of the table in the form.
    names
        Barcodes of the sample in the form.
    sample
        Name of the sample.
    is_own
        (rows of the table,) whether a row may belong to the sample.
    min_overlap
        See :func:`match`.

    Yields
    ------
    keys : Series
        Barcodes of the selected rows in the form.
    how : str
        Description of the selection; empty for all rows.
    is_named : bool
        Whether the prefix or suffix is the sample's name, and not just a number.
    """
    own = is_own[keys.index]
    keys, ids = keys[own], table.ids[column][own]
    is_name = not sample.isdigit()
    if how == WITHOUT_NAME:
        named = (keys.str.len() < ids.str.len()).to_numpy()
        if named.any():
            yield keys[named], "", is_name
        return
    if how not in CORE:
        yield keys, "", False
        return

    rest = rest_of(table, column, how)[own]
    rest = rest.cat.remove_unused_categories()
    of_sample = [g for g in rest.cat.categories if tidy(sample) in map(tidy, g.split("|"))]
    if of_sample:
        yield keys[rest.isin(of_sample)], f" with {of_sample[0]}", is_name
    found = pd.Series(keys.isin(names), rest.index).groupby(rest, observed=True)
    counts = found.agg(["size", "sum"])
    good = counts.index[counts["sum"] >= min_overlap * counts["size"].clip(upper=len(names))]
    if 0 < len(good) < len(counts) <= len(ids) / ROWS_PER_GROUP:
        yield keys[rest.isin(good)], f" with {good[0]}", False
    else:
        yield keys, "", False


def rest_of(table: CellTable, column: str, how: str) -> pd.Series:
    """Return prefix and suffix of a column's barcodes, with | in place of the nucleotides."""

    def without_core(ids: pd.Series) -> pd.Series:
        return ids.str.replace(CORE[how], "|", n=1, regex=True).astype("category")

    return table.formed(column, f"{how}, the rest", without_core)


def tidy(name: str) -> str:
    """Reduce a sample's name to lower case, with dots as in names of R."""
    return re.sub(r"[^0-9a-z]+", ".", name.casefold()).strip(".") or " "


def pick(column: str, how: str, names: pd.Index, keys: pd.Series, is_told: bool) -> Match:
    """Assign a row to each cell by its key; the index of ``keys`` has the row numbers."""
    places = names.get_indexer(keys)
    is_found = places >= 0
    rows = np.full(len(names), -1)
    rows[places[is_found]] = keys.index[is_found]
    found = keys[is_found]
    twice = found[found.duplicated()]
    return Match(column, how, rows, len(keys), is_told, twice.iloc[0] if len(twice) else "")


def shift(names: pd.Index, keys: pd.Series) -> int:
    """Detect numbers of cells that are one higher (1) or lower (-1) in a table, else 0."""
    own = [int(name) for name in names]
    others = [int(key) for key in keys[keys.str.fullmatch(NUMBER)]] or own
    by = min(others) - min(own)
    return by if abs(by) == 1 and max(others) - max(own) == by else 0


def told_apart(
    table: pd.DataFrame, one: Match, names: pd.Index, keys: pd.Series, sample: str
) -> Iterator[Match]:
    """Yield matches in which another column, of any name, identifies the sample's rows.

    The column must resolve all duplicate barcodes; a cluster that happens to have the sample's
    name would not.
    """
    for column in table:
        values = pd.Series(table[column].to_numpy()[keys.index], keys.index)
        is_own = values == sample
        if column == one.column or not is_own.any():
            continue
        if not pd.DataFrame({"key": keys, "value": values}).duplicated().any():
            yield pick(one.column, f"{one.how}, {column} is {sample}", names, keys[is_own], True)


def find_rows(barcodes: pd.Index, table: CellTable, sample: str, min_overlap: float) -> Match:
    """Match the rows of a table to a sample's cells; see :func:`match`.

    Raises
    ------
    InputError
        If fewer than ``min_overlap`` of the barcodes match, or there are duplicate barcodes.
    """
    require_distinct(barcodes, sample)
    own = match(barcodes, table, sample, min_overlap)
    return require_found(own, barcodes, table, sample, min_overlap)


def require_distinct(barcodes: pd.Index, sample: str) -> None:
    """Refuse a sample with duplicate barcodes.

    Raises
    ------
    InputError
        Naming the first duplicate.
    """
    if barcodes.has_duplicates:
        raise InputError(
            "BARCODES",
            f"sample {sample}: duplicate barcode {barcodes[barcodes.duplicated()][0]}; barcodes "
            "must be unique to join the metadata.",
        )


def require_found(
    one: Match, barcodes: pd.Index, table: CellTable, sample: str, min_overlap: float
) -> Match:
    """Refuse a match of too few cells, or with duplicate barcodes; see :func:`find_rows`."""
    path, values = table.path, table.values
    if one.twice and one.share >= min_overlap:
        raise InputError(
            "METADATA",
            f"{path}: duplicate barcode {one.twice} of sample {sample} ({one.how}), and no column "
            "identifies the rows of this sample; add a column 'sample' with the names of the "
            "sample sheet, or give each sample its own table.",
        )
    if one.rival and one.share >= min_overlap:
        raise InputError(
            "METADATA",
            f"{path}: the columns {one.column} and {one.rival} both have the barcodes of sample "
            f"{sample}, but in different rows; rename the right one to 'barcode'.",
        )
    if one.shift and one.share >= min_overlap:
        raise InputError(
            "METADATA",
            f"{path}: the numbers of the cells of sample {sample} in column {one.column} are "
            f"{'1 higher' if one.shift > 0 else '1 lower'} than in the matrix, so that rows would "
            "be joined to the wrong cells; use the same names in both.",
        )
    by_library = FORMS[BY_LIBRARY]
    if one.n_matched and one.share >= min_overlap:
        require_libraries(
            one, pd.Index(by_library(pd.Series(barcodes))), table, sample, min_overlap
        )
    header = by_library(pd.Series(list(values), dtype=object)).isin(by_library(pd.Series(barcodes)))
    if header.any():
        raise InputError(
            "METADATA",
            f"{path}: the table has no header (its first line is the cell "
            f"{values.columns[header][0]}); add a first line with the names of the columns.",
        )
    if not one.n_matched or one.share < min_overlap:
        has = values[one.column].dropna().astype(str) if one.column in values else pd.Series([])
        named = ", ".join([*values][:10]) + (", ..." if values.shape[1] > 10 else "")
        raise InputError(
            "METADATA",
            f"{path}: {'too few' if one.n_matched else 'no'} barcodes in common with sample "
            f"{sample}: {one.n_matched} of {len(barcodes)} ({one.share:.0%}, where "
            f"ingest.min_metadata_overlap requires {min_overlap:.0%}). The matrix has "
            f"{', '.join(barcodes[:3])}; the best column of the table, {one.column}, has "
            f"{', '.join(has[:3]) or 'nothing'} (its columns: {named}). Is it the table of another "
            "sample?",
        )
    return one


def require_libraries(
    one: Match, names: pd.Index, table: CellTable, sample: str, min_overlap: float
) -> None:
    """Refuse a match without any cell of a library, although other rows may be its cells.

    Raises
    ------
    InputError
        Naming the library.
    """
    own = libraries(names)
    if len(own) == 1:
        return
    found = libraries(names[one.rows >= 0])
    how = "by nucleotides"
    keys = table.formed(one.column, how, FORMS[how])
    left = keys[~keys.index.isin(one.rows)]
    for number, cells in own.items():
        n_left = int(left.isin(cells).sum())
        if number not in found and n_left >= max(ROWS_PER_GROUP, min_overlap * len(cells)):
            raise InputError(
                "METADATA",
                f"{table.path}: no barcodes in common with library {number} of sample {sample}, "
                f"although {n_left} rows have its nucleotides; add the number of the library to "
                f"the barcodes, as in the matrix ({', '.join(names[:2])}).",
            )


def require_cells(
    one: Match,
    barcodes: pd.Index,
    kept: pd.Index,
    path: str | Path,
    sample: str,
    min_overlap: float,
) -> None:
    """Refuse a table that matches the sample's cells no more often than its empty droplets.

    A matrix of all droplets has nearly all possible barcodes, and therefore those of any table.
    The table of the right sample has more of its cells than expected by chance, even if quality
    control dropped most cells of the table.

    Parameters
    ----------
    one
        Rows of the barcodes of the matrix.
    barcodes, kept
        All barcodes of the matrix, and those of cells that pass quality control.
    path, sample, min_overlap
        See :func:`join_metadata`.

    Raises
    ------
    InputError
        With both numbers of matches.
    """
    is_of_droplets = len(kept) * DROPLETS_PER_CELL <= len(barcodes)
    if not is_of_droplets or one.n_matched >= min_overlap * len(barcodes):
        return
    n_found = int((one.rows[barcodes.get_indexer(kept)] >= 0).sum())
    if n_found >= min_overlap * min(len(kept), one.n_matched):
        return
    from scipy.stats import hypergeom  # slow to import, and rarely needed

    if hypergeom.sf(n_found - 1, len(barcodes), one.n_matched, len(kept)) > BY_CHANCE:
        raise InputError(
            "METADATA",
            f"{path}: has {n_found} of the {len(kept)} cells of sample {sample} that pass quality "
            f"control and {one.n_matched} of the {len(barcodes)} barcodes of its matrix, which is "
            "expected by chance; is it the table of another sample?",
        )


def join_metadata(
    barcodes: pd.Index,
    path: str | Path,
    sample: str,
    min_overlap: float = 0.5,
    kept: pd.Index | None = None,
) -> pd.DataFrame:
    """Read the metadata of a sample's cells, such as labels or positions.

    Parameters
    ----------
    barcodes
        The sample's barcodes.
    path
        A table; see :func:`scdyn.pp.cell_files.read_cell_table`.
    sample
        The sample's name.
    min_overlap
        Minimum share of matching barcodes, relative to the sample's rows if these are fewer; see
        :func:`match`.
    kept
        Barcodes of the cells that pass quality control, used if the matrix has all droplets; see
        :func:`require_cells`. None: all barcodes.

    Returns
    -------
    DataFrame
        The columns except that of the barcodes, one row per barcode in the given order, with
        missing values if the table has no row.

    Raises
    ------
    InputError
        If the table cannot be read, too few barcodes match, or there are duplicate barcodes.
    """
    loaded = load(path)
    one, table = find_rows(barcodes, loaded, sample, min_overlap), loaded.values
    if kept is not None:
        require_cells(one, barcodes, kept, path, sample, min_overlap)
    logger.info("%s: %s: %d of %d cells (%s)", sample, path, one.n_matched, len(barcodes), one.how)
    done = {one.column}
    if "sample" in table and (table["sample"] == sample).any():
        done.add("sample")
    table = table.drop(columns=done).reset_index(drop=True).reindex(one.rows)
    return plain(rename_own(table.set_axis(barcodes), str(path)), str(path))


def annotate(
    obs: pd.DataFrame,
    sample: str,
    covariates: Mapping[str, str],
    metadata: str,
    min_overlap: float,
    positions: np.ndarray | None = None,
    barcodes: pd.Index | None = None,
) -> pd.DataFrame:
    """Combine a sample's ``obs``, positions, metadata and covariates in one table.

    Parameters
    ----------
    obs
        Of the ingested sample, indexed by the names of the cells, with ``barcode``.
    sample
        Name of the sample.
    covariates
        Further columns of the sample sheet.
    metadata
        Path of a table of cells, "" if there is none.
    min_overlap
        See :func:`join_metadata`.
    positions
        (cells, 2 or more), from the sample's file.
    barcodes
        All barcodes of the sample's matrix, before quality control. The metadata is matched to
        these, as in preflight. None: those of ``obs``.

    Returns
    -------
    DataFrame
        One row per cell, with all columns, and ``x`` and ``y`` if there are positions. If a name
        occurs several times, covariates take precedence over metadata (renamed to
        ``{name}_in_table``), and both over the sample's file (``{name}_in_file``).

    Raises
    ------
    InputError
        If the metadata does not match, or its ``x`` and ``y`` are not numbers.
    """
    own = f"sample {sample}"
    table = without_strange_places(plain(obs, own), own)
    sheet = pd.DataFrame({name: [value] for name, value in covariates.items()}, dtype=object)
    sheet = normalise(sheet, f"{own} in the sample sheet")
    # An empty cell of the sheet does not replace a value of the metadata or of the file.
    empty = [name for name in sheet if sheet[name].isna().all()]
    sheet = sheet.drop(columns=empty)
    if positions is not None:
        places = pd.DataFrame(positions[:, :2], table.index, ["x", "y"])
        table = put(table, plain(places, own), own, "obsm['spatial']")
    if metadata:
        own_barcodes = pd.Index(obs["barcode"])
        of_matrix = own_barcodes if barcodes is None else barcodes
        joined = join_metadata(of_matrix, metadata, sample, min_overlap, own_barcodes)
        joined = joined.loc[own_barcodes]
        if {"x", "y"} <= set(joined):
            joined = joined.assign(**{axis: coordinates(joined, axis, metadata) for axis in "xy"})
        in_both = {name: f"{name}_in_table" for name in joined if name in sheet}
        joined.columns = pd.Index(new_names(list(joined), in_both, metadata))
        table = put(table, joined.set_axis(table.index), own, metadata)
    given = {name: np.repeat(sheet[name].to_numpy(), len(table)) for name in sheet}
    given |= {name: np.full(len(table), np.nan, object) for name in empty if name not in table}
    for axis in {"x", "y"} & set(sheet):
        coordinates(sheet, axis, f"sample {sample} in the sample sheet")
    return put(table, pd.DataFrame(given, table.index), own, "the sample sheet")


def without_strange_places(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Rename the columns ``x`` and ``y`` of a file to ``_in_file`` unless they are numbers."""
    names = {axis: f"{axis}_in_file" for axis in "xy" if axis in table}
    if all(table[axis].dtype.kind in "if" for axis in names):
        return table
    return table.set_axis(new_names(list(table.columns), names, origin), axis=1)


def put(table: pd.DataFrame, new: pd.DataFrame, origin: str, source: str) -> pd.DataFrame:
    """Add columns to a table; existing columns of the same names get the suffix ``_in_file``."""
    names = {name: f"{name}_in_file" for name in table if name in new}
    if names:
        logger.info("%s: %s: using the values of %s", origin, ", ".join(names), source)
        others = [name for name in [*table, *new] if name not in names]
        taken = new_names([*names, *others], names, origin)[: len(names)]
        table = table.rename(columns=dict(zip(names, taken, strict=True)))
    return table.join(new)


def coordinates(table: pd.DataFrame, axis: str, path: str) -> pd.Series:
    """Convert a column of positions to numbers.

    Raises
    ------
    InputError
        Showing the first value that is not a number.
    """
    values = pd.to_numeric(table[axis], errors="coerce").astype(np.float64)
    strange = table.loc[values.isna() & table[axis].notna(), axis]
    if len(strange):
        raise InputError(
            "METADATA",
            f"{path}: '{strange.iloc[0]}' in column {axis} (cell {strange.index[0]}) is not a "
            "number; x and y are positions: rename the columns if they are something else.",
        )
    return values


def write_cells(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table of cells as TSV, with its index as the column ``cell``."""
    text = table.apply(as_text) if len(table.columns) else table
    write_table(path, text.rename_axis("cell"), index=True)


def read_cells_table(path: str | Path) -> pd.DataFrame:
    """Read a table of :func:`write_cells`, all columns as text, with NaN for missing values."""
    table = read_table(path, dtype=str, keep_default_na=False, na_values=[""])
    return table.set_index("cell").rename_axis(None)


def examine_metadata(
    samples: Sequence[tuple[str, pd.Index, str]], min_overlap: float
) -> list[Finding]:
    """Check that the metadata of each sample match its cells, and not those of another sample.

    Parameters
    ----------
    samples
        Name, barcodes and path of the metadata ("" if there is none) of each sample.
    min_overlap
        See :func:`join_metadata`.

    Returns
    -------
    list of Finding
        One per sample with metadata and barcodes.
    """
    tables: dict[str, CellTable | InputError] = {}
    for _, _, path in samples:
        if path and path not in tables:
            try:
                tables[path] = load(path)
            except InputError as error:
                tables[path] = error
    found = {
        sample: match(barcodes, table, sample, min_overlap)
        for sample, barcodes, path in samples
        if isinstance(table := tables.get(path), CellTable) and len(barcodes) and barcodes.is_unique
    }
    findings = []
    for sample, barcodes, path in samples:
        table = tables.get(path)
        if table is None or not len(barcodes):  # unreadable matrices are reported elsewhere
            continue
        try:
            if isinstance(table, InputError):
                raise table
            one = find_own(sample, barcodes, table, samples, found, min_overlap)
            text = f"{one.n_matched} of {len(barcodes)} barcodes match {path} ({one.how})"
            findings.append(Finding(sample, METADATA, text))
        except InputError as error:
            findings.append(Finding(sample, METADATA, str(error), passed=False))
    return findings


def find_own(
    sample: str,
    barcodes: pd.Index,
    table: CellTable,
    samples: Sequence[tuple[str, pd.Index, str]],
    found: Mapping[str, Match],
    min_overlap: float,
) -> Match:
    """Match a sample to its table, unless the table matches another sample better.

    Rows that match cells of two samples with the same table are also an error, because the samples
    are joined one by one, and both would get these rows.

    Parameters
    ----------
    sample, barcodes, table
        The sample, and its table.
    samples, min_overlap
        See :func:`examine_metadata`.
    found
        Result of :func:`match` for each sample.

    Raises
    ------
    InputError
        Naming both samples, or as for :func:`find_rows`.
    """
    require_distinct(barcodes, sample)
    own = found[sample]
    for other, others, its_path in samples if own.share < SURE else []:
        if other == sample or its_path == table.path or others.has_duplicates or not len(others):
            continue
        theirs = match(others, table, other, min_overlap)
        if theirs.share > own.share and theirs.share >= min_overlap:
            raise InputError(
                "METADATA",
                f"the tables of {sample} and {other} may be swapped: {table.path} has "
                f"{own.n_matched} of {len(barcodes)} barcodes of {sample}, but "
                f"{theirs.n_matched} of {len(others)} of {other}; check metadata in the sample "
                "sheet.",
            )
    require_found(own, barcodes, table, sample, min_overlap)
    is_own = np.zeros(len(table.values), dtype=bool)
    is_own[own.rows[own.rows >= 0]] = True
    for other, _, its_path in samples:
        if other == sample or its_path != table.path or other not in found:
            continue
        its = found[other]
        if own.is_told and not its.is_told:
            continue
        rows = its.rows[its.rows >= 0]
        shared = rows[is_own[rows]]
        if len(shared) and its.share >= min_overlap and not its.twice:
            raise InputError(
                "METADATA",
                f"{table.path}: {len(shared)} rows, such as "
                f"{table.values[own.column].iloc[shared[0]]}, match cells of both {sample} and "
                f"{other}; add a column 'sample' with the names of the sample sheet, or give each "
                "sample its own table.",
            )
    return own


def read_annotated(corpus: str | Path, cells: str | Path) -> AnnData:
    """Read a corpus with the labels, covariates and positions of its cells.

    Parameters
    ----------
    corpus
        Counts of the cells.
    cells
        Table of the same cells, of :func:`write_cells`; its columns ``x`` and ``y`` become
        ``obsm["spatial"]``.

    Raises
    ------
    InputError
        If the cells differ.
    """
    result, table = read_cells(corpus), read_cells_table(cells)
    with artefact(cells):
        if not table.index.equals(result.obs_names):
            raise ValueError(f"its cells differ from those of {corpus}")
    result.obs = table.join(result.obs[[name for name in result.obs if name not in table]])
    if {"x", "y"} <= set(table):
        result.obsm["spatial"] = table[["x", "y"]].to_numpy(dtype=float)
    return result
