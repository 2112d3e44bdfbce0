"""Ingestion: from the files of a sample to RNA and promoter counts over the vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem
from scipy import sparse

from scdyn.errors import InputError, reading
from scdyn.io import barcodes, tenx
from scdyn.io import fragments as fragment_files
from scdyn.io.checks import require_nonempty
from scdyn.io.features import (
    GENES,
    PEAKS,
    open_anndata,
    open_modality,
    refuse_10x,
    require_modality,
    require_one_genome,
)
from scdyn.io.hdf5 import open_hdf5
from scdyn.io.sample_files import (
    COLUMNS,
    Library,
    LibraryFiles,
    Matrix,
    choose_promoter_source,
    find_libraries,
    locate,
)
from scdyn.io.shards import CELLS_AT_ONCE
from scdyn.log import logger
from scdyn.pp.counts import NO_SOURCE, align_genes, extract_counts
from scdyn.pp.obs_columns import clean_columns, concatenate
from scdyn.pp.reference import find_genome_prefixes, make_promoter_windows, make_tss_rings


@dataclass(frozen=True)
class LibraryCounts:
    """The counts of one library.

    Attributes
    ----------
    rna
        RNA counts (cells, genes), with ``layers["promoter"]`` if promoter counts come from a
        layer.
    peaks
        Counts (cells, peaks); None if they are not used.
    fragments
        Path of the fragments file; empty if it is not used.
    source
        Source of the promoter counts; see :func:`scdyn.io.sample_files.choose_promoter_source`.
    """

    rna: ad.AnnData
    peaks: ad.AnnData | None
    fragments: str
    source: str


def read_library(
    library: Library, choose: tenx.ChooseColumns = tenx.keep_features
) -> LibraryCounts:
    """Read a library's RNA counts, and the peaks or layer of its promoter counts.

    Parameters
    ----------
    library
        As found by :func:`scdyn.io.sample_files.locate`.
    choose
        Chooses the columns that the counts of genes and of peaks are summed to.

    Raises
    ------
    InputError
        If a file cannot be read or has no counts.
    """
    read = {"10x": read_tenx, "h5ad": read_h5ad, "h5mu": read_h5mu}[library.kind]
    rna, peaks, source = read(library, choose)
    if library.peaks and source == "peaks":
        peaks = read_peaks(library.peaks, choose)
    return LibraryCounts(rna, peaks, library.fragments, source)


def read_tenx(
    library: Library, choose: tenx.ChooseColumns
) -> tuple[ad.AnnData, ad.AnnData | None, str]:
    """Read 10x formats: RNA counts, peak counts if they are used, and their source."""
    seen: dict[str, tuple[pd.DataFrame, tenx.Columns | None]] = {}

    def choose_used(kind: str, features: pd.DataFrame) -> tenx.Columns | None:
        # Peaks are not read if promoters are counted from another source, nor without genes.
        is_used = kind == GENES or (
            GENES in seen
            and not library.peaks
            and choose_promoter_source(library, (), has_peaks=True)[0] == "peaks"
        )
        columns = choose(kind, features) if is_used else None
        seen[kind] = features, columns
        return columns

    rna, peaks = tenx.read_matrix(library.rna, choose_used)
    if rna is None:
        raise InputError(
            "MATRIX",
            f"{library.rna}: has peaks but no genes; in the sample sheet, write the GEX output "
            "into path and the ATAC output into atac_path.",
        )
    source, _ = choose_promoter_source(library, (), PEAKS in seen)
    if library.unspliced:
        features, columns = seen[GENES]
        rna.layers["promoter"] = tenx.read_layer(
            library.unspliced, rna.obs_names, features["gene_ids"], columns
        )
    if library.metrics:
        rna.obs = rna.obs.join(tenx.read_metrics(Path(library.metrics), rna.obs_names))
    return rna, peaks, source


def read_h5ad(library: Library, choose: tenx.ChooseColumns) -> tuple[ad.AnnData, None, str]:
    """Read the counts of an ``.h5ad``; returns the same as :func:`read_tenx`."""
    path = library.rna.path
    with open_checked(path, "h5ad") as file:
        table = open_anndata(file)
        source, layer = choose_promoter_source(library, table.layers, has_peaks=False)
        rna = extract_counts(table, path, library.rna_layer, layer)
    return sum_to_columns(rna, GENES, choose), None, source


def read_h5mu(
    library: Library, choose: tenx.ChooseColumns
) -> tuple[ad.AnnData, ad.AnnData | None, str]:
    """Read the modalities ``rna`` and ``atac`` of an ``.h5mu``, as :func:`read_tenx` does.

    Labels in the joint ``obs``, where muon writes them, are added to those of the RNA, with
    ``rna:NAME`` as ``NAME``. Columns that the RNA already has are not replaced.
    """
    path, peaks = library.rna.path, None
    with open_checked(path, "h5mu") as file:
        modalities, obs = open_modalities(file), read_elem(file["obs"])
        require_modality("rna", modalities, path)
        rna, atac = modalities["rna"], modalities.get("atac")
        # Columns that begin with a modality's name are copies of its own, if it has them.
        others = tuple(f"{name}:" for name in modalities if name != "rna")
        joint = obs[~obs.index.duplicated()]
        joint = joint[[name for name in joint if not name.startswith(others)]]
        # Of ``NAME`` and ``rna:NAME``, the former takes precedence.
        joint = joint[sorted(joint, key=lambda name: name.startswith("rna:"))]
        joint.columns = [name.removeprefix("rna:") for name in joint]
        new = ~joint.columns.isin(rna.obs.columns) & ~joint.columns.duplicated()
        rna.obs = rna.obs.join(joint.loc[:, new])
        log_left_out(modalities, obs, path)
        source, layer = choose_promoter_source(library, rna.layers, atac is not None)
        if source == "peaks" and library.peaks is None:
            peaks = sum_to_columns(extract_counts(atac, path), PEAKS, choose)
        rna = extract_counts(rna, path, library.rna_layer, layer)
    return sum_to_columns(rna, GENES, choose), peaks, source


@contextmanager
def open_checked(path: str, kind: str) -> Iterator[h5py.File]:
    """Open an ``.h5ad`` or ``.h5mu``; whatever its readers raise ends in a sentence."""
    with reading("FORMAT", path, f"not a readable {kind}"), open_hdf5(path) as file:
        refuse_10x(file)
        yield file


def open_modalities(file: h5py.File) -> dict[str, ad.AnnData]:
    """Open the modalities of an ``.h5mu``."""
    return {name: open_anndata(part) for name, part in file["mod"].items()}


def sum_to_columns(table: ad.AnnData, kind: str, choose: tenx.ChooseColumns) -> ad.AnnData:
    """Sum counts and layers to the chosen columns, and let go of the table's own."""
    columns = choose(kind, table.var)
    if columns is None or columns.map is None:
        return table

    def sum_blocks(counts: sparse.csr_matrix) -> sparse.csr_matrix:
        starts = range(0, max(1, counts.shape[0]), CELLS_AT_ONCE)
        blocks = (counts[start : start + CELLS_AT_ONCE] for start in starts)
        return sparse.vstack([tenx.sum_to_columns(x, columns) for x in blocks], format="csr")

    obsm = dict(table.obsm)
    summed = ad.AnnData(sum_blocks(table.X), obs=table.obs, var=columns.var, obsm=obsm)
    table.X = None
    for name in list(table.layers):
        summed.layers[name] = sum_blocks(table.layers.pop(name))
    return summed


def log_left_out(modalities: Mapping[str, ad.AnnData], obs: pd.DataFrame, path: str) -> None:
    """Name the columns of the other modalities' cells that the RNA's have none of the name of."""
    kept, left_out = set(modalities["rna"].obs), []
    for modality in modalities.keys() - {"rna"}:
        prefix = f"{modality}:"
        copies = [name.removeprefix(prefix) for name in obs if name.startswith(prefix)]
        names = dict.fromkeys([*modalities[modality].obs, *copies])
        left_out += [f"{prefix}{name}" for name in names if name not in kept]
    if left_out:
        logger.info(
            "%s: ignoring obs columns of other modalities: %s; write labels into the obs of rna or "
            "of the file",
            path, ", ".join(sorted(left_out)),
        )  # fmt: skip


def read_peaks(matrix: Matrix, choose: tenx.ChooseColumns = tenx.keep_features) -> ad.AnnData:
    """Read peak counts from a separate file.

    Raises
    ------
    InputError
        If there are none.
    """
    path = matrix.path
    if path.endswith((".h5ad", ".h5mu")):
        with open_checked(path, path[-4:]) as file:
            peaks = extract_counts(open_anndata(open_modality(file, "atac")), path)
        return sum_to_columns(peaks, PEAKS, choose)

    def choose_peaks(kind: str, features: pd.DataFrame) -> tenx.Columns | None:
        return choose(kind, features) if kind == PEAKS else None

    _, peaks = tenx.read_matrix(matrix, choose_peaks)
    if peaks is None:
        raise InputError(
            "MATRIX",
            f"{matrix}: has genes but no peaks; in the sample sheet, write the GEX output into "
            "path and the ATAC output into atac_path.",
        )
    return peaks


def require_common_barcodes(
    pairing: barcodes.Pairing,
    rna: pd.Index,
    other: pd.Index,
    min_overlap: float,
    name: str,
    what: str,
) -> None:
    """Refuse modalities with too few barcodes in common.

    Raises
    ------
    InputError
        If the share of RNA barcodes in the other modality is below ``min_overlap``, showing five
        barcodes of each.
    """
    shared = f"{pairing.n_shared} of {len(rna)} RNA barcodes"
    logger.info("%s: %s are among those of the %s (%s)", name, shared, what, pairing.how)
    if pairing.n_shared < min_overlap * len(rna):
        raise InputError(
            "BARCODES",
            f"sample {name}: {'too few' if pairing.n_shared else 'no'} barcodes in common between "
            f"RNA and ATAC: only {shared} (such as {', '.join(rna[:5])}) are among those of the "
            f"{what} (such as {', '.join(other[:5])}), but ingest.min_barcode_overlap requires "
            f"{min_overlap:.0%}; use files of the same cells, or, if the barcodes of the two "
            "chemistries differ, name a table in ingest.barcode_translation.",
        )


def count_promoters(
    library: LibraryCounts,
    genes: pd.DataFrame,
    windows: pd.DataFrame,
    min_overlap: float,
    translation: Mapping[str, str] | None,
    name: str,
) -> tuple[sparse.csr_matrix, pd.DataFrame]:
    """Count promoter accessibility per cell, paired with the RNA by barcode.

    Parameters
    ----------
    library
        Counts over the vocabulary.
    genes, windows
        The vocabulary and its promoter windows.
    min_overlap, translation, name
        As for :func:`count_from_fragments`.

    Returns
    -------
    counts : csr_matrix
        (cells, genes of the vocabulary), in the order of the RNA's cells. Rows of barcodes that
        are missing in the second modality are empty.
    totals : DataFrame
        One row per cell: ``promoter_source``, one of "fragments", "promoter layer", "peaks", and
        "none" for missing barcodes; with fragments also the metrics of
        :func:`scdyn.io.fragments.count_insertions`.
    """
    rna, rest = library.rna, (min_overlap, translation, name)
    logger.info("%s: promoters: %s", name, library.source)
    if library.source == "fragments":
        return count_from_fragments(rna, Path(library.fragments), genes, windows, *rest)
    if library.peaks is not None:
        return pair_peaks(rna.obs_names, library.peaks, *rest)
    if "promoter" in rna.layers:
        counts = rna.layers["promoter"]
    else:
        counts = sparse.csr_matrix(rna.shape, dtype=np.int32)
    return counts, pd.DataFrame({"promoter_source": library.source}, index=rna.obs_names)


def count_from_fragments(
    rna: ad.AnnData,
    fragments: Path,
    genes: pd.DataFrame,
    windows: pd.DataFrame,
    min_overlap: float,
    translation: Mapping[str, str] | None,
    name: str,
) -> tuple[sparse.csr_matrix, pd.DataFrame]:
    """Count insertions in promoters; see :func:`count_promoters`.

    Parameters
    ----------
    rna
        Counts of the library's cells.
    fragments
        Path of the fragments file.
    genes, windows
        The vocabulary and its promoter windows.
    min_overlap
        Minimum share of RNA barcodes with fragments.
    translation
        RNA barcode of each ATAC barcode; see :func:`scdyn.io.barcodes.read_translation`.
    name
        The sample, for messages.

    Raises
    ------
    InputError
        If the fragments cannot be read, or belong to other cells or another genome.
    """
    blocks = islice(fragment_files.read_fragments(fragments), fragment_files.BLOCKS_SEEN)
    n_seen = fragment_files.count_barcodes(blocks)
    known = n_seen.index
    pairing = barcodes.pair_barcodes(rna.obs_names, known, translation)
    counts, totals = fragment_files.count_insertions(
        fragments, windows, len(genes), pairing.rna, pairing.form, make_tss_rings(genes)
    )
    found = (totals["fragments"] > 0).to_numpy()
    pairing = replace(pairing, n_shared=int(found.sum()))
    require_common_barcodes(pairing, rna.obs_names, known, min_overlap, name, "fragments")
    barcodes.refuse_background(pairing, n_seen, fragments)
    source = np.where(found, "fragments", NO_SOURCE)
    metrics = totals.drop(columns="insertions_in_promoters")  # the sum of the counts
    return counts, metrics.set_axis(rna.obs_names).assign(promoter_source=source)


def pair_peaks(
    cells: pd.Index,
    peaks: ad.AnnData,
    min_overlap: float,
    translation: Mapping[str, str] | None,
    name: str,
) -> tuple[sparse.csr_matrix, pd.DataFrame]:
    """Bring promoter counts from peaks into the order of the RNA; see :func:`count_promoters`.

    Parameters
    ----------
    cells
        Barcodes of the RNA.
    peaks
        Promoter counts (cells of the peaks, genes of the vocabulary).
    min_overlap, translation, name
        As for :func:`count_from_fragments`.

    Raises
    ------
    InputError
        If the peaks belong to other cells.
    """
    pairing = barcodes.pair_barcodes(cells, peaks.obs_names, translation)
    require_common_barcodes(pairing, cells, peaks.obs_names, min_overlap, name, "peaks")
    of_peaks = pd.Index(pairing.form(peaks.obs_names.to_series()))
    rows = of_peaks.get_indexer(pairing.rna)
    source = np.where(rows >= 0, "peaks", NO_SOURCE)
    return tenx.take_rows(peaks.X, rows), pd.DataFrame({"promoter_source": source}, index=cells)


def ingest_library(
    files: LibraryFiles,
    genes: pd.DataFrame,
    windows: pd.DataFrame,
    min_gene_overlap: float,
    min_barcode_overlap: float,
    translation: Mapping[str, str] | None,
    name: str,
) -> ad.AnnData:
    """Ingest one library; see :func:`ingest`. Cells are named by barcode."""
    located = locate(files)
    columns = genes.set_index("gene_id")

    def choose(kind: str, features: pd.DataFrame) -> tenx.Columns:
        if kind == PEAKS:
            to_genes = fragment_files.map_peaks(features.index, windows, len(genes))
            return tenx.Columns(to_genes, columns)
        require_one_genome(find_genome_prefixes(features.index.to_series()), located.rna.path)
        to_genes = align_genes(
            features, genes, min_gene_overlap, f"sample {name}", "ingest.min_gene_overlap"
        )
        return tenx.Columns(to_genes, columns)

    library = read_library(located, choose)
    rna = library.rna
    require_nonempty(rna.X.nnz, files.path)
    counts, totals = count_promoters(
        library, genes, windows, min_barcode_overlap, translation, name
    )
    # Columns of an input file can have any names and types; the metrics of 10x are our own.
    obs = rna.obs if files.kind == "10x" else clean_columns(rna.obs, files.path)
    rna.obs = obs.assign(**totals.set_axis(obs.index))
    rna.layers["promoter"] = counts
    return rna


def join_libraries(libraries: list[ad.AnnData]) -> ad.AnnData:
    """Join a sample's libraries; see :func:`scdyn.io.barcodes.join_barcodes`."""
    if len(libraries) == 1:
        return libraries[0]
    names = barcodes.join_barcodes([cells.obs_names for cells in libraries])
    obs = concatenate([cells.obs for cells in libraries]).set_axis(names)
    # One matrix at a time, because both copies of both would not fit into memory.
    rna = sparse.vstack([cells.X for cells in libraries], format="csr")
    for cells in libraries:
        cells.X = None
    promoter = sparse.vstack([cells.layers.pop("promoter") for cells in libraries], format="csr")
    joined = ad.concat(libraries, join="outer", merge="same")
    joined.obs, joined.X, joined.layers["promoter"] = obs, rna, promoter
    return joined


def ingest(
    sheet_row: Mapping[str, str],
    genes: pd.DataFrame,
    windows: pd.DataFrame | None = None,
    min_gene_overlap: float = 0.5,
    min_barcode_overlap: float = 0.5,
    translation: Mapping[str, str] | None = None,
) -> ad.AnnData:
    """Read one sample as counts over the vocabulary.

    Parameters
    ----------
    sheet_row
        Of the sample sheet: ``sample``, ``path`` and, where needed, its other columns; ``kind`` is
        ``10x`` if not given.
    genes, windows
        The vocabulary and its promoter windows; None: those of
        :func:`scdyn.pp.reference.make_promoter_windows`.
    min_gene_overlap, min_barcode_overlap
        Minimum shares, 0 to 1, of genes in the vocabulary, and of RNA barcodes in the other
        modality.
    translation
        RNA barcode of each ATAC barcode; see :func:`scdyn.io.barcodes.read_translation`.

    Returns
    -------
    AnnData
        All barcodes of the matrices, named ``{sample}_{barcode}``: ``X`` RNA counts,
        ``layers["promoter"]`` promoter counts; in ``obs`` the sample, the barcode, and the
        columns of an ``.h5ad`` (its ``sample`` as ``sample_in_file``); in ``obsm["spatial"]`` its
        positions. Covariates of the sample sheet and metadata are joined later; see
        :func:`scdyn.pp.metadata.annotate`.

    Raises
    ------
    InputError
        If a file cannot be read or has no counts, or too few genes or barcodes match.
    """
    unknown = sorted(sheet_row.keys() - {*COLUMNS, "metadata"})
    if unknown or not {"sample", "path"} <= sheet_row.keys():
        fault = f"unknown key {unknown[0]}" if unknown else "no sample or no path"
        raise InputError("SHEET", f"ingest: {fault}; the keys are {', '.join(COLUMNS)}.")
    sheet_row = {**dict.fromkeys(COLUMNS, ""), "kind": "10x", **sheet_row}
    if windows is None:
        windows = make_promoter_windows(genes)
    name = sheet_row["sample"]
    overlaps = min_gene_overlap, min_barcode_overlap
    libraries = find_libraries(sheet_row)
    if len(libraries) > 1:
        order = (f"-{number} {files.path}" for number, files in enumerate(libraries, start=1))
        logger.info("%s: %d libraries; %s", name, len(libraries), ", ".join(order))
    cells = join_libraries(
        [ingest_library(files, genes, windows, *overlaps, translation, name) for files in libraries]
    )
    barcodes.require_unique(cells.obs_names, sheet_row["path"])
    cells.obs = cells.obs.assign(sample=name, barcode=cells.obs_names.to_numpy())
    cells.obs_names = name + "_" + cells.obs_names
    return cells
