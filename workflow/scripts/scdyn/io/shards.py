"""Counts of one sample on disk: an AnnData in sharded zarr, of which whole runs of rows are read.

Any zarr client can read the files. Here they are read without zarr, because the values of a shard
are one uncompressed piece of its file, so that a run of cells is one large read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import pandas as pd
from scipy import sparse

from scdyn.errors import InputError, reading
from scdyn.io.artefacts import STAMP, open_zarr, read_zarr_stamp, write_zarr
from scdyn.io.files import atomic

if TYPE_CHECKING:
    import zarr
    from anndata import AnnData

# Modality to its place in the AnnData.
PLACES = {"rna": "X", "promoter": "layers/promoter"}
# Numbers per chunk of zarr, the least that another client reads, and per file.
CHUNK, PER_FILE = 2**16, 2**26
# Cells that are sorted and written at once, and those of a block where no other size is given.
CELLS_AT_ONCE = 4096
# Rows with fewer numbers between them are read at once, and most numbers read at once.
GAP, PER_READ = 2**15, 2**24
UNREADABLE = "the counts cannot be read"
REMEDY = "remove the folder and run the workflow again"


def hash_vocabulary(genes: pd.DataFrame) -> str:
    """Hash the gene ids, their order and which are TFs, on which a model's parameters depend."""
    text = "\n".join(
        f"{gene}\t{bool(tf)}" for gene, tf in zip(genes["gene_id"], genes["is_tf"], strict=True)
    )
    return hashlib.sha256(text.encode()).hexdigest()


def hash_gene_table(genes: pd.DataFrame) -> str:
    """Hash what samples of a corpus must agree in besides the vocabulary.

    Lengths and numbers of TSSs, on which normalisation depends, and symbols, by which regulons are
    named.
    """
    known = [name for name in ("symbol", "length", "n_tss") if name in genes]
    return hashlib.sha256(genes[known].to_csv(index=False).encode()).hexdigest()


def find_smallest_type(largest: int) -> np.dtype[Any]:
    """Return the smallest type of unsigned integers that holds a number."""
    return np.min_scalar_type(int(largest))


def write_shard(path: str | Path, cells: AnnData) -> None:
    """Write a sample's cells, atomically.

    Parameters
    ----------
    path
        Folder, ``NAME.zarr``.
    cells
        RNA counts in ``X``, promoter counts in ``layers["promoter"]``, the vocabulary in ``var``.
        They are written as CSR in the smallest type of integers; ``obs``, ``var`` and ``obsm`` as
        anndata writes them. The attributes of the group have the version of the code, the hash of
        the vocabulary, and an id: a hash of all that decides the values, made while writing.

    Raises
    ------
    InputError
        If the disk is full or read-only.
    """
    genes = cells.var.rename_axis("gene_id").reset_index()
    gene_table = hash_gene_table(genes)
    digest = hashlib.sha256("\n".join([gene_table, *cells.obs_names]).encode())
    if "promoter_source" in cells.obs:
        digest.update("\n".join(cells.obs["promoter_source"].astype(str)).encode())
    stamp = {
        "vocabulary_sha256": hash_vocabulary(genes),
        "gene_table_sha256": gene_table,
        "n_cells": cells.n_obs,
        "n_genes": cells.n_vars,
    }
    with atomic(path) as temporary:
        group = write_zarr(temporary, cells)
        for modality, place in PLACES.items():
            values = cells.X if modality == "rna" else cells.layers["promoter"]
            write_counts(group.create_group(place), sum_duplicates(values), digest)
        stamp["id"] = digest.hexdigest()
        group.attrs[STAMP] = group.attrs[STAMP] | stamp


def sum_duplicates(values: Any) -> sparse.csr_matrix:
    """Convert to CSR in which each gene of a cell has one entry, ascending; a copy if need be."""
    counts = sparse.csr_matrix(values)
    if not counts.has_canonical_format:
        counts = counts.copy()
        counts.sum_duplicates()
    return counts


def write_counts(group: zarr.Group, counts: sparse.csr_matrix, digest: Any) -> None:
    """Write counts (cells, genes) as the CSR arrays data, indices and indptr, and hash them.

    Genes of a cell are ascending, each once.
    """
    n_kept = int(np.count_nonzero(counts.data))
    largest = counts.data.max() if len(counts.data) else 0
    types = {
        "data": find_smallest_type(largest),
        "indices": find_smallest_type(counts.shape[1]),
    }
    # Zarr leaves out chunks of nothing but the fill value, which therefore is no value.
    fill_values = {"data": 0, "indices": np.iinfo(types["indices"]).max}
    chunk = max(1, min(CHUNK, n_kept))
    per_file = max(1, min(PER_FILE, -(-n_kept // chunk) * chunk))
    arrays = {
        name: group.create_array(
            name, shape=(n_kept,), dtype=dtype, chunks=(chunk,), shards=(per_file,),
            compressors=None, fill_value=fill_values[name],
        )
        for name, dtype in types.items()
    }  # fmt: skip
    waiting: dict[str, list[np.ndarray]] = {name: [] for name in arrays}
    n_waiting, n_written = 0, 0
    digests = {name: hashlib.sha256() for name in types}
    indptr = np.zeros(counts.shape[0] + 1, dtype=np.int64)

    def write(last: bool) -> None:
        nonlocal n_waiting, n_written
        n_ready = n_waiting if last else n_waiting // per_file * per_file
        if not n_ready:
            return
        for name, array in arrays.items():
            values = np.concatenate(waiting[name])
            array[n_written : n_written + n_ready] = values[:n_ready]
            waiting[name] = [values[n_ready:]]
        n_waiting, n_written = n_waiting - n_ready, n_written + n_ready

    for start in range(0, counts.shape[0], CELLS_AT_ONCE):
        part = counts[start : start + CELLS_AT_ONCE]  # a copy
        part.eliminate_zeros()
        stop = start + part.shape[0]
        indptr[start + 1 : stop + 1] = indptr[start] + part.indptr[1:].astype(np.int64)
        for name, dtype in types.items():
            values = getattr(part, name).astype(dtype)
            digests[name].update(values)
            waiting[name].append(values)
        n_waiting += part.nnz
        if n_waiting >= per_file:
            write(last=False)
    write(last=True)
    digest.update(b"".join(of_array.digest() for of_array in digests.values()))
    digest.update(indptr)
    group.create_array(
        "indptr", data=indptr, chunks=(len(indptr),), compressors=None, fill_value=-1
    )
    group.attrs.update(
        {
            "encoding-type": "csr_matrix",
            "encoding-version": "0.1.0",
            "shape": list(counts.shape),
        }
    )


class OpenFiles:
    """Files that are read at several places, each opened once and closed together."""

    def __init__(self) -> None:
        self._handles: dict[str, int] = {}

    def __enter__(self) -> Self:
        """Open none yet."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Close all files."""
        for handle in self._handles.values():
            os.close(handle)

    def open(self, path: str) -> int:
        """Return the number under which the system knows an open file."""
        if path not in self._handles:
            self._handles[path] = os.open(path, os.O_RDONLY)
        return self._handles[path]


class ArrayOnDisk:
    """A one-dimensional zarr array of uncompressed chunks, read by position.

    Parameters
    ----------
    folder
        Of the array.

    Raises
    ------
    OSError, LookupError, ValueError
        If files are missing or truncated, or the layout is not that of :func:`write_shard`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: list[str] = []
        layout = json.loads((folder / "zarr.json").read_text())
        (self.length,) = layout["shape"]
        self.dtype = np.dtype(layout["data_type"]).newbyteorder("<")
        (self.per_file,) = layout["chunk_grid"]["configuration"]["chunk_shape"]
        codecs = layout["codecs"]
        self.chunk = 0  # of a file that is one chunk
        if codecs[0]["name"] == "sharding_indexed":
            (self.chunk,) = codecs[0]["configuration"]["chunk_shape"]
            codecs = codecs[0]["configuration"]["codecs"]
        if [codec["name"] for codec in codecs] != ["bytes"]:
            raise ValueError(f"{folder.name} is compressed")
        for i in range(-(-self.length // self.per_file)):
            self._check_file(i)
            self._files.append(str(self._file(i)))

    def _check_file(self, i: int) -> None:
        """Refuse a file of another size, or whose chunks are not in order."""
        path = self._file(i)
        n_here = min(self.per_file, self.length - i * self.per_file)
        if not self.chunk:
            size, expected = path.stat().st_size, self.per_file * self.dtype.itemsize
        else:
            n_chunks, n_used = self.per_file // self.chunk, -(-n_here // self.chunk)
            index_size = 16 * n_chunks + 4  # offset and size of each chunk, then a checksum
            bytes_per_chunk = self.chunk * self.dtype.itemsize
            size, expected = path.stat().st_size, n_used * bytes_per_chunk + index_size
        if size != expected:
            raise ValueError(f"{path.relative_to(self.folder.parents[1])}: has {size} bytes, "
                             f"not {expected}")  # fmt: skip
        if self.chunk:
            with path.open("rb") as file:
                file.seek(-index_size, os.SEEK_END)
                index = np.frombuffer(file.read(16 * n_used), "<u8").reshape(n_used, 2)
            starts = np.arange(n_used, dtype=np.uint64) * np.uint64(bytes_per_chunk)
            if (index[:, 0] != starts).any() or (index[:, 1] != bytes_per_chunk).any():
                raise ValueError(f"{path.relative_to(self.folder.parents[1])}: its chunks are not "
                                 "in order")  # fmt: skip

    def _file(self, i: int) -> Path:
        return self.folder / "c" / str(i)

    def read(
        self, start: int, stop: int, files: OpenFiles, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Read the numbers from ``start`` to ``stop``, into ``out`` (stop - start,) if given."""
        if out is None:
            out = np.empty(stop - start, self.dtype)
        view = out.view(np.uint8).data
        width, done = self.dtype.itemsize, 0
        while start < stop:
            i, first = divmod(start, self.per_file)
            last = min(self.per_file, first + stop - start)
            wanted = view[done : done + (last - first) * width]
            handle, read = files.open(self._files[i]), 0
            while read < len(wanted):
                n = os.preadv(handle, [wanted[read:]], first * width + read)
                if not n:
                    raise ValueError(f"{self.folder.name}: its file ends early")
                read += n
            done += len(wanted)
            start += last - first
        return out


class CountsOnDisk:
    """Counts of one modality of a sample: a CSR matrix of which rows are read on access.

    Parameters
    ----------
    folder
        Folder with the arrays data, indices and indptr.
    shape
        (cells, genes).

    Raises
    ------
    OSError, LookupError, ValueError
        If the arrays cannot be read or do not fit each other.
    """

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None:
        self.data, self.indices = ArrayOnDisk(folder / "data"), ArrayOnDisk(folder / "indices")
        indptr = ArrayOnDisk(folder / "indptr")
        if indptr.length != shape[0] + 1:
            raise ValueError(f"{folder.name}: has {indptr.length - 1} cells, not {shape[0]}")
        with OpenFiles() as files:
            self.indptr = indptr.read(0, indptr.length, files)
        if not self.data.length == self.indices.length == self.indptr[-1]:
            raise ValueError(f"{folder.name}: its arrays have different lengths")
        if self.indptr[0] or (np.diff(self.indptr) < 0).any():
            raise ValueError(f"{folder.name}: the bounds of its cells are not in order")
        if self.data.dtype.kind != "u" or self.indices.dtype != find_smallest_type(shape[1]):
            raise ValueError(f"{folder.name}: its arrays have other types")
        self.name, self.n_genes = folder.name, shape[1]

    def copy_rows(
        self, rows: np.ndarray, targets: np.ndarray, data: np.ndarray, indices: np.ndarray
    ) -> None:
        """Copy rows into arrays, with few large reads.

        Parameters
        ----------
        rows
            (n,) rows, in any order, repeated or not.
        targets
            (n,) positions in ``data`` and ``indices`` of the first number of each row.
        data, indices
            The arrays that are filled.

        Raises
        ------
        OSError, ValueError
            If a file cannot be read, or names a gene that does not exist.
        """
        order = np.argsort(rows, kind="stable")
        rows, targets = rows[order], targets[order]
        starts, stops = self.indptr[rows], self.indptr[rows + 1]
        with OpenFiles() as files:
            for first, last in find_runs(starts, stops):
                begin, end = int(starts[first]), int(stops[last - 1])
                follows = (starts[first + 1 : last] == stops[first : last - 1]) & (
                    np.diff(targets[first:last]) == (stops - starts)[first : last - 1]
                )
                # Rows that are adjacent on disk and in the result are copied together.
                pieces = first + np.flatnonzero(np.append(True, ~follows))
                for array, out in ((self.data, data), (self.indices, indices)):
                    if len(pieces) == 1 and out.dtype == array.dtype:
                        at = int(targets[first])
                        values = array.read(begin, end, files, out[at : at + end - begin])
                    else:
                        values = array.read(begin, end, files)
                        copy_pieces(
                            values,
                            out,
                            (starts[pieces] - begin).tolist(),
                            targets[pieces].tolist(),
                            (stops[np.append(pieces[1:], last) - 1] - starts[pieces]).tolist(),
                        )
                    largest = values.max(initial=0) if array is self.indices else 0
                    # SciPy does not check indices later, and would read out of bounds.
                    if largest >= self.n_genes:
                        raise ValueError(f"{self.name}: names gene {largest} of {self.n_genes}")


def copy_pieces(
    values: np.ndarray,
    out: np.ndarray,
    sources: Sequence[int],
    targets: Sequence[int],
    lengths: Sequence[int],
) -> None:
    """Copy pieces of an array to other places of another."""
    for source, target, length in zip(sources, targets, lengths, strict=True):
        out[target : target + length] = values[source : source + length]


def find_runs(starts: np.ndarray, stops: np.ndarray) -> Iterator[tuple[int, int]]:
    """Group rows that are close on disk: the first and the last + 1 of each group.

    Parameters
    ----------
    starts, stops
        (n,) bounds of the rows on disk, ascending.
    """
    if not len(starts):
        return
    first = 0
    begin = int(starts[0])
    far = starts[1:] - stops[:-1] > GAP
    for i in range(1, len(starts)):
        if far[i - 1] or stops[i] - begin > PER_READ:
            yield first, i
            first, begin = i, int(starts[i])
    yield first, len(starts)


class Buffers:
    """Memory for arrays that is used again, because the system clears new memory page by page."""

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}

    def take(self, name: str, length: int, dtype: np.dtype[Any]) -> np.ndarray:
        """Return an array; its content is lost at the next call with the same name."""
        n_bytes = length * dtype.itemsize
        if name not in self._arrays or len(self._arrays[name]) < n_bytes:
            self._arrays[name] = np.empty(n_bytes + n_bytes // 8, dtype=np.uint8)
        return self._arrays[name][:n_bytes].view(dtype)


class Cells(NamedTuple):
    """Counts of some cells and one modality, as on disk: the arrays of a CSR matrix."""

    data: np.ndarray
    """Counts, of an unsigned type."""
    indices: np.ndarray
    """Genes, of an unsigned type."""
    indptr: np.ndarray
    """(cells + 1,) int64."""

    def take(self, rows: np.ndarray) -> Cells:
        """Copy some cells, in the order of the rows."""
        starts, stops = self.indptr[rows], self.indptr[rows + 1]
        indptr = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(stops - starts, out=indptr[1:])
        data, indices = (np.empty(indptr[-1], array.dtype) for array in (self.data, self.indices))
        bounds = zip(starts.tolist(), stops.tolist(), indptr.tolist(), strict=False)
        for start, stop, target in bounds:
            data[target : target + stop - start] = self.data[start:stop]
            indices[target : target + stop - start] = self.indices[start:stop]
        return Cells(data, indices, indptr)

    def to_csr(self, n_genes: int) -> sparse.csr_matrix:
        """Return the matrix (cells, genes)."""
        indices = self.indices.astype(np.int32)  # SciPy has no 16-bit indices
        shape = (len(self.indptr) - 1, n_genes)
        return sparse.csr_matrix((self.data, indices, self.indptr), shape=shape)


class Shard:
    """A sample of :func:`write_shard`, opened for reading; its matrices on first access.

    Parameters
    ----------
    path
        Folder.

    Attributes
    ----------
    path : Path
        As given.
    id, vocabulary, gene_table : str
        Hashes of the sample, of the genes, and of their symbols, lengths and numbers of TSSs.
    shape : tuple of int
        (cells, genes).

    Raises
    ------
    InputError
        If it is missing, or not a sample of this version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise InputError("CORPUS", f"{self.path}: is missing; run the workflow again.")
        stamp = read_zarr_stamp(self.path)
        with reading("CORPUS", self.path, UNREADABLE, REMEDY):
            self.id, self.vocabulary = stamp["id"], stamp["vocabulary_sha256"]
            self.gene_table = stamp["gene_table_sha256"]
            self.shape = int(stamp["n_cells"]), int(stamp["n_genes"])

    @cached_property
    def counts(self) -> dict[str, CountsOnDisk]:
        """Counts of each modality of :data:`PLACES`."""
        with reading("CORPUS", self.path, UNREADABLE, REMEDY):
            return {
                modality: CountsOnDisk(self.path / place, self.shape)
                for modality, place in PLACES.items()
            }

    def read_table(self, name: str) -> pd.DataFrame:
        """Read ``obs`` or ``var``."""
        return self._read(name)

    def read_columns(self) -> list[str]:
        """Read the names of the columns of ``obs``."""
        with reading("CORPUS", self.path, UNREADABLE, REMEDY):
            content = json.loads((self.path / "obs" / "zarr.json").read_text())
            return list(content["attributes"]["column-order"])

    def read_positions(self) -> np.ndarray | None:
        """Read ``obsm["spatial"]``, (cells, 2 or more); None if there are no positions."""
        return self._read("obsm/spatial") if (self.path / "obsm" / "spatial").exists() else None

    def _read(self, name: str) -> Any:
        from anndata.io import read_elem

        with reading("CORPUS", self.path, UNREADABLE, REMEDY):
            return read_elem(open_zarr(self.path, name))

    def copy_rows(
        self,
        modality: str,
        rows: np.ndarray,
        targets: np.ndarray,
        data: np.ndarray,
        indices: np.ndarray,
    ) -> None:
        """Copy rows of a modality; see :meth:`CountsOnDisk.copy_rows`."""
        with reading("CORPUS", self.path, UNREADABLE, REMEDY):
            self.counts[modality].copy_rows(rows, targets, data, indices)


def read_rows(
    shards: Sequence[Shard],
    which: np.ndarray,
    rows: np.ndarray,
    modality: str,
    buffers: Buffers | None = None,
) -> Cells:
    """Read cells of several samples in a given order.

    Parameters
    ----------
    shards
        The samples.
    which, rows
        (n,) number of the sample, and row in it, of each cell.
    modality
        Of :data:`PLACES`.
    buffers
        Memory for the result, which is valid until the next call with them.

    Returns
    -------
    Cells
        The cells, in the given order.

    Raises
    ------
    InputError
        Naming the sample that cannot be read.
    """
    lengths = np.zeros(len(rows), dtype=np.int64)
    used = [(int(i), np.flatnonzero(which == i)) for i in np.unique(which)]
    for i, here in used:
        indptr = shards[i].counts[modality].indptr
        lengths[here] = indptr[rows[here] + 1] - indptr[rows[here]]
    indptr = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(lengths, out=indptr[1:])
    opened = [shards[i].counts[modality] for i, _ in used]
    buffers = buffers or Buffers()
    data, indices = (
        buffers.take(
            f"{modality} {name}",
            int(indptr[-1]),
            np.result_type(np.uint8, *(getattr(counts, name).dtype for counts in opened)),
        )
        for name in ("data", "indices")
    )
    for i, here in used:
        shards[i].copy_rows(modality, rows[here], indptr[:-1][here], data, indices)
    return Cells(data, indices, indptr)
