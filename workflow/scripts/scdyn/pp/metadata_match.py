"""Match the rows of a table of cells to a sample's cells, by barcode."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from scdyn.errors import InputError
from scdyn.io.barcodes import FORMS, NUCLEOTIDES, SEQUENCE, Form
from scdyn.pp.metadata_files import read_cell_table
from scdyn.pp.obs_columns import is_barcode_name, to_plain_types

# Names of columns that identify the sample of a row, in Seurat, scanpy and other tables.
SAMPLE_COLUMNS = (
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
    names_sample
        Whether a column, or a prefix or suffix of the barcodes, names the sample.
    n_own
        Number of rows that a column assigns to the sample; all rows if there is no such column.
    duplicate
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
    names_sample: bool = False
    duplicate: str = ""
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
        From :func:`scdyn.pp.metadata_files.read_cell_table`, in plain types
        (:func:`scdyn.pp.obs_columns.to_plain_types`).
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
    def likely_columns(self) -> list[str]:
        """Columns that probably have barcodes: many unique values, and nucleotides if possible."""
        seen = {name: ids.iloc[:ROWS_SEEN] for name, ids in self.ids.items()}
        likely = [n for n, ids in seen.items() if ids.nunique() * ROWS_PER_GROUP >= len(ids) > 0]
        core = CORE["by nucleotides"]
        return [n for n in likely if seen[n].str.contains(core).mean() > 0.5] or likely

    def convert(self, column: str, how: str, form: Form) -> pd.Series:
        """Convert a column's barcodes to a form that does not depend on the sample."""
        if (column, how) not in self._found:
            self._found[column, how] = form(self.ids[column])
        return self._found[column, how]


def load_table(path: str | Path) -> CellTable:
    """Read a table of cells; the last one is cached, since samples can share it."""
    state = Path(path).stat() if Path(path).exists() else None
    return _load_table(str(path), state and (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=1)
def _load_table(path: str, state: tuple[int, int] | None) -> CellTable:
    if state is None:
        raise InputError("PATH", f"{path}: no such file; correct metadata in the sample sheet.")
    return CellTable(path, to_plain_types(read_cell_table(path), path))


def match(barcodes: pd.Index, table: CellTable, sample: str, min_overlap: float) -> Match:
    """Match the rows of a table to a sample's cells, whatever form its barcodes have.

    - Any column may have the barcodes; but if the cells are numbered, only row names or a column
      with a name in :data:`scdyn.pp.obs_columns.BARCODES`.
    - If a column of :data:`SAMPLE_COLUMNS` has the sample's name, only its rows are used; of
      several such columns, the one with the fewest rows. A column is ignored if it matches less
      than half of the cells that the barcodes alone match unambiguously.
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
        is_sure = one.names_sample and not one.duplicate and one.share >= min_overlap
        is_sure = is_sure and one.n_matched >= enough
        n_own = one.n_own if is_sure else 0
        return is_sure, not one.duplicate, -n_own, one.n_matched, is_barcode_name(one.column)

    found: list[Match] = []
    by_column = find_sample_rows(table, sample)
    everything = np.ones(len(table.values), dtype=bool)
    for number, (is_own, described) in enumerate(by_column or [(everything, "")]):
        for one in iter_matches(barcodes, table, sample, min_overlap, is_own, described):
            found.append(one)
            is_all = one.n_matched == len(barcodes) and is_barcode_name(one.column)
            if number == 0 and is_all and rank(one)[0]:
                return one
    if by_column and any(rank(one)[0] and 2 * one.n_matched < len(barcodes) for one in found):
        plain = [
            one
            for one in iter_matches(barcodes, table, sample, min_overlap, everything, "")
            if not (one.names_sample or one.duplicate)
            and one.n_matched >= min_overlap * len(barcodes)
        ]
        enough = max((one.n_matched for one in plain), default=0) / 2
        found += [replace(one, how=f"{one.how}, not where{by_column[0][1][1:]}") for one in plain]
    if not found:
        column = next(iter(table.values), "")
        return Match(column, "", np.full(len(barcodes), -1), len(table.values))
    best = max(found, key=rank)
    if best.share < min_overlap:
        # Duplicate barcodes are a more helpful error than too few matches in another form.
        return max([best, *(one for one in found if one.duplicate)], key=lambda one: one.share)
    rivals = (one.column for one in found if rank(one) == rank(best) and are_rivals(one, best))
    return replace(best, rival=next(rivals, ""))


def are_rivals(one: Match, other: Match) -> bool:
    """Tell whether two matches use different columns and different rows."""
    return one.column != other.column and not np.array_equal(one.rows, other.rows)


def find_sample_rows(table: CellTable, sample: str) -> list[tuple[np.ndarray, str]]:
    """Find the rows of a sample by each column of :data:`SAMPLE_COLUMNS` that has its name.

    If no column has the exact name, one that differs only in case and punctuation is used.

    Returns
    -------
    list of (array, str)
        A mask of the rows, and its description; masks with the fewest rows first.
    """
    columns = {n: ids for n, ids in table.ids.items() if n.casefold() in SAMPLE_COLUMNS}
    names = {n: sample for n, ids in columns.items() if (ids == sample).any()}
    if not names:
        for name, ids in columns.items():
            similar = [
                value for value in ids.unique() if simplify_name(value) == simplify_name(sample)
            ]
            if len(similar) == 1:
                names[name] = similar[0]
    found = [
        ((table.values[column] == name).to_numpy(), f", {column} is {name}")
        for column, name in names.items()
    ]
    return sorted(found, key=lambda telling: telling[0].sum())


def iter_matches(
    barcodes: pd.Index,
    table: CellTable,
    sample: str,
    min_overlap: float,
    is_own: np.ndarray,
    by_column: str,
) -> Iterator[Match]:
    """Yield the matches of each column in each form, forms with the fewest changes first.

    Only rows of ``is_own`` are used; ``by_column`` describes the column that identifies them, "" if
    there is none.
    """
    cells = pd.Series(barcodes.astype(str), dtype=object)
    n_own = int(is_own.sum())
    # Numbered cells would match any column of numbers, such as a rank.
    are_numbers = len(cells) > 0 and cells.str.fullmatch(NUMBER).all()
    for how, (of_cells, of_rows) in list_forms(cells, sample).items():
        names = pd.Index(of_cells(cells))
        if names.has_duplicates:
            continue
        for column in table.ids if how == next(iter(FORMS)) else table.likely_columns:
            if are_numbers and not is_barcode_name(column):
                continue
            ids = table.ids[column]
            keys = of_rows(ids) if how == WITHOUT_NAME else table.convert(column, how, of_rows)
            for kept, group, is_named in iter_groups(
                how, column, table, keys, names, sample, is_own, min_overlap
            ):
                described = f"column {column}, {how}{group}{by_column}"
                one = assign_rows(column, described, names, kept, bool(by_column) or is_named)
                yield replace(
                    one, n_own=n_own, shift=detect_shift(names, kept) if are_numbers else 0
                )
                if one.duplicate and not by_column:
                    for other in iter_resolved(table.values, one, names, kept, sample):
                        yield replace(other, n_own=n_own)

    names = pd.Index(FORMS[BY_LIBRARY](cells))
    if names.has_duplicates or are_numbers or len(split_by_library(names)) == 1:
        return
    for column in table.likely_columns:
        keys = number_by_shared_cells(table, column, names, is_own, min_overlap)
        if len(keys):
            how = "by nucleotides and the library with the same cells"
            described = f"column {column}, {how}{by_column}"
            yield replace(assign_rows(column, described, names, keys, bool(by_column)), n_own=n_own)


def split_by_library(names: pd.Index) -> dict[str, pd.Index]:
    """Group cells named by nucleotides and library: nucleotides by library number."""
    parts = names.to_series().str.extract(rf"^{NUCLEOTIDES}$").dropna()
    return {number: pd.Index(part[0]) for number, part in parts.groupby(1, sort=False)}


def number_by_shared_cells(
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
        See :func:`iter_groups`.

    Returns
    -------
    Series
        Nucleotides and library of the rows whose library is unambiguous.
    """
    how = "by nucleotides"
    keys = table.convert(column, how, FORMS[how])
    keys = keys[is_own[keys.index]]
    rest = mask_core(table, column, how)[keys.index].cat.remove_unused_categories()
    if len(rest.cat.categories) > len(keys) / ROWS_PER_GROUP:
        return keys[:0]
    own = split_by_library(names)
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


def list_forms(cells: pd.Series, sample: str) -> dict[str, tuple[Form, Form]]:
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
            found[how] = by_library, partial(extract_number, pattern=pattern, first=first)
    return found


def extract_number(ids: pd.Series, pattern: str, first: int) -> pd.Series:
    """Reduce barcodes to nucleotides and the number in ``pattern``, counted from 1."""
    parts = ids.str.extract(pattern)
    numbers = pd.to_numeric(parts["n"]).add(1 - first).astype("Int64").astype("string")
    return (parts["core"] + "-" + numbers).astype(object).fillna(ids)


def iter_groups(
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

    rest = mask_core(table, column, how)[own]
    rest = rest.cat.remove_unused_categories()
    of_sample = [
        g for g in rest.cat.categories if simplify_name(sample) in map(simplify_name, g.split("|"))
    ]
    if of_sample:
        yield keys[rest.isin(of_sample)], f" with {of_sample[0]}", is_name
    found = pd.Series(keys.isin(names), rest.index).groupby(rest, observed=True)
    counts = found.agg(["size", "sum"])
    good = counts.index[counts["sum"] >= min_overlap * counts["size"].clip(upper=len(names))]
    if 0 < len(good) < len(counts) <= len(ids) / ROWS_PER_GROUP:
        yield keys[rest.isin(good)], f" with {good[0]}", False
    else:
        yield keys, "", False


def mask_core(table: CellTable, column: str, how: str) -> pd.Series:
    """Return prefix and suffix of a column's barcodes, with | in place of the nucleotides."""

    def without_core(ids: pd.Series) -> pd.Series:
        return ids.str.replace(CORE[how], "|", n=1, regex=True).astype("category")

    return table.convert(column, f"{how}, the rest", without_core)


def simplify_name(name: str) -> str:
    """Reduce a sample's name to lower case, with dots as in names of R."""
    return re.sub(r"[^0-9a-z]+", ".", name.casefold()).strip(".") or " "


def assign_rows(
    column: str, how: str, names: pd.Index, keys: pd.Series, names_sample: bool
) -> Match:
    """Assign a row to each cell by its key; the index of ``keys`` has the row numbers."""
    places = names.get_indexer(keys)
    is_found = places >= 0
    rows = np.full(len(names), -1)
    rows[places[is_found]] = keys.index[is_found]
    found = keys[is_found]
    twice = found[found.duplicated()]
    return Match(column, how, rows, len(keys), names_sample, twice.iloc[0] if len(twice) else "")


def detect_shift(names: pd.Index, keys: pd.Series) -> int:
    """Detect numbers of cells that are one higher (1) or lower (-1) in a table, else 0."""
    own = [int(name) for name in names]
    others = [int(key) for key in keys[keys.str.fullmatch(NUMBER)]] or own
    by = min(others) - min(own)
    return by if abs(by) == 1 and max(others) - max(own) == by else 0


def iter_resolved(
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
            yield assign_rows(
                one.column, f"{one.how}, {column} is {sample}", names, keys[is_own], True
            )


def find_rows(barcodes: pd.Index, table: CellTable, sample: str, min_overlap: float) -> Match:
    """Match the rows of a table to a sample's cells; see :func:`match`.

    Raises
    ------
    InputError
        If fewer than ``min_overlap`` of the barcodes match, or there are duplicate barcodes.
    """
    require_unique_barcodes(barcodes, sample)
    own = match(barcodes, table, sample, min_overlap)
    return require_match(own, barcodes, table, sample, min_overlap)


def require_unique_barcodes(barcodes: pd.Index, sample: str) -> None:
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


def require_match(
    one: Match, barcodes: pd.Index, table: CellTable, sample: str, min_overlap: float
) -> Match:
    """Refuse a match of too few cells, or with duplicate barcodes; see :func:`find_rows`."""
    path, values = table.path, table.values
    if one.duplicate and one.share >= min_overlap:
        raise InputError(
            "METADATA",
            f"{path}: duplicate barcode {one.duplicate} of sample {sample} ({one.how}), and no "
            "column identifies the rows of this sample; add a column 'sample' with the names of "
            "the sample sheet, or give each sample its own table.",
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
    own = split_by_library(names)
    if len(own) == 1:
        return
    found = split_by_library(names[one.rows >= 0])
    how = "by nucleotides"
    keys = table.convert(one.column, how, FORMS[how])
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


def refuse_chance_match(
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
