"""The corpus on disk as the model reads it: bins of RNA and promoters, and the vocabulary."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import zarr
from scipy import sparse

from scdyn.errors import InputError, reading
from scdyn.io.artefacts import STAMP, make_stamp
from scdyn.io.files import atomic, sha256, write_json, write_table
from scdyn.pp.counts import promoters_measured
from scdyn.pp.reference import read_vocabulary

MODALITIES = {"rna": "rna_log", "promoter": "promoter_log"}
# Bin of a modality that was not measured in a cell. It is larger than all ids of a model; 0 means
# measured without counts.
NOT_MEASURED = 255
INDEX_DTYPES = ("uint16", "int32")
CELLS_AT_ONCE = 1024
# Values read before the pages of the mapped files are released.
MAPPED_VALUES = 2**24
UNREADABLE = "the tokens cannot be read"
REMEDY = "remove the folder and run the workflow again"


def bin_values(values: sparse.spmatrix, n_bins: int) -> sparse.csr_matrix:
    """Bin log-normalised values as the paper does: bin = ceil(value), at most ``n_bins``.

    Zero stays zero, so the result is as sparse as the input.
    """
    binned = sparse.csr_matrix(values, copy=True)
    binned.sort_indices()
    binned.data = np.clip(np.ceil(binned.data), 0, n_bins)
    binned = binned.astype(np.uint8)
    binned.eliminate_zeros()
    return binned


def add_regulons(genes: pd.DataFrame, regulons: pd.DataFrame) -> pd.DataFrame:
    """Add a column ``regulons`` to the vocabulary: the regulons that each gene is a target of."""
    ordered = regulons.sort_values(["target", "regulon"])
    of_gene = ordered.groupby("target")["regulon"].agg(",".join)
    return genes.assign(regulons=genes["symbol"].map(of_gene).fillna(""))


def regulon_weights(genes: pd.DataFrame, regulons: pd.DataFrame) -> pd.DataFrame:
    """Make the matrix of regulon weights over the vocabulary.

    Parameters
    ----------
    genes
        The vocabulary.
    regulons
        ``regulon``, ``tf``, ``target``, ``weight``.

    Returns
    -------
    DataFrame of float32, (regulons, genes)
        Weights of a regulon's targets relative to the largest; 1 for the TF. Rows are named by
        regulon, in the order of ``regulons``.
    """
    row = pd.Series(np.arange(len(genes)), index=genes["symbol"])
    row = row[~row.index.duplicated()]
    names = regulons["regulon"].unique()
    weights = np.zeros((len(names), len(genes)), dtype=np.float32)
    for i, (_, members) in enumerate(regulons.groupby("regulon", sort=False)):
        weights[i, row[members["target"]]] = members["weight"] / members["weight"].max()
        weights[i, row[members["tf"].iloc[0]]] = 1.0
    return pd.DataFrame(weights, index=names)


def hash_vocabulary(genes: pd.DataFrame) -> str:
    """Hash the gene ids, their order and which are TFs, on which a model's parameters depend."""
    text = "\n".join(
        f"{gene}\t{bool(tf)}" for gene, tf in zip(genes["gene_id"], genes["is_tf"], strict=True)
    )
    return hashlib.sha256(text.encode()).hexdigest()


def chunk_file(array: Path) -> Path:
    """Return the file of an array that is one uncompressed chunk; it has the values only."""
    return array / "c" / "0"


def write_cell_arrays(group: zarr.Group, names: np.ndarray, promoter_measured: np.ndarray) -> None:
    """Write the per-cell arrays (cells,): names, and whether promoters were measured."""
    for name, values in (("cells", names), ("promoter_measured", promoter_measured)):
        group.create_array(
            name,
            data=values,
            chunks=(max(len(values), 1),),
            compressors=None,
            config={"write_empty_chunks": True},  # so that a missing chunk is an error
        )


def write_bins(group: zarr.Group, values: sparse.spmatrix, n_bins: int) -> None:
    """Bin a modality's values and write them as the CSR arrays data, indices and indptr.

    Parameters
    ----------
    group
        Group of the modality; the arrays are written to it.
    values
        (cells, genes) log-normalised; binned :data:`CELLS_AT_ONCE` cells at a time.
    n_bins
        Highest bin.
    """
    values = sparse.csr_matrix(values)
    folder = Path(group.store.root) / group.path
    dtypes = {"data": "uint8", "indices": index_dtype(values.shape[1]), "indptr": "int64"}
    for name in dtypes:
        chunk_file(folder / name).parent.mkdir(parents=True)
    # Written without zarr, which holds a whole chunk in memory and leaves out chunks of zeros.
    n_kept = 0
    with (
        chunk_file(folder / "data").open("wb") as data,
        chunk_file(folder / "indices").open("wb") as indices,
        chunk_file(folder / "indptr").open("wb") as indptr,
    ):
        indptr.write(bytes(8))  # the first pointer is 0
        for start in range(0, values.shape[0], CELLS_AT_ONCE):
            bins = bin_values(values[start : start + CELLS_AT_ONCE], n_bins)
            data.write(bins.data)
            indices.write(bins.indices.astype(np.dtype(dtypes["indices"]).newbyteorder("<")))
            indptr.write(bins.indptr[1:].astype("<i8") + n_kept)
            n_kept += bins.nnz
    lengths = {"data": n_kept, "indices": n_kept, "indptr": values.shape[0] + 1}
    for name, dtype in dtypes.items():
        length = lengths[name]
        group.create_array(
            name, shape=(length,), chunks=(max(length, 1),), dtype=dtype, compressors=None
        )


def index_dtype(n_genes: int) -> str:
    """Return the smallest type of :data:`INDEX_DTYPES` that holds indices of so many genes."""
    return INDEX_DTYPES[n_genes > 2**16]


def write_tokens(
    cells: ad.AnnData,
    genes: pd.DataFrame,
    regulons: pd.DataFrame,
    n_bins: int,
    source: Path,
    folder: Path,
) -> None:
    """Write the vocabulary and the bins of the cells.

    Parameters
    ----------
    cells
        Corpus with the normalised layers, and ``promoter_source`` in ``obs``.
    genes, regulons
        The vocabulary, and the regulons: ``regulon``, ``tf``, ``target``, ``weight``.
    n_bins
        Highest bin.
    source
        The file of the corpus; its hash is written to ``meta.json``.
    folder
        Written atomically: ``vocabulary.tsv``, ``tokens.zarr`` (uint8 bins as CSR per modality,
        each array one uncompressed chunk; per cell its name and whether promoters were measured)
        and ``meta.json``.

    Raises
    ------
    InputError
        If the corpus has another vocabulary.
    """
    if not cells.var_names.equals(pd.Index(genes["gene_id"])):
        raise InputError("CORPUS", "the corpus has other genes than this genes.tsv; remake it.")
    with atomic(folder) as temporary:
        temporary.mkdir()
        write_table(temporary / "vocabulary.tsv", add_regulons(genes, regulons))
        store = zarr.open_group(str(temporary / "tokens.zarr"), mode="w")
        names = cells.obs_names.to_numpy(dtype=np.dtypes.StringDType())
        measured = promoters_measured(cells.obs).astype(np.uint8)
        write_cell_arrays(store, names, measured)
        for modality, layer in MODALITIES.items():
            write_bins(store.create_group(modality), cells.layers[layer], n_bins)
        meta = {
            "n_cells": cells.n_obs,
            "n_promoter_measured": int(measured.sum()),
            "n_genes": len(genes),
            "n_tfs": int(genes["is_tf"].sum()),
            "n_bins": n_bins,
            "binning": "ceil(value), 0 for zero, at most n_bins",
            "normalisation": {"rna": "TPM, log1p", "promoter": "per TSS, CPM, log1p"},
            "vocabulary_sha256": hash_vocabulary(genes),
            "corpus_sha256": sha256(source),
            STAMP: make_stamp(),
        }
        write_json(temporary / "meta.json", meta)


class MappedBins:
    """Bins of one modality in memory-mapped files, read on access.

    Parameters
    ----------
    folder
        The modality's arrays data, indices and indptr, each one uncompressed chunk.
    shape
        (cells, genes).

    Raises
    ------
    OSError, LookupError, ValueError
        If the files are missing, truncated, of another format, or do not fit each other.
    """

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._maps: list[mmap.mmap] = []
        self._taken = 0
        arrays = [self._map(folder / name) for name in ("data", "indices", "indptr")]
        self.data, self.indices, self.indptr = arrays
        if [a.dtype.name for a in arrays] != ["uint8", index_dtype(shape[1]), "int64"]:
            raise ValueError(f"the arrays of {folder.name} have other types")
        if len(self.indptr) != shape[0] + 1:
            raise ValueError(f"{folder.name} has {len(self.indptr) - 1} cells, not {shape[0]}")
        if not len(self.data) == len(self.indices) == self.indptr[-1]:
            raise ValueError(f"the arrays of {folder.name} have different lengths")

    def _map(self, folder: Path) -> np.ndarray:
        """Map one array, read-only."""
        layout = json.loads((folder / "zarr.json").read_text())
        (length,) = layout["shape"]
        name = f"{folder.parent.name}/{folder.name}"
        whole = layout["chunk_grid"]["configuration"]["chunk_shape"] == [max(length, 1)]
        if not whole or [codec["name"] for codec in layout["codecs"]] != ["bytes"]:
            raise ValueError(f"{name} is compressed, as older versions wrote it")
        dtype = np.dtype(layout["data_type"]).newbyteorder("<")
        size, expected = chunk_file(folder).stat().st_size, length * dtype.itemsize
        if size != expected:
            raise ValueError(f"{name} is {size} bytes long and not {expected}")
        # mmap rejects empty files.
        if not length:
            return np.empty(0, dtype)
        with chunk_file(folder).open("rb") as file:
            self._maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return np.frombuffer(self._maps[-1], dtype)

    def take(self, rows: np.ndarray | slice) -> sparse.csr_matrix:
        """Copy rows, in any order, repeated or not, into a matrix of uint8, (rows, genes)."""
        starts, stops = self.indptr[:-1][rows], self.indptr[1:][rows]
        offsets = np.zeros(len(starts) + 1, dtype=np.int64)
        np.cumsum(stops - starts, out=offsets[1:])
        # Runs of rows that are adjacent in the files are copied together.
        begins = np.ones(len(starts), dtype=bool)
        begins[1:] = starts[1:] != stops[:-1]
        first = np.flatnonzero(begins)
        last = np.append(first, len(starts))[1:]
        sources, targets, ends = starts[first], offsets[first], offsets[last]
        data = np.empty(offsets[-1], dtype=np.uint8)
        # SciPy has no 16-bit indices.
        indices = np.empty(offsets[-1], dtype=np.int32)
        for source, target, end in zip(
            sources.tolist(), targets.tolist(), ends.tolist(), strict=True
        ):
            data[target:end] = self.data[source : source + end - target]
            indices[target:end] = self.indices[source : source + end - target]
        self._release(len(data))
        return sparse.csr_matrix((data, indices, offsets), shape=(len(starts), self.shape[1]))

    def _release(self, n_values: int) -> None:
        """Release the pages that were read, so that they do not count as the process' memory.

        They stay in the system's page cache.
        """
        self._taken += n_values
        if self._taken > MAPPED_VALUES:
            self._taken = 0
            for mapped in self._maps:
                mapped.madvise(mmap.MADV_DONTNEED)


class TokenStore:
    """Bins of a corpus, opened for reading: the files are memory-mapped, not loaded.

    Parameters
    ----------
    folder
        Folder that :func:`write_tokens` wrote.

    Attributes
    ----------
    folder : Path
        As given.
    meta : dict
        Content of ``meta.json``.
    cells : Index
        Names of the cells, read on first access.

    Raises
    ------
    InputError
        If files of the folder are missing, truncated, of an older version or of another
        vocabulary.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        store = self.folder / "tokens.zarr"
        with reading("CORPUS", self.folder, UNREADABLE, REMEDY):
            self.meta = json.loads((self.folder / "meta.json").read_text())
            n_cells, n_genes = self.meta["n_cells"], self.meta["n_genes"]
            self._bins = [MappedBins(store / name, (n_cells, n_genes)) for name in MODALITIES]
            self._cells, measured = (
                self._open_cell_array(store / name) for name in ("cells", "promoter_measured")
            )
            self._measured = measured[:] > 0

    def _open_cell_array(self, folder: Path) -> zarr.Array:
        """Open an array with one value per cell."""
        # Only format 3, because format 2 has a codec that unpickles.
        array = zarr.open_array(str(folder), mode="r", zarr_format=3)
        n_cells = self.meta["n_cells"]
        # Zarr reads a missing chunk as empty values.
        if not (chunk_file(folder).exists() or n_cells == 0) or array.shape != (n_cells,):
            raise ValueError(f"{folder.name} does not have {n_cells} cells")
        return array

    @cached_property
    def cells(self) -> pd.Index:
        """Names of the cells."""
        with reading("CORPUS", self.folder, UNREADABLE, REMEDY):
            return pd.Index(self._cells[:].astype(object))

    @cached_property
    def vocabulary(self) -> pd.DataFrame:
        """Genes of the bins, in their order, with the regulons of each."""
        path = self.folder / "vocabulary.tsv"
        genes = read_vocabulary(path)
        if hash_vocabulary(genes) != self.meta["vocabulary_sha256"]:
            raise InputError("CORPUS", f"{path}: is not the vocabulary of these tokens; {REMEDY}.")
        return genes

    def require_corpus(self, path: str | Path) -> None:
        """Refuse tokens that were made from another corpus.

        Raises
        ------
        InputError
            If the hash of the file ``path`` is not the one in ``meta.json``.
        """
        if sha256(path) != self.meta["corpus_sha256"]:
            raise InputError(
                "CORPUS",
                f"{self.folder}: these tokens were made from another corpus than {path}; {REMEDY}.",
            )

    def find_rows(self, names: Iterable[str]) -> np.ndarray:
        """Find the rows of cells by name.

        Raises
        ------
        InputError
            If a cell is not in the store.
        """
        wanted = pd.Index(names)
        rows = self.cells.get_indexer(wanted)
        if (rows < 0).any():
            raise InputError(
                "CORPUS",
                f"{self.folder}: {(rows < 0).sum()} of {len(wanted)} cells are not among these "
                f"tokens, such as {wanted[rows < 0][0]}; run the workflow again.",
            )
        return rows

    def promoter_measured(self, rows: np.ndarray) -> np.ndarray:
        """Tell per cell (rows,) whether promoters were measured."""
        return self._measured[rows]

    def read(self, rows: np.ndarray | None = None) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """Read the bins of some cells.

        Parameters
        ----------
        rows
            Positions in ``cells``, in any order, repeated or not; all cells if None.

        Returns
        -------
        rna, promoter : csr_matrix of uint8, (rows, genes)

        Raises
        ------
        IndexError
            If there is no such row.
        """
        rna, promoter = (bins.take(slice(None) if rows is None else rows) for bins in self._bins)
        return rna, promoter
