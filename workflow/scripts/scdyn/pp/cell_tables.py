"""Tables about cells: found for a sample by its barcodes, joined to its cells, kept as text."""

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

# Names of columns that say which sample a row is of, as Seurat, scanpy and people call them.
TELLING = (
    "sample", "sample_id", "sampleid", "sample_name", "samplename", "orig.ident", "orig_ident",
    "library", "library_id", "dataset",
)  # fmt: skip
WITHOUT_NAME = "without the sample's name"
# What of a barcode is not its name in a form: prefix and suffix there tell samples apart.
BY_LIBRARY = "by nucleotides and library"
CORE = {BY_LIBRARY: NUCLEOTIDES, "by nucleotides": SEQUENCE}
NUMBER = r"-?\d+"
# Rows by which is seen whether a column may hold barcodes.
ROWS_SEEN = 200
# A prefix or suffix that tells samples apart stands at this many rows at least, on average.
ROWS_PER_GROUP = 4
# A sample that has this share of its table's cells needs no comparison with the others' tables.
SURE = 0.9
# A matrix of so many barcodes for each cell that passed quality control has all droplets.
DROPLETS_PER_CELL = 10
# What is as likely as this could be chance.
BY_CHANCE = 1e-3


@dataclass(frozen=True)
class Match:
    """Which rows of a table are those of a sample's cells.

    Attributes
    ----------
    column
        The column that has the barcodes.
    how
        The form in which they are the sample's, in words.
    rows
        (cells,) number of each cell's row, -1 where the table has none.
    n_rows
        Rows of the table that are this sample's, whether its matrix has the cell or not.
    is_told
        Whether a column, or a prefix or suffix of the barcodes, names the sample.
    n_own
        Rows that a column leaves to the sample; all rows if none tells.
    twice
        A barcode that two rows are of, "" if there is none. The match is then of no use.
    shift
        1 if the rows number the cells one higher than the matrix, -1 if one lower.
    rival
        Another column in which as many barcodes are, but in other rows; "" if there is none.
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
        """Cells that have a row."""
        return int((self.rows >= 0).sum())

    @property
    def share(self) -> float:
        """Cells that have a row, of the cells or of the sample's rows, whichever are fewer."""
        return self.n_matched / max(1, min(len(self.rows), self.n_rows))


@dataclass(frozen=True)
class CellTable:
    """A table about cells, with what its barcodes are in each form, found once for all samples.

    Attributes
    ----------
    path
        The file.
    values
        As :func:`scdyn.pp.cell_columns.plain` makes it of what
        :func:`scdyn.pp.cell_files.read_cell_table` reads.
    """

    path: str
    values: pd.DataFrame
    _found: dict[tuple[str, str], pd.Series] = field(default_factory=dict, repr=False)

    @cached_property
    def ids(self) -> dict[str, pd.Series]:
        """Every column that may hold barcodes: its values by the numbers of their rows."""
        values = self.values.reset_index(drop=True)
        return {name: values[name].dropna() for name in values if values[name].dtype == object}

    @cached_property
    def likely(self) -> list[str]:
        """Columns that have as many values as barcodes would, and nucleotides if any has."""
        seen = {name: ids.iloc[:ROWS_SEEN] for name, ids in self.ids.items()}
        likely = [n for n, ids in seen.items() if ids.nunique() * ROWS_PER_GROUP >= len(ids) > 0]
        core = CORE["by nucleotides"]
        return [n for n in likely if seen[n].str.contains(core).mean() > 0.5] or likely

    def formed(self, column: str, how: str, form: Form) -> pd.Series:
        """Bring a column's barcodes to a form that is the same for all samples."""
        if (column, how) not in self._found:
            self._found[column, how] = form(self.ids[column])
        return self._found[column, how]


def load(path: str | Path) -> CellTable:
    """Read a table about cells, once for all the samples that it is of."""
    state = Path(path).stat() if Path(path).exists() else None
    return _load(str(path), state and (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=1)
def _load(path: str, state: tuple[int, int] | None) -> CellTable:
    if state is None:
        raise InputError("PATH", f"{path}: no such file; check the sample sheet's metadata.")
    return CellTable(path, plain(read_cell_table(path), path))


def match(barcodes: pd.Index, table: CellTable, sample: str, min_overlap: float) -> Match:
    """Find the rows of a sample's cells in a table, whatever a tool made of the barcodes.

    Every column may hold them; names that are numbers stand in row names or in a column that is
    called as one of barcodes. Where a column of one of the names :data:`TELLING` has the sample's
    name, only those rows count; of several such columns that which leaves the fewest rows. None is
    believed that finds less than half of what the barcodes alone find without doubt, such as
    ``orig.ident`` that is S in a few rows. Where barcodes have the sample's name before or behind
    them, only those count. A form in which two cells become one is not used, unless a prefix, a
    suffix or another column tells whose rows are the sample's.

    Parameters
    ----------
    barcodes
        Of the sample's matrix, each once.
    table
        Of this and perhaps other samples.
    sample
        Its name.
    min_overlap
        Smallest share that makes a match credible.

    Returns
    -------
    Match
        The best, or what comes nearest to one.
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
        # That a cell has two rows says more than that few have one otherwise.
        return max([best, *(one for one in found if one.twice)], key=lambda one: one.share)
    rivals = (one.column for one in found if rank(one) == rank(best) and differ(one, best))
    return replace(best, rival=next(rivals, ""))


def differ(one: Match, other: Match) -> bool:
    """Tell whether two columns name other rows as the sample's cells."""
    return one.column != other.column and not np.array_equal(one.rows, other.rows)


def tellings(table: CellTable, sample: str) -> list[tuple[np.ndarray, str]]:
    """Find which rows are the sample's by each column of the names :data:`TELLING` that has it.

    If none has its name as it is, one that differs in case and marks alone is taken for it.

    Returns
    -------
    list of (array, str)
        Whether each row is, and that in words; those with the fewest rows first.
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
    """Yield what each column's barcodes give, form by form, from the least change to the most.

    Only rows of ``is_own`` count; ``told`` says in words what column tells them, "" if none does.
    """
    cells = pd.Series(barcodes.astype(str), dtype=object)
    n_own = int(is_own.sum())
    # Any column of numbers, such as a rank, would have these.
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
    """Part cells named by nucleotides and library: the nucleotides of each library."""
    parts = names.to_series().str.extract(rf"^{NUCLEOTIDES}$").dropna()
    return {number: pd.Index(part[0]) for number, part in parts.groupby(1, sort=False)}


def by_shared_cells(
    table: CellTable, column: str, names: pd.Index, is_own: np.ndarray, min_overlap: float
) -> pd.Series:
    """Number rows by the library whose cells they share with all rows of their prefix and suffix.

    Parameters
    ----------
    table, column
        Whose barcodes are numbered.
    names
        Of the sample's cells, by nucleotides and library.
    is_own, min_overlap
        See :func:`groups`.

    Returns
    -------
    Series
        Nucleotides and library of the rows of which it is clear.
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
    """Ways to bring the barcodes of the matrix, and those of a table, to one form.

    Those of :data:`scdyn.io.barcodes.FORMS`, the sample's name removed; and where several libraries
    were joined, the number that another tool gave them: behind the barcode (Seurat's ``_1``,
    scanpy's ``-0``), or in a name before it. A wrong number finds other cells, and so too few.
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
    """Reduce to nucleotides and the number that ``pattern`` finds, the first library being 1."""
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
    """Part a table's rows by what stands before and behind the nucleotides.

    Tables of several samples have one prefix or suffix for each. This sample's is the one that has
    its name; otherwise those with which enough of the barcodes are its own.

    Parameters
    ----------
    how, column, table
        The form, and the column of the table's barcodes.
    keys
        These, in the form.
    names
        Of the sample's barcodes, in the form.
    sample
        Its name.
    is_own
        (rows of the table,) whether a row may be the sample's.
    min_overlap
        See :func:`match`.

    Yields
    ------
    keys : Series
        Barcodes of the rows that may be the sample's, in the form.
    what : str
        For messages, how they were chosen; empty if it is all.
    is_named : bool
        Whether the prefix or suffix is the sample's name. A number is none.
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
    """Find what stands before and behind a column's nucleotides, with | in their place."""

    def without_core(ids: pd.Series) -> pd.Series:
        return ids.str.replace(CORE[how], "|", n=1, regex=True).astype("category")

    return table.formed(column, f"{how}, the rest", without_core)


def tidy(name: str) -> str:
    """Bring a sample's name to what is left of it when R has made it a name, without case."""
    return re.sub(r"[^0-9a-z]+", ".", name.casefold()).strip(".") or " "


def pick(column: str, how: str, names: pd.Index, keys: pd.Series, is_told: bool) -> Match:
    """Find each cell's row by its key; ``keys`` has the numbers of the rows as its index."""
    places = names.get_indexer(keys)
    is_found = places >= 0
    rows = np.full(len(names), -1)
    rows[places[is_found]] = keys.index[is_found]
    found = keys[is_found]
    twice = found[found.duplicated()]
    return Match(column, how, rows, len(keys), is_told, twice.iloc[0] if len(twice) else "")


def shift(names: pd.Index, keys: pd.Series) -> int:
    """Tell whether numbers of cells begin and end one higher (1) or lower (-1) in a table."""
    own = [int(name) for name in names]
    others = [int(key) for key in keys[keys.str.fullmatch(NUMBER)]] or own
    by = min(others) - min(own)
    return by if abs(by) == 1 and max(others) - max(own) == by else 0


def told_apart(
    table: pd.DataFrame, one: Match, names: pd.Index, keys: pd.Series, sample: str
) -> Iterator[Match]:
    """Yield matches in which another column tells the sample's rows, whatever its name.

    It must tell all that is there twice apart, as a cluster that happens to have the sample's
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
    """Find the rows of a sample's cells, as :func:`match` does, or say what is wrong.

    Raises
    ------
    InputError
        If fewer than ``min_overlap`` of the barcodes are there, or a barcode is there twice.
    """
    require_distinct(barcodes, sample)
    own = match(barcodes, table, sample, min_overlap)
    return require_found(own, barcodes, table, sample, min_overlap)


def require_distinct(barcodes: pd.Index, sample: str) -> None:
    """Refuse a sample two cells of which have one barcode.

    Raises
    ------
    InputError
        Naming it.
    """
    if barcodes.has_duplicates:
        raise InputError(
            "BARCODES",
            f"sample {sample}: barcode {barcodes[barcodes.duplicated()][0]} is a duplicate; "
            "barcodes must differ, for cells are joined to their table by them.",
        )


def require_found(
    one: Match, barcodes: pd.Index, table: CellTable, sample: str, min_overlap: float
) -> Match:
    """Refuse a match of too few cells, or of two rows for one; see :func:`find_rows`."""
    path, values = table.path, table.values
    if one.twice and one.share >= min_overlap:
        raise InputError(
            "METADATA",
            f"{path}: barcode {one.twice} of sample {sample} is a duplicate ({one.how}), and "
            "nothing tells which row is this sample's; give the table a column 'sample' with the "
            "sample sheet's names, or each sample a table of its own.",
        )
    if one.rival and one.share >= min_overlap:
        raise InputError(
            "METADATA",
            f"{path}: the columns {one.column} and {one.rival} both have the barcodes of sample "
            f"{sample}, but in other rows; call the right one barcode.",
        )
    if one.shift and one.share >= min_overlap:
        raise InputError(
            "METADATA",
            f"{path}: column {one.column} numbers the cells of sample {sample} "
            f"{'1 higher' if one.shift > 0 else '1 lower'} than the matrix, so that every row "
            "would be joined to the cell beside its own; give the cells the same names in both.",
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
            f"{path}: its first line is of the cell {values.columns[header][0]}; give the table a "
            "header with the names of its columns.",
        )
    if not one.n_matched or one.share < min_overlap:
        has = values[one.column].dropna().astype(str) if one.column in values else pd.Series([])
        named = ", ".join([*values][:10]) + (", ..." if values.shape[1] > 10 else "")
        raise InputError(
            "METADATA",
            f"{path}: has {one.n_matched} of the {len(barcodes)} barcodes of sample {sample} "
            f"({one.share:.0%}, where ingest.min_metadata_overlap asks for {min_overlap:.0%}): the "
            f"matrix has {', '.join(barcodes[:3])}; the table's nearest column, {one.column}, has "
            f"{', '.join(has[:3]) or 'nothing'} (its columns: {named}): is it the table "
            "of another sample?",
        )
    return one


def require_libraries(
    one: Match, names: pd.Index, table: CellTable, sample: str, min_overlap: float
) -> None:
    """Refuse a match that leaves out all of a library whose cells other rows seem to be.

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
                f"{table.path}: no row is clearly of library {number} of sample {sample}, though "
                f"{n_left} have its nucleotides; write the library's number behind the barcodes, "
                f"as the matrix has it ({', '.join(names[:2])}).",
            )


def require_cells(
    one: Match,
    barcodes: pd.Index,
    kept: pd.Index,
    path: str | Path,
    sample: str,
    min_overlap: float,
) -> None:
    """Refuse a table whose rows are of the sample's cells no more than of its empty droplets.

    A matrix of all droplets has most barcodes that there are, and so those of any table of cells;
    a table of all droplets says nothing here. A table of the sample has more of its cells than
    chance would give, even if quality control here dropped most of those that its authors kept.

    Parameters
    ----------
    one
        The rows of the matrix' barcodes.
    barcodes, kept
        Of the matrix, and those of the cells that passed quality control.
    path, sample, min_overlap
        See :func:`join_metadata`.

    Raises
    ------
    InputError
        With both numbers.
    """
    is_of_droplets = len(kept) * DROPLETS_PER_CELL <= len(barcodes)
    if not is_of_droplets or one.n_matched >= min_overlap * len(barcodes):
        return
    n_found = int((one.rows[barcodes.get_indexer(kept)] >= 0).sum())
    if n_found >= min_overlap * min(len(kept), one.n_matched):
        return
    from scipy.stats import hypergeom  # takes its time, and is rarely asked

    if hypergeom.sf(n_found - 1, len(barcodes), one.n_matched, len(kept)) > BY_CHANCE:
        raise InputError(
            "METADATA",
            f"{path}: has {n_found} of the {len(kept)} cells of sample {sample} that pass quality "
            f"control, and {one.n_matched} of all {len(barcodes)} barcodes of its matrix: no more "
            "cells than by chance; is it the table of another sample?",
        )


def join_metadata(
    barcodes: pd.Index,
    path: str | Path,
    sample: str,
    min_overlap: float = 0.5,
    kept: pd.Index | None = None,
) -> pd.DataFrame:
    """Read what is known of a sample's cells, such as labels or positions.

    Parameters
    ----------
    barcodes
        The sample's barcodes.
    path
        A table; see :func:`scdyn.pp.cell_files.read_cell_table`.
    sample
        The sample's name.
    min_overlap
        Smallest share of the barcodes, or of the sample's rows if these are fewer, that must be
        the same; see :func:`match`.
    kept
        Barcodes of the cells that passed quality control, by which a table is judged, too, where
        the matrix has all droplets. None: all.

    Returns
    -------
    DataFrame
        Its columns as text but for that of the barcodes, a row a barcode in the given order;
        missing values where the table has no row.

    Raises
    ------
    InputError
        If the table cannot be read, has too few of the barcodes, or one of them twice.
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
    """Bring together what is known of a sample's cells.

    Parameters
    ----------
    obs
        Of the ingested sample; its index has the names of the cells, ``barcode`` their barcodes.
    sample
        The sample's name.
    covariates
        Further columns of the sample sheet.
    metadata
        Path of a table about cells, "" if there is none.
    min_overlap
        See :func:`join_metadata`.
    positions
        (cells, 2 or more), from the sample's own file.
    barcodes
        All of the sample's matrix, whether their cells passed quality control or not: the metadata
        is matched by these, as preflight does. None: those of ``obs``.

    Returns
    -------
    DataFrame
        A row a cell: the columns of ``obs``, the metadata's, the covariates, and ``x`` and ``y``
        where there are positions. What the sample sheet names comes before the sample's own file,
        whose column of the same name is then called ``{name}_in_file``; a covariate comes before
        the metadata, whose column is then ``{name}_in_table``.

    Raises
    ------
    InputError
        If the metadata is refused, or its ``x`` and ``y`` are no numbers.
    """
    own = f"sample {sample}"
    table = without_strange_places(plain(obs, own), own)
    sheet = pd.DataFrame({name: [value] for name, value in covariates.items()}, dtype=object)
    sheet = normalise(sheet, f"{own} in the sample sheet")
    # An empty cell of the sheet says nothing, and hides no value of a table or of the file.
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
    """Put ``_in_file`` behind a file's own columns ``x`` and ``y`` if they are no positions."""
    names = {axis: f"{axis}_in_file" for axis in "xy" if axis in table}
    if all(table[axis].dtype.kind in "if" for axis in names):
        return table
    return table.set_axis(new_names(list(table.columns), names, origin), axis=1)


def put(table: pd.DataFrame, new: pd.DataFrame, origin: str, source: str) -> pd.DataFrame:
    """Add columns to a table; its own of the same names get ``_in_file`` behind them."""
    names = {name: f"{name}_in_file" for name in table if name in new}
    if names:
        logger.info("%s: %s: taken from %s", origin, ", ".join(names), source)
        others = [name for name in [*table, *new] if name not in names]
        taken = new_names([*names, *others], names, origin)[: len(names)]
        table = table.rename(columns=dict(zip(names, taken, strict=True)))
    return table.join(new)


def coordinates(table: pd.DataFrame, axis: str, path: str) -> pd.Series:
    """Read a column of positions as numbers.

    Raises
    ------
    InputError
        If one is none.
    """
    values = pd.to_numeric(table[axis], errors="coerce").astype(np.float64)
    strange = table.loc[values.isna() & table[axis].notna(), axis]
    if len(strange):
        raise InputError(
            "METADATA",
            f"{path}: '{strange.iloc[0]}' in column {axis} (cell {strange.index[0]}) is no number; "
            "x and y are positions: rename the columns if they are something else.",
        )
    return values


def write_cells(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table about cells as TSV; its index is the column ``cell``."""
    text = table.apply(as_text) if len(table.columns) else table
    write_table(path, text.rename_axis("cell"), index=True)


def read_cells_table(path: str | Path) -> pd.DataFrame:
    """Read what :func:`write_cells` wrote: all as text, NaN where there is none."""
    table = read_table(path, dtype=str, keep_default_na=False, na_values=[""])
    return table.set_index("cell").rename_axis(None)


def examine_metadata(
    samples: Sequence[tuple[str, pd.Index, str]], min_overlap: float
) -> list[Finding]:
    """Examine the tables of all samples: whose cells are in them, and whether by mistake.

    Parameters
    ----------
    samples
        Name, barcodes and path of the metadata of each, "" if it has none.
    min_overlap
        See :func:`join_metadata`.

    Returns
    -------
    list of Finding
        One for each sample that has metadata and barcodes.
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
        if table is None or not len(barcodes):  # whose files cannot be read is said elsewhere
            continue
        try:
            if isinstance(table, InputError):
                raise table
            one = find_own(sample, barcodes, table, samples, found, min_overlap)
            text = f"{one.n_matched} of {len(barcodes)} barcodes are in {path} ({one.how})"
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
    """Find the rows of a sample's cells; refuse a table that fits another sample better.

    Refused are rows, too, that are as well of another sample's cells in the same table: the
    samples are joined to their tables one by one, and each would get them.

    Parameters
    ----------
    sample, barcodes, table
        The sample, and its table.
    samples, min_overlap
        See :func:`examine_metadata`.
    found
        What :func:`match` gives for each sample.

    Raises
    ------
    InputError
        Naming both samples, or as :func:`find_rows` does.
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
                f"the tables of {sample} and {other} may be exchanged: {table.path} has "
                f"{own.n_matched} of the {len(barcodes)} barcodes of {sample} and "
                f"{theirs.n_matched} of the {len(others)} of {other}; check the sample sheet's "
                "metadata.",
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
                f"{table.path}: {len(shared)} rows, such as that of "
                f"{table.values[own.column].iloc[shared[0]]}, are of cells of both {sample} and "
                f"{other}, and nothing tells whose; give the table a column 'sample' with the "
                "sample sheet's names, or each sample a table of its own.",
            )
    return own


def read_annotated(corpus: str | Path, cells: str | Path) -> AnnData:
    """Read a corpus with what is known of its cells: labels, covariates and positions.

    Parameters
    ----------
    corpus
        Counts of the cells.
    cells
        Their table, of :func:`scdyn.pp.cell_tables.write_cells`; its columns ``x`` and ``y`` become
        ``obsm["spatial"]``.

    Raises
    ------
    InputError
        If the two are of other cells.
    """
    result, table = read_cells(corpus), read_cells_table(cells)
    with artefact(cells):
        if not table.index.equals(result.obs_names):
            raise ValueError(f"it is of other cells than {corpus}")
    result.obs = table.join(result.obs[[name for name in result.obs if name not in table]])
    if {"x", "y"} <= set(table):
        result.obsm["spatial"] = table[["x", "y"]].to_numpy(dtype=float)
    return result
