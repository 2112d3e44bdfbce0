"""Metadata of a sample's cells, joined with covariates and positions to one table of cells."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from scdyn.errors import InputError
from scdyn.io.artefacts import read_columns, read_parquet, write_parquet
from scdyn.log import logger
from scdyn.pp.metadata_match import (
    CellTable,
    Match,
    find_rows,
    load_table,
    match,
    refuse_chance_match,
    require_match,
    require_unique_barcodes,
)
from scdyn.pp.obs_columns import (
    METRICS,
    clean_columns,
    concatenate,
    rename_reserved,
    rename_unique,
    to_plain_types,
    to_text,
)
from scdyn.pp.preflight_findings import METADATA, Finding

# If a sample matches this share of its table, it is not compared with other samples' tables.
SURE = 0.9


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
        A table; see :func:`scdyn.pp.metadata_files.read_cell_table`.
    sample
        The sample's name.
    min_overlap
        Minimum share of matching barcodes, relative to the sample's rows if these are fewer; see
        :func:`match`.
    kept
        Barcodes of the cells that pass quality control, used if the matrix has all droplets; see
        :func:`refuse_chance_match`. None: all barcodes.

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
    loaded = load_table(path)
    one, table = find_rows(barcodes, loaded, sample, min_overlap), loaded.values
    if kept is not None:
        refuse_chance_match(one, barcodes, kept, path, sample, min_overlap)
    logger.info("%s: %s: %d of %d cells (%s)", sample, path, one.n_matched, len(barcodes), one.how)
    done = {one.column}
    if "sample" in table and (table["sample"] == sample).any():
        done.add("sample")
    table = table.drop(columns=done).reset_index(drop=True).reindex(one.rows)
    return to_plain_types(rename_reserved(table.set_axis(barcodes), str(path)), str(path))


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
    table = rename_non_positions(to_plain_types(obs, own), own)
    sheet = pd.DataFrame({name: [value] for name, value in covariates.items()}, dtype=object)
    sheet = clean_columns(sheet, f"{own} in the sample sheet")
    # An empty cell of the sheet does not replace a value of the metadata or of the file.
    empty = [name for name in sheet if sheet[name].isna().all()]
    sheet = sheet.drop(columns=empty)
    if positions is not None:
        places = pd.DataFrame(positions[:, :2], table.index, ["x", "y"])
        table = add_columns(table, to_plain_types(places, own), own, "obsm['spatial']")
    if metadata:
        own_barcodes = pd.Index(obs["barcode"])
        of_matrix = own_barcodes if barcodes is None else barcodes
        joined = join_metadata(of_matrix, metadata, sample, min_overlap, own_barcodes)
        joined = joined.loc[own_barcodes]
        if {"x", "y"} <= set(joined):
            joined = joined.assign(
                **{axis: read_coordinates(joined, axis, metadata) for axis in "xy"}
            )
        in_both = {name: f"{name}_in_table" for name in joined if name in sheet}
        joined.columns = pd.Index(rename_unique(list(joined), in_both, metadata))
        table = add_columns(table, joined.set_axis(table.index), own, metadata)
    given = {name: np.repeat(sheet[name].to_numpy(), len(table)) for name in sheet}
    given |= {name: np.full(len(table), np.nan, object) for name in empty if name not in table}
    for axis in {"x", "y"} & set(sheet):
        read_coordinates(sheet, axis, f"sample {sample} in the sample sheet")
    return add_columns(table, pd.DataFrame(given, table.index), own, "the sample sheet")


def annotate_samples(
    samples: Iterable[tuple[pd.DataFrame, np.ndarray | None, pd.DataFrame]],
    covariates: Mapping[str, Mapping[str, str]],
    metadata: Mapping[str, str],
    min_overlap: float,
) -> pd.DataFrame:
    """Bring together what is known of the cells of all samples of a corpus.

    Parameters
    ----------
    samples
        Of each sample ``obs`` and the positions of its cells, as ingestion wrote them, and its
        table of QC with ``cell``, the names of all cells of its matrix; in the order of
        ``covariates``. Read one at a time.
    covariates
        Sample to its further columns of the sample sheet.
    metadata
        Sample to the path of its table about cells, "" if there is none.
    min_overlap
        See :func:`join_metadata`.

    Returns
    -------
    DataFrame
        A row per cell, the tables of :func:`annotate` one below the other, without metrics, which
        are in the corpus.

    Raises
    ------
    InputError
        If a sample's metadata is refused.
    """
    tables = []
    for (sample, given), (obs, places, qc) in zip(covariates.items(), samples, strict=True):
        barcodes = pd.Index(qc["cell"].str.removeprefix(f"{sample}_"))
        obs = obs.drop(columns=list(METRICS), errors="ignore")
        tables.append(annotate(obs, sample, given, metadata[sample], min_overlap, places, barcodes))
    return concatenate(tables)


def rename_non_positions(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Rename the columns ``x`` and ``y`` of a file to ``_in_file`` unless they are numbers."""
    names = {axis: f"{axis}_in_file" for axis in "xy" if axis in table}
    if all(table[axis].dtype.kind in "if" for axis in names):
        return table
    return table.set_axis(rename_unique(list(table.columns), names, origin), axis=1)


def add_columns(table: pd.DataFrame, new: pd.DataFrame, origin: str, source: str) -> pd.DataFrame:
    """Add columns to a table; existing columns of the same names get the suffix ``_in_file``."""
    names = {name: f"{name}_in_file" for name in table if name in new}
    if names:
        logger.info("%s: %s: using the values of %s", origin, ", ".join(names), source)
        others = [name for name in [*table, *new] if name not in names]
        taken = rename_unique([*names, *others], names, origin)[: len(names)]
        table = table.rename(columns=dict(zip(names, taken, strict=True)))
    return table.join(new)


def read_coordinates(table: pd.DataFrame, axis: str, path: str) -> pd.Series:
    """Convert a column of positions to numbers.

    Raises
    ------
    InputError
        Showing the first value that is not a number.
    """
    values = pd.to_numeric(table[axis], errors="coerce").astype(np.float64)
    invalid = table.loc[values.isna() & table[axis].notna(), axis]
    if len(invalid):
        raise InputError(
            "METADATA",
            f"{path}: '{invalid.iloc[0]}' in column {axis} (cell {invalid.index[0]}) is not a "
            "number; x and y are positions: rename the columns if they are something else.",
        )
    return values


def write_cells(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table of cells as parquet: positions as numbers, all other columns as text."""
    columns = {name: table[name] if name in ("x", "y") else to_text(table[name]) for name in table}
    text = pd.DataFrame(columns, index=table.index)
    repeated = [name for name in text if text[name].dtype == object and has_repeats(text[name])]
    write_parquet(path, text.astype(dict.fromkeys(repeated, "category")).rename_axis("cell"))


def has_repeats(column: pd.Series) -> bool:
    """Tell whether a column has fewer than half as many values as rows."""
    return column.nunique() < len(column) / 2


def read_cells_table(path: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a table of :func:`write_cells`.

    Parameters
    ----------
    path
        The table.
    columns
        Columns to read, of which those are left out that the table does not have; None: all.

    Returns
    -------
    DataFrame
        A row per cell, by name; text columns of type object, with NaN for missing values.
    """
    if columns is not None:
        known = read_columns(path)
        columns = [name for name in dict.fromkeys(columns) if name in known]
    table = read_parquet(path, columns)
    # As objects, because a category without cells would be a group of its own.
    words = [name for name in table if table[name].dtype.kind != "f"]
    return table.astype(dict.fromkeys(words, object)).rename_axis(None)


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
                tables[path] = load_table(path)
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
            one = match_own_table(sample, barcodes, table, samples, found, min_overlap)
            text = f"{one.n_matched} of {len(barcodes)} barcodes match {path} ({one.how})"
            findings.append(Finding(sample, METADATA, text))
        except InputError as error:
            findings.append(Finding(sample, METADATA, str(error), passed=False))
    return findings


def match_own_table(
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
    require_unique_barcodes(barcodes, sample)
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
    require_match(own, barcodes, table, sample, min_overlap)
    is_own = np.zeros(len(table.values), dtype=bool)
    is_own[own.rows[own.rows >= 0]] = True
    for other, _, its_path in samples:
        if other == sample or its_path != table.path or other not in found:
            continue
        its = found[other]
        if own.names_sample and not its.names_sample:
            continue
        rows = its.rows[its.rows >= 0]
        shared = rows[is_own[rows]]
        if len(shared) and its.share >= min_overlap and not its.duplicate:
            raise InputError(
                "METADATA",
                f"{table.path}: {len(shared)} rows, such as "
                f"{table.values[own.column].iloc[shared[0]]}, match cells of both {sample} and "
                f"{other}; add a column 'sample' with the names of the sample sheet, or give each "
                "sample its own table.",
            )
    return own


def read_selected_cells(path: str | Path, columns: Collection[str]) -> pd.DataFrame:
    """Read columns of a table of cells, by which cells are selected.

    If one is missing, all are read, so that the error that names it can list them.
    """
    table = read_cells_table(path, [*columns])
    return table if set(columns) <= set(table) else read_cells_table(path)


def add_labels(cells: AnnData, table: pd.DataFrame) -> AnnData:
    """Add labels, covariates and positions to cells, in place.

    Parameters
    ----------
    cells
        Cells of a corpus.
    table
        Of :func:`read_cells_table`, with these cells; its columns ``x`` and ``y`` become
        ``obsm["spatial"]``.

    Raises
    ------
    InputError
        If a cell is not in the table.
    """
    rows = table.index.get_indexer(cells.obs_names)
    if (rows < 0).any():
        raise InputError(
            "CORPUS",
            f"cell {cells.obs_names[rows < 0][0]} is not in the table of the corpus' cells; run "
            "the workflow again.",
        )
    labels = table.iloc[rows].set_axis(cells.obs_names)
    cells.obs = labels.join(cells.obs[[name for name in cells.obs if name not in labels]])
    if {"x", "y"} <= set(labels):
        cells.obsm["spatial"] = labels[["x", "y"]].to_numpy(dtype=float)
    return cells
