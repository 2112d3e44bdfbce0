"""The corpus: samples that are analysed together, whose counts stay in the samples' own files."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from scdyn.errors import InputError, reading
from scdyn.io.artefacts import (
    STAMP,
    make_stamp,
    read_parquet,
    read_parquet_stamp,
    writing_parquet,
)
from scdyn.io.checks import require_counts
from scdyn.io.files import write_json
from scdyn.io.shards import (
    CELLS_AT_ONCE,
    PLACES,
    REMEDY,
    Buffers,
    Cells,
    Shard,
    read_rows,
    write_shard,
)
from scdyn.log import logger
from scdyn.pp.counts import (
    SIZES,
    describe_sizes,
    find_depth,
    log_normalise,
    promoters_measured,
)
from scdyn.pp.obs_columns import METRICS, WHOLE_METRICS

if TYPE_CHECKING:
    from scdyn.data.tokens import TokenStore

T = TypeVar("T")

# Columns of ``obs``: what is measured. Labels and covariates are in a separate table.
MEASURED = ("sample", "barcode", "promoter_source", *METRICS)
# Layers of a block: the counts of a modality, and their log-normalised values.
LAYERS = {layer: modality for modality in PLACES for layer in (modality, f"{modality}_log")}
MANIFEST, OBS = "manifest.json", "obs.parquet"


class Block(NamedTuple):
    """Some cells of a corpus."""

    rows: np.ndarray
    """(cells,) rows of the corpus."""
    layers: dict[str, sparse.csr_matrix]
    """Name of :data:`LAYERS` to (cells, genes)."""


class Corpus:
    """Samples that are analysed together, over one vocabulary.

    Parameters
    ----------
    folder
        From :meth:`write`, or ``results/corpus/NAME`` of a run of the workflow; or its
        ``manifest.json``.

    Attributes
    ----------
    folder : Path
        Holds ``manifest.json`` (the samples in their order, and where their counts are) and
        ``obs.parquet`` (what is measured per cell). The counts stay in the samples' files.
    id, vocabulary : str
        Hashes of the samples' counts and of the genes.
    shards : list of Shard
        The samples.
    offsets : ndarray of int64, (samples + 1,)
        Row of each sample's first cell.

    Raises
    ------
    InputError
        If the folder is not a corpus, or a sample is missing, of another vocabulary, or was
        ingested again.

    Examples
    --------
    >>> corpus = scdyn.Corpus.write("corpus", samples)
    >>> regulons = scdyn.grn.infer_regulons(corpus)
    >>> corpus.add_regulons(regulons)
    >>> model = scdyn.pretrain(corpus, "model")
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self.folder = folder.parent if folder.name == MANIFEST else folder
        path = self.folder / MANIFEST
        if not path.exists():
            raise InputError(
                "CORPUS", f"{self.folder}: is not a corpus; write one with scdyn.Corpus.write."
            )
        with reading("CORPUS", path, "is not the manifest of a corpus", REMEDY):
            manifest = json.loads(path.read_text())
            self.id, self.vocabulary = manifest["id"], manifest["vocabulary_sha256"]
            samples = manifest["samples"]
            sizes = [int(sample["n_cells"]) for sample in samples]
            ids = [str(sample["id"]) for sample in samples]
            places = [str(sample["path"]) for sample in samples]
            if not samples or hash_ids(ids) != self.id:
                raise ValueError("its samples are not those of its id")
        self.offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        # Resolved, because ".." in a path leads elsewhere if the folder is a link.
        real = self.folder.resolve()
        self.shards = [Shard(os.path.normpath(real / place)) for place in places]
        self.n_genes = self.shards[0].shape[1]
        for shard, of_counts, n_cells in zip(self.shards, ids, sizes, strict=True):
            require_vocabulary(shard, self.vocabulary)
            if shard.id != of_counts or shard.shape[0] != n_cells:
                raise InputError(
                    "CORPUS",
                    f"{shard.path}: was ingested again after {path} was written; make the corpus "
                    "again.",
                )

    def __len__(self) -> int:
        """Count the cells."""
        return int(self.offsets[-1])

    def __repr__(self) -> str:
        """Summarise the corpus."""
        return (
            f"Corpus({len(self):,} cells of {len(self.shards)} samples, {self.n_genes:,} genes, in "
            f"{self.folder})"
        )

    @classmethod
    def write(cls, folder: str | Path, samples: Iterable[ad.AnnData]) -> Self:
        """Write samples to a folder, each with its counts, and open their corpus.

        Parameters
        ----------
        folder
            Is created if it does not exist.
        samples
            From :func:`scdyn.pp.filter_cells`; of a generator one is in memory at a time.

        Raises
        ------
        InputError
            If there is no sample, one is not as :func:`scdyn.pp.filter_cells` returns it, the
            samples have different vocabularies, or two have a cell of the same name.
        """
        folder, paths = Path(folder), []
        for sample in samples:
            require_sample(sample)
            path = folder / "samples" / f"{sample.obs['sample'].iloc[0]}.zarr"
            if path in paths:
                raise InputError("CORPUS", f"sample {path.stem} is given twice; give it once.")
            write_shard(path, describe_sizes(sample))
            paths.append(path)
        make_corpus(folder, paths)
        corpus = cls(folder)
        corpus.add_regulons(None)
        return corpus

    def add_regulons(self, regulons: pd.DataFrame | None) -> None:
        """Write the vocabulary with its regulons, as the model reads it, to ``tokens/``.

        Parameters
        ----------
        regulons
            From :func:`scdyn.grn.infer_regulons`; None: the latents of the model start at random.
        """
        from scdyn.data.tokens import write_tokens

        write_tokens(self.folder / "tokens", self.genes, regulons)
        self.__dict__.pop("store", None)

    @cached_property
    def store(self) -> TokenStore:
        """The cells as the model reads them, with the vocabulary and regulons of ``tokens/``."""
        from scdyn.data.tokens import TokenStore

        return TokenStore(self.folder / "tokens", self)

    @cached_property
    def obs(self) -> pd.DataFrame:
        """The columns of :data:`MEASURED` that a sample has, one row per cell, by name."""
        if read_parquet_stamp(self.folder / OBS).get("corpus") != self.id:
            raise InputError(
                "CORPUS",
                f"{self.folder / OBS}: is of another corpus than the manifest; {REMEDY}.",
            )
        obs = read_parquet(self.folder / OBS)
        if len(obs) != len(self):
            raise InputError(
                "CORPUS", f"{self.folder / OBS}: has {len(obs)} of {len(self)} cells; {REMEDY}."
            )
        obs.index.name = None  # rename_axis would copy the table
        return obs

    @cached_property
    def genes(self) -> pd.DataFrame:
        """The vocabulary: ``gene_id``, ``symbol``, ``is_tf``, ``length``, ``n_tss`` and others."""
        return self.shards[0].read_table("var").rename_axis("gene_id").reset_index()

    @cached_property
    def sizes(self) -> dict[str, np.ndarray]:
        """Total counts, (cells,) float64 per modality; zero where promoters were not measured."""
        sizes = {modality: np.zeros(len(self)) for modality in SIZES}
        for modality, name in SIZES.items():
            known = np.arange(len(self)) if modality == "rna" else np.flatnonzero(self.measured)
            if len(known):
                sizes[modality][known] = self.obs[name].to_numpy()[known]
        return sizes

    @cached_property
    def depths(self) -> dict[str, float]:
        """Depth to which the counts of a modality are scaled: the median of the cells' totals."""
        return {modality: find_depth(sizes) for modality, sizes in self.sizes.items()}

    @cached_property
    def measured(self) -> np.ndarray:
        """Whether promoters were measured, (cells,)."""
        return promoters_measured(self.obs)

    def find_rows(self, names: Sequence[str] | pd.Index) -> np.ndarray:
        """Find the rows of cells by name.

        Raises
        ------
        InputError
            If a cell is not in the corpus.
        """
        wanted = pd.Index(names, dtype=object)
        unique = wanted.unique()
        # The table of the fewer names is hashed.
        places = unique.get_indexer(self.obs.index)
        of_unique = np.full(len(unique), -1, dtype=np.int64)
        found = np.flatnonzero(places >= 0)
        of_unique[places[found]] = found
        if (of_unique < 0).any():
            missing = unique[of_unique < 0]
            raise InputError(
                "CORPUS",
                f"{self.folder}: {len(missing)} of {len(unique)} cells are not in this corpus, "
                f"such as {missing[0]}; run the workflow again.",
            )
        return of_unique[unique.get_indexer(wanted)]

    def read(self, rows: np.ndarray, modality: str, buffers: Buffers | None = None) -> Cells:
        """Read the counts of cells, in the order of the rows.

        Parameters
        ----------
        rows
            (n,) rows, in any order, repeated or not.
        modality
            "rna" or "promoter".
        buffers
            See :func:`scdyn.io.shards.read_rows`.

        Raises
        ------
        IndexError
            If a row is negative or not in the corpus, or the rows are not integers.
        """
        rows = check_rows(rows, len(self))
        which = np.searchsorted(self.offsets, rows, side="right") - 1
        return read_rows(self.shards, which, rows - self.offsets[which], modality, buffers)

    def iter_blocks(
        self,
        rows: np.ndarray | None = None,
        layers: Sequence[str] = ("rna", "promoter"),
        size: int = CELLS_AT_ONCE,
    ) -> Iterator[Block]:
        """Read cells in blocks, the next one while the current one is used.

        Parameters
        ----------
        rows
            Rows of the cells; all if None. Ascending rows are read fastest.
        layers
            Of :data:`LAYERS`.
        size
            Most cells per block.

        Yields
        ------
        Block
            In the order of the rows.
        """
        parts = cut_rows(np.arange(len(self)) if rows is None else np.asarray(rows), size)
        yield from map_ahead(lambda part: self._read_block(part, layers), parts)

    def _read_block(self, rows: np.ndarray, layers: Sequence[str]) -> Block:
        """Read the layers of some cells."""
        result: dict[str, sparse.csr_matrix] = {}
        for modality in dict.fromkeys(LAYERS[layer] for layer in layers):
            counts = self.read(rows, modality).to_csr(self.n_genes)
            if modality in layers:
                result[modality] = counts
            if f"{modality}_log" in layers:
                sizes = self.sizes[modality][rows]
                result[f"{modality}_log"] = log_normalise(counts, sizes, self.depths[modality])
        return Block(rows, result)

    def to_memory(
        self, rows: np.ndarray | None = None, layers: Sequence[str] = ("rna", "promoter")
    ) -> ad.AnnData:
        """Read some cells at once.

        Parameters
        ----------
        rows, layers
            As :meth:`iter_blocks`.

        Returns
        -------
        AnnData
            RNA counts in ``X`` if they are among the layers; the other layers by name.
        """
        rows = np.arange(len(self)) if rows is None else np.asarray(rows)
        blocks = [block.layers for block in self.iter_blocks(rows, layers)]
        joined = {
            layer: sparse.vstack([block[layer] for block in blocks], format="csr")
            if blocks
            else sparse.csr_matrix((0, self.n_genes))
            for layer in layers
        }
        obs = self.obs.iloc[rows].copy()
        # anndata does not write pandas' strings by default.
        for name, column in obs.items():
            if isinstance(column.dtype, pd.StringDtype):
                obs[name] = column.astype(object)
        obs.index = obs.index.astype(object)
        var = self.genes.set_index("gene_id")
        return ad.AnnData(joined.pop("rna", None), obs=obs, var=var, layers=joined)


def check_rows(rows: np.ndarray, n_cells: int) -> np.ndarray:
    """Convert rows of a corpus of so many cells to int64.

    Raises
    ------
    IndexError
        If a row is negative or not in the corpus, or the rows are not integers.
    """
    rows = np.asarray(rows)
    if len(rows) and (rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= n_cells):
        raise IndexError(
            f"rows of a corpus are integers from 0 to {n_cells - 1}, not a mask or -1; see "
            "numpy.flatnonzero and Corpus.find_rows"
        )
    return rows.astype(np.int64)


def cut_rows(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut rows into parts of a size; the last may be smaller."""
    if size < 1:
        raise ValueError(f"size is {size}; it must be at least 1")
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def map_ahead(function: Callable[[np.ndarray], T], parts: Sequence[np.ndarray]) -> Iterator[T]:
    """Apply a function to parts in a thread, to the next one while the current result is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="blocks") as thread:
        ahead = [thread.submit(function, part) for part in parts[:1]]
        for i in range(len(parts)):
            result = ahead.pop().result()
            ahead += [thread.submit(function, part) for part in parts[i + 1 : i + 2]]
            yield result


def require_vocabulary(shard: Shard, vocabulary: str) -> None:
    """Refuse a sample whose genes are others than those of its corpus."""
    if shard.vocabulary != vocabulary:
        raise InputError(
            "CORPUS",
            f"{shard.path}: has another vocabulary than the corpus; ingest all samples with the "
            "same annotation.",
        )


def make_corpus(folder: str | Path, paths: Sequence[str | Path]) -> None:
    """Write the manifest of a corpus and its table of cells; no counts are copied.

    Parameters
    ----------
    folder
        Receives ``manifest.json`` and, before it, ``obs.parquet``.
    paths
        Samples of :func:`scdyn.io.shards.write_shard`, in their order.

    Raises
    ------
    InputError
        If there is no sample, the samples have different vocabularies, or two have a cell of the
        same name.
    """
    folder = Path(folder)
    if not paths:
        raise InputError("CORPUS", "no samples to join; give at least one.")
    shards = [Shard(path) for path in paths]
    for shard in shards:
        require_vocabulary(shard, shards[0].vocabulary)
        if shard.gene_table != shards[0].gene_table:
            raise InputError(
                "CORPUS",
                f"{shard.path}: its genes have other symbols, lengths or TSSs than those of "
                f"{shards[0].path}; ingest all samples with the same annotation.",
            )
    corpus_id = hash_ids([shard.id for shard in shards])
    n_cells = write_obs(folder / OBS, shards, corpus_id)
    manifest: dict[str, Any] = {
        "id": corpus_id,
        "vocabulary_sha256": shards[0].vocabulary,
        "n_cells": n_cells,
        "n_genes": shards[0].shape[1],
        "samples": [
            {
                "name": shard.path.stem,
                "path": os.path.relpath(shard.path.resolve(), folder.resolve()),
                "n_cells": shard.shape[0],
                "id": shard.id,
            }
            for shard in shards
        ],
        STAMP: make_stamp(),
    }
    write_json(folder / MANIFEST, manifest)
    logger.info("%d cells of %d samples, %d genes", n_cells, len(shards), shards[0].shape[1])


def write_obs(path: Path, shards: Sequence[Shard], corpus_id: str) -> int:
    """Write what is measured of the cells of samples, one sample at a time; return their number.

    The id of the corpus is in the stamp of the file.

    Raises
    ------
    InputError
        If two cells have the same name.
    """
    columns = [shard.read_columns() for shard in shards]
    known = [name for name in MEASURED if any(name in of_shard for of_shard in columns)]
    # A number that a sample lacks is not an integer.
    everywhere = set(known).intersection(*columns)
    # Hashes of the names, which would take ten times the memory.
    seen: list[np.ndarray] = []
    with writing_parquet(path, corpus=corpus_id) as write:
        for shard in shards:
            obs = shard.read_table("obs").reindex(columns=known)
            require_obs(obs, shard)
            write(to_small_types(obs, everywhere).rename_axis("cell"))
            seen.append(pd.util.hash_array(obs.index.to_numpy(dtype=object)))
        hashes = np.concatenate(seen)
        repeated = pd.Series(hashes).duplicated(keep=False).to_numpy()
        if repeated.any():
            ends = np.cumsum([0, *map(len, seen)])
            refuse_repeated(shards, [repeated[i:j] for i, j in zip(ends, ends[1:], strict=False)])
    return len(hashes)


def hash_ids(ids: Sequence[str]) -> str:
    """Make the id of a corpus from those of its samples, in their order."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def require_sample(cells: ad.AnnData) -> None:
    """Refuse cells that are not a sample, as :func:`scdyn.pp.filter_cells` returns it."""
    needed = {
        "obs": (cells.obs, ("sample", "promoter_source")),
        "var": (cells.var, ("symbol", "is_tf", "length", "n_tss")),
        "layers": (cells.layers, ("promoter",)),
    }
    for place, (found, columns) in needed.items():
        for name in columns:
            if name not in found:
                raise InputError(
                    "CORPUS", f"a sample has no {place}['{name}']; see scdyn.pp.filter_cells."
                )
    if not cells.n_obs:
        raise InputError("CORPUS", "a sample has no cells; leave it out.")
    for name in ("sample", "barcode", "promoter_source"):
        if name in cells.obs and cells.obs[name].isna().any():
            raise InputError("CORPUS", f"obs['{name}'] is missing in some cells; fill it in.")
    names = cells.obs["sample"].astype(str).unique()
    if len(names) != 1 or not re.fullmatch(r"[^/\0]*[^/\0.][^/\0]*", names[0]):
        raise InputError(
            "CORPUS",
            f"obs['sample'] has {len(names)} names, such as {list(names[:2])}; a sample has one "
            "name, without a slash.",
        )
    sizes = cells.var[["length", "n_tss"]].to_numpy(float)
    if not cells.var_names.is_unique or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise InputError(
            "CORPUS",
            f"sample {names[0]}: var has genes twice, or a length or n_tss that is not above zero; "
            "see scdyn.pp.build_vocabulary.",
        )
    is_tf = cells.var["is_tf"].to_numpy(bool)
    if is_tf[is_tf.sum() :].any():
        raise InputError(
            "CORPUS",
            f"sample {names[0]}: the TFs are not the first of its genes, as the model reads them; "
            "keep the order of scdyn.pp.build_vocabulary.",
        )
    for place, values in (("X", cells.X), ("layers['promoter']", cells.layers["promoter"])):
        require_counts(sparse.csr_matrix(values).data, f"sample {names[0]}, {place}")


def require_obs(obs: pd.DataFrame, shard: Shard) -> None:
    """Refuse a table of cells that is not of a sample."""
    if len(obs) != shard.shape[0]:
        raise InputError(
            "CORPUS",
            f"{shard.path}: obs has {len(obs)} rows for {shard.shape[0]} cells; ingest the sample "
            "again.",
        )


def refuse_repeated(shards: Sequence[Shard], suspected: Sequence[np.ndarray]) -> None:
    """Refuse cells of the same name among those of the same hash, (cells,) boolean per sample."""
    place_of: dict[str, Path] = {}
    for shard, here in zip(shards, suspected, strict=True):
        for name in shard.read_table("obs").index[here] if here.any() else ():
            if name in place_of:
                raise InputError(
                    "CORPUS",
                    f"duplicate cell {name} in {place_of[name]} and {shard.path}; give each sample "
                    "once, under its own name.",
                )
            place_of[name] = shard.path


def to_small_types(obs: pd.DataFrame, integers: Collection[str]) -> pd.DataFrame:
    """Convert numbers to 32 bits, and words to categories.

    Parameters
    ----------
    obs
        Of one sample.
    integers
        Columns that may be integers; others become floats.
    """
    kinds: dict[str, str] = {
        "sample": "category", "promoter_source": "category", "barcode": "str",
    }  # fmt: skip
    for name in obs.columns.intersection(METRICS):
        whole = name in integers and name in WHOLE_METRICS
        kinds[name] = "int32" if whole else "float32"
        values = pd.to_numeric(obs[name], errors="coerce") if whole else None
        if values is not None and not (values.between(0, 2**31 - 1) & (values % 1 == 0)).all():
            raise InputError(
                "CORPUS",
                f"sample {obs['sample'].iloc[0]}: {name} is not a whole number below 2^31 in every "
                "cell; compute it again.",
            )
    return obs.astype({name: kind for name, kind in kinds.items() if name in obs})
