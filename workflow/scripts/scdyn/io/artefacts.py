"""Reading the workflow's own outputs, which carry the version of the code that wrote them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdyn.errors import reading
from scdyn.io.files import atomic
from scdyn.version import __version__

if TYPE_CHECKING:  # Snakemake's environment reads tables, too, but has neither of these
    import pyarrow as pa
    import pyarrow.parquet as pq
    import zarr
    from anndata import AnnData


# Increased whenever older outputs can no longer be read, or their content changes its meaning.
FORMAT = 5
STAMP = "scdyn"
# File of a folder that holds its stamp: tokens, a fine-tuned model, or a corpus.
FOLDERS = ("meta.json", "task.json", "manifest.json")
# Settings of the arrays that open_zarr reads, without which a chunk of zeros has no file.
ALL_CHUNKS = {"write_empty_chunks": True}
# Column of a parquet file that holds an index without a name.
INDEX = "index"


@cache
def compute_code_version() -> str:
    """Return the library's version, followed by eight digits of the hash of its code."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(file.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:8]}"


def make_stamp() -> dict[str, Any]:
    """Return the version of the code and of the format, to be stored as ``scdyn`` in an output."""
    return {"version": compute_code_version(), "format": FORMAT}


def read_stamp(path: str | Path) -> dict[str, Any]:
    """Read the stamp of a file, by its suffix, or of a folder with one of :data:`FOLDERS`.

    Returns
    -------
    dict
        ``version`` and ``format``; "unknown" and 1 if there is no stamp.
    """
    path = Path(path)
    unknown = {"version": "unknown", "format": 1}
    if path.suffix == ".h5ad":
        import h5py

        with reading_artefact(path), h5py.File(path) as file:
            group = file.get(f"uns/{STAMP}")
            if group is None:
                return unknown
            return {"version": group["version"].asstr()[()], "format": int(group["format"][()])}
    if path.suffix == ".parquet":
        stamp = read_parquet_stamp(path)
        return {name: stamp[name] for name in unknown}
    if path.suffix == ".zarr":
        stamp = read_zarr_stamp(path) or unknown
        return {name: stamp[name] for name in unknown}
    if path.suffix == ".npz":
        with reading_artefact(path), np.load(path, allow_pickle=False) as file:
            return json.loads(str(file[STAMP])) if STAMP in file else unknown
    if path.is_dir():
        path = next((path / name for name in FOLDERS if (path / name).exists()), path / FOLDERS[0])
    return read_json(path).get(STAMP, unknown)


def read_parquet_stamp(path: str | Path) -> dict[str, Any]:
    """Read all that :func:`writing_parquet` stored as the stamp of a file."""
    import pyarrow.parquet as pq

    with reading_artefact(path):
        stamp: dict[str, Any] = json.loads(pq.read_schema(path).metadata[STAMP.encode()])
        return stamp


def read_zarr_stamp(folder: Path) -> dict[str, Any]:
    """Read all that :func:`write_zarr` stored as the stamp of a folder; empty without one."""
    with reading_artefact(folder):
        content = json.loads((folder / "zarr.json").read_text())
        stamp: dict[str, Any] = content.get("attributes", {}).get(STAMP, {})
        return stamp


def write_h5ad(path: str | Path, cells: AnnData) -> None:
    """Write cells as compressed h5ad with a stamp, atomically."""
    cells.uns[STAMP] = make_stamp()
    with atomic(path) as temporary:
        cells.write_h5ad(temporary, compression="lzf")


def write_zarr(folder: Path, cells: AnnData, stamp: dict[str, Any] | None = None) -> zarr.Group:
    """Write an AnnData without ``X`` and layers to a new folder of zarr, with a stamp.

    Parameters
    ----------
    folder
        Of :func:`scdyn.io.files.atomic`.
    cells
        ``obs``, ``var`` and ``obsm`` are written.
    stamp
        What the stamp has besides the version.

    Returns
    -------
    Group
        To write the matrices to.
    """
    import zarr
    from anndata.io import write_elem

    group = zarr.open_group(str(folder), mode="w", zarr_format=3)
    with zarr.config.set({f"array.{key}": value for key, value in ALL_CHUNKS.items()}):
        for name in ("obs", "var"):
            # Text of arrow is new to anndata, which refuses to write it.
            table = getattr(cells, name)
            texts = [column for column in table if isinstance(table[column].dtype, pd.StringDtype)]
            table = table.astype(dict.fromkeys(texts, object))
            write_elem(group, name, table.set_axis(table.index.astype(object)))
        write_elem(group, "obsm", dict(cells.obsm))
        for name in ("layers", "varm", "obsp", "varp", "uns"):
            write_elem(group, name, {})
    described = {"encoding-type": "anndata", "encoding-version": "0.1.0"}
    group.attrs.update(described | {STAMP: make_stamp() | (stamp or {})})
    return group


def open_zarr(folder: str | Path, name: str = "") -> zarr.Group | zarr.Array:
    """Open a folder of zarr, or an element of it, for reading.

    Raises
    ------
    ValueError
        If a chunk is missing, which zarr would read as zeros or empty text.
    """
    import zarr

    # Only format 3, because format 2 has a codec that unpickles.
    group = zarr.open_group(str(folder), mode="r", zarr_format=3)
    opened = group[name] if name else group
    inside = opened.members(max_depth=None) if isinstance(opened, zarr.Group) else [("", opened)]
    for part, array in inside:
        if isinstance(array, zarr.Array) and array.nchunks_initialized != array.nchunks:
            n_lost = array.nchunks - array.nchunks_initialized
            raise ValueError(f"{name}/{part}: {n_lost} of {array.nchunks} chunks are missing")
    return opened


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name as npz with a stamp, atomically.

    They are not compressed, so that the memory of a job follows from the sizes of its inputs.
    """
    content: dict[str, Any] = {**arrays, STAMP: json.dumps(make_stamp())}
    with atomic(path) as temporary:
        np.savez(temporary, **content)


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of :func:`write_arrays` by name."""
    with reading_artefact(path), np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files if name != STAMP}


def reading_artefact(path: str | Path) -> AbstractContextManager[None]:
    """Turn any error while an output of the workflow is read into an :class:`InputError`.

    Raises
    ------
    InputError
        Naming the file, or the folder that a rule makes as a whole; the workflow recreates it once
        it is removed.
    """
    folder = Path(path).parent
    made = folder if any((folder / name).exists() for name in FOLDERS) else path
    return reading(
        "FORMAT", made, "was changed or truncated", "remove it and run the workflow again"
    )


def read_json(path: str | Path) -> Any:
    """Read a file of :func:`scdyn.io.files.write_json`."""
    with reading_artefact(path):
        return json.loads(Path(path).read_text())


def read_records(path: str | Path) -> pd.DataFrame:
    """Read a table of :func:`scdyn.training.progress.write_records`."""
    with reading_artefact(path):
        table = pd.read_json(path, lines=True)
        if table.empty:
            raise ValueError("it is empty")
        return table


def read_table(path: str | Path, **options: Any) -> pd.DataFrame:
    """Read a table of :func:`scdyn.io.files.write_table`.

    A truncated last line is an error here; pandas would fill it with missing values.

    Parameters
    ----------
    path
        The table.
    options
        Of :func:`pandas.read_csv`.
    """
    with reading_artefact(path):
        with Path(path).open("rb") as file:
            file.seek(-1, os.SEEK_END)  # raises OSError if the file is empty
            if file.read() != b"\n":
                raise ValueError("its last line is truncated")
        return pd.read_csv(path, sep="\t", **options)


def write_parquet(path: str | Path, table: pd.DataFrame) -> None:
    """Write a data frame as parquet (zstd, with checksums) with a stamp, atomically.

    Categorical columns are stored as dictionaries, other text as strings, numbers in their own
    precision. Text whose values repeat should be categorical; as strings it takes more memory.

    Parameters
    ----------
    path
        The file.
    table
        Columns of one type each. An index other than the default is stored as the first column.
    """
    with writing_parquet(path) as write:
        write(table)


@contextmanager
def writing_parquet(path: str | Path, **stamp: str) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Write data frames of the same columns to one file, one at a time, as :func:`write_parquet`.

    Parameters
    ----------
    path
        The file.
    stamp
        Further content of the stamp.

    Yields
    ------
    Callable
        Writes a data frame. :func:`iter_parquet` reads them one at a time, :func:`read_parquet`
        all as one. The file appears when the block ends.
    """
    import pyarrow.parquet as pq

    with atomic(path) as temporary, ExitStack() as stack:
        writer = None

        def write(table: pd.DataFrame) -> None:
            nonlocal writer
            content = _to_arrow(table, **stamp)
            if writer is None:
                writer = pq.ParquetWriter(
                    temporary, content.schema, compression="zstd", write_page_checksum=True
                )
                stack.enter_context(writer)
            writer.write_table(content, row_group_size=max(1, len(table)))

        yield write


def read_columns(path: str | Path) -> list[str]:
    """Read the names of the columns of a :func:`write_parquet`."""
    import pyarrow.parquet as pq

    with reading_artefact(path):
        return list(pq.read_schema(path).names)


def read_parquet(
    path: str | Path, columns: Sequence[str] | None = None, filters: Any = None
) -> pd.DataFrame:
    """Read a data frame of :func:`write_parquet`.

    Parameters
    ----------
    path
        The file.
    columns
        The columns to read, in this order, all if None; an index is read in any case.
    filters
        Rows to read, as for :func:`pyarrow.parquet.read_table`, such as
        ``[("method", "==", "knn")]``.

    Returns
    -------
    DataFrame
        Dictionaries as categorical columns, other text as the dtype ``str`` of pandas on strings of
        arrow (missing: NaN), truth values of which some are missing as ``boolean``, integers of
        which some are missing as float64.

    Raises
    ------
    InputError
        If the file is missing, damaged or truncated.
    """
    import pyarrow.parquet as pq

    options = {"partitioning": None, "page_checksum_verification": True}
    with reading_artefact(path):
        return _to_pandas(
            pq.read_schema(path),
            columns,
            # Not hive's partitioning, for which a folder called "a=b" is a column.
            lambda name: pq.read_table(path, columns=[name], filters=filters, **options),
        )


def iter_parquet(
    path: str | Path, columns: Sequence[str] | None = None, chosen: Sequence[int] | None = None
) -> Iterator[pd.DataFrame]:
    """Read the data frames of :func:`writing_parquet`, one at a time.

    Parameters
    ----------
    path
        The file.
    columns
        As for :func:`read_parquet`.
    chosen
        Numbers of the data frames to read, from 0; all if None.

    Yields
    ------
    DataFrame
        As :func:`read_parquet` returns it.

    Raises
    ------
    InputError
        If the file is missing, damaged or truncated.
    """
    import pyarrow.parquet as pq

    with reading_artefact(path):
        file = pq.ParquetFile(path, page_checksum_verification=True)
    with file:
        for i in range(file.num_row_groups) if chosen is None else chosen:
            with reading_artefact(path):
                table = _to_pandas(file.schema_arrow, columns, partial(_read_column, file, i))
            yield table


def _read_column(file: pq.ParquetFile, group: int, name: str) -> pa.Table:
    """Read a column of a group of rows."""
    return file.read_row_group(group, [name])


def _to_arrow(table: pd.DataFrame, **stamp: str) -> pa.Table:
    """Convert a data frame to arrow, with a stamp that names its index."""
    import pyarrow as pa

    columns, index = {str(name): table[name] for name in table}, None
    if not isinstance(table.index, pd.RangeIndex):
        index = table.index.name or INDEX
        columns = {index: table.index} | columns
    content = pa.table({name: _column_to_arrow(values) for name, values in columns.items()})
    described = make_stamp() | {INDEX: index} | stamp
    return content.replace_schema_metadata({STAMP: json.dumps(described)})


def _column_to_arrow(values: pd.Series | pd.Index) -> Any:
    """Convert a column to arrow; one without any value has no type there and becomes text."""
    import pyarrow as pa

    array = pa.array(values, from_pandas=True)
    text = pa.nulls(len(values), pa.string())
    if pa.types.is_null(array.type):
        return text
    if not pa.types.is_dictionary(array.type):
        return array
    if pa.types.is_null(array.type.value_type):
        array = text.dictionary_encode()
    # The type of the codes follows the number of categories, but data frames of one file share it.
    kind = pa.dictionary(pa.int32(), array.type.value_type, array.type.ordered)
    return array.cast(kind)


def _to_pandas(
    schema: pa.Schema, columns: Sequence[str] | None, read: Callable[[str], pa.Table]
) -> pd.DataFrame:
    """Convert a table of arrow, read by column, to pandas, without objects of Python.

    One column at a time, because the memory of pandas' copy comes on top of arrow's.
    """
    index = json.loads(schema.metadata[STAMP.encode()])[INDEX]
    names = [name for name in (schema.names if columns is None else columns) if name != index]
    rows = None
    if index is not None:
        rows = pd.Index(_column_to_pandas(read(index)), name=None if index == INDEX else index)
    values = {name: _column_to_pandas(read(name)) for name in names}
    return pd.DataFrame(values, index=rows, columns=names, copy=False)


def _column_to_pandas(content: pa.Table) -> Any:
    """Convert a table of one column to an array of pandas."""
    import pyarrow as pa

    text = pd.StringDtype("pyarrow", na_value=np.nan)
    types = {pa.string(): text, pa.large_string(): text}
    if content.column(0).null_count:
        types[pa.bool_()] = pd.BooleanDtype()
    return content.to_pandas(types_mapper=types.get, ignore_metadata=True).iloc[:, 0].array


def read_cells(path: str | Path) -> AnnData:
    """Read an h5ad of :func:`write_h5ad`."""
    from anndata import read_h5ad

    with reading_artefact(path):
        return read_h5ad(path)
