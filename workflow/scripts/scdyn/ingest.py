"""One sample, whatever its files, to RNA and promoter counts over the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import anndata as ad
import mudata
import numpy as np
import pandas as pd
from scipy import sparse

from scdyn import barcodes, tenx
from scdyn import fragments as fragment_files
from scdyn.cell_columns import join, normalise
from scdyn.cell_tables import join_metadata
from scdyn.counts import NO_SOURCE, align_genes, raw_counts
from scdyn.errors import InputError, reading
from scdyn.hdf5 import open_bounded
from scdyn.libraries import RNA_ONLY, LibraryFiles, find_libraries
from scdyn.log import logger
from scdyn.reference import tss_rings

# For notebooks, which join their tables by it.
__all__ = ["ingest", "join_metadata", "read_library"]

# Blocks of a fragments file from which is seen how its barcodes are written.
BLOCKS_SEEN = 32


@dataclass(frozen=True)
class Library:
    """What a library's files hold.

    Attributes
    ----------
    rna
        ``X`` counts (cells, genes), and ``layers["promoter"]`` if the file has promoter (or
        unspliced) counts.
    peaks
        Counts (cells, peaks), None if there are none.
    fragments
        Path of the fragments file, None if there is none.
    rna_only
        Whether the sheet says that promoters are to be read as not measured.
    """

    rna: ad.AnnData
    peaks: ad.AnnData | None
    fragments: Path | None
    rna_only: bool = False


def read_library(files: LibraryFiles) -> Library:
    """Read a library's RNA counts and find its accessibility.

    Raises
    ------
    InputError
        If a file is missing, cannot be read or holds no counts.
    """
    read = {"10x": read_tenx, "h5ad": read_h5ad, "h5mu": read_h5mu}[files.kind]
    library = read(files)
    if files.rna_only:
        return Library(library.rna, None, None, rna_only=True)
    if files.fragments:
        library = replace(library, fragments=Path(files.fragments))
    if library.fragments and not library.fragments.exists():
        raise InputError(f"{library.fragments}: no such file; check the sample sheet's fragments.")
    return library


def read_tenx(files: LibraryFiles) -> Library:
    """Read Cell Ranger's output: ARC, or GEX with ATAC beside it in ``atac_path``."""
    place = tenx.locate(files.path)
    rna, peaks = tenx.read_matrix(place.matrix)
    if rna is None:
        raise InputError(
            f"{place.matrix}: has peaks and no genes; the ATAC output goes into the column "
            "atac_path, the GEX output into path."
        )
    fragments = place.fragments
    if place.metrics and not files.rna_only:
        rna.obs = rna.obs.join(tenx.read_metrics(place.metrics, rna.obs_names))
    if files.atac_path:
        place = tenx.locate(files.atac_path)
        _, peaks = tenx.read_matrix(place.matrix)
        fragments = place.fragments
    return Library(rna, peaks, fragments)


def read_h5ad(files: LibraryFiles) -> Library:
    """Read counts of an ``.h5ad``, and peaks of another in ``atac_path``."""
    layers = files.rna_layer, files.promoter_layer
    rna = raw_counts(_open(ad.read_h5ad, files.path, "h5ad"), files.path, *layers)
    peaks = None
    if files.atac_path:
        peaks = raw_counts(_open(ad.read_h5ad, files.atac_path, "h5ad"), files.atac_path)
    return Library(rna, peaks, None)


def read_h5mu(files: LibraryFiles) -> Library:
    """Read the modalities ``rna`` and ``atac`` of an ``.h5mu``."""
    content = _open(mudata.read_h5mu, files.path, "h5mu")
    if "rna" not in content.mod:
        raise InputError(f"{files.path}: has no modality 'rna' but {', '.join(content.mod)}.")
    peaks = content.mod.get("atac")
    peaks = None if peaks is None else raw_counts(peaks, files.path)
    layers = files.rna_layer, files.promoter_layer
    return Library(raw_counts(content.mod["rna"], files.path, *layers), peaks, None)


def _open(read: Callable[[str], Any], path: str, kind: str) -> Any:
    """Call a library's reader; whatever it raises ends in a sentence."""
    if not Path(path).exists():
        raise InputError(f"{path}: no such file; check the sample sheet's path.")
    with reading(path, f"not a readable {kind}"), open_bounded(path):
        return read(path)


def require_barcodes(
    pairing: barcodes.Pairing,
    rna: pd.Index,
    other: pd.Index,
    min_overlap: float,
    name: str,
    what: str,
) -> None:
    """Refuse modalities of different cells.

    Raises
    ------
    InputError
        If fewer than ``min_overlap`` of the RNA barcodes are among the others, showing
        five of each.
    """
    shared = f"{pairing.n_shared} of its {len(rna)} RNA barcodes"
    logger.info("%s: %s are among those of the %s (%s)", name, shared, what, pairing.how)
    if pairing.n_shared < min_overlap * len(rna):
        raise InputError(
            f"sample {name}: only {shared} (such as {', '.join(rna[:5])}) are among the barcodes "
            f"of the {what} (such as {', '.join(other[:5])}); ingest.min_barcode_overlap asks for "
            f"{min_overlap:.0%}: are these two of the same cells? If the two chemistries' barcodes "
            "differ, name their table in ingest.barcode_translation."
        )


def promoter_counts(
    library: Library,
    genes: pd.DataFrame,
    windows: pd.DataFrame,
    to_vocabulary: sparse.csr_matrix,
    min_overlap: float,
    translation: Mapping[str, str] | None,
    name: str,
) -> tuple[sparse.csr_matrix, pd.DataFrame]:
    """Count promoter accessibility of the RNA's cells, paired by barcode.

    Fragments come first, then a promoter layer, then peaks.

    Returns
    -------
    counts : csr_matrix
        (cells, genes of the vocabulary), in the order of the RNA's cells; a barcode the
        second modality lacks has an empty row.
    totals : DataFrame
        A row a cell: ``promoter_source``, "fragments", "promoter layer", "peaks", or "none" in
        a cell that the second modality lacks; and with fragments what
        :func:`scdyn.fragments.count_insertions` says of it.
    """
    rna, n_genes = library.rna, to_vocabulary.shape[1]
    rest = (min_overlap, translation, name)
    if library.rna_only:
        logger.info("%s: RNA only, as the sheet says; promoters are read as not measured", name)
        counts = sparse.csr_matrix((rna.n_obs, n_genes), dtype=np.int32)
        source = NO_SOURCE
    elif library.fragments is not None:
        return promoter_counts_of_fragments(rna, library.fragments, genes, windows, *rest)
    elif "promoter" in rna.layers:
        counts = sparse.csr_matrix(rna.layers["promoter"] @ to_vocabulary)
        source = "promoter layer"
    elif library.peaks is not None:
        return promoter_counts_of_peaks(rna, library.peaks, windows, n_genes, *rest)
    else:
        raise InputError(
            f"sample {name}: has neither fragments nor peaks nor a promoter layer; name one in the "
            "sample sheet (columns fragments, atac_path, promoter_layer), or write "
            f"'{RNA_ONLY}' into atac_path if promoters were not measured."
        )
    return counts, pd.DataFrame({"promoter_source": source}, index=rna.obs_names)


def promoter_counts_of_fragments(
    rna: ad.AnnData,
    fragments: Path,
    genes: pd.DataFrame,
    windows: pd.DataFrame,
    min_overlap: float,
    translation: Mapping[str, str] | None,
    name: str,
) -> tuple[sparse.csr_matrix, pd.DataFrame]:
    """Count insertions in promoters; see :func:`promoter_counts`."""
    blocks = islice(fragment_files.read_fragments(fragments), BLOCKS_SEEN)
    names = [block["barcode"].unique(maintain_order=True) for block in blocks]
    known = pd.Index(np.concatenate(names)).unique() if names else pd.Index([], dtype=str)
    pairing = barcodes.pair(rna.obs_names, known, translation)
    counts, totals = fragment_files.count_insertions(
        fragments, windows, len(genes), pairing.rna, pairing.form, tss_rings(genes)
    )
    found = (totals["fragments"] > 0).to_numpy()
    pairing = replace(pairing, n_shared=int(found.sum()))
    require_barcodes(pairing, rna.obs_names, known, min_overlap, name, "fragments")
    source = np.where(found, "fragments", NO_SOURCE)
    return counts, totals.set_axis(rna.obs_names).assign(promoter_source=source)


def promoter_counts_of_peaks(
    rna: ad.AnnData,
    peaks: ad.AnnData,
    windows: pd.DataFrame,
    n_genes: int,
    min_overlap: float,
    translation: Mapping[str, str] | None,
    name: str,
) -> tuple[sparse.csr_matrix, pd.DataFrame]:
    """Sum the counts of peaks in promoters; see :func:`promoter_counts`."""
    pairing = barcodes.pair(rna.obs_names, peaks.obs_names, translation)
    require_barcodes(pairing, rna.obs_names, peaks.obs_names, min_overlap, name, "peaks")
    of_peaks = pairing.form(peaks.obs_names.to_series())
    row = pd.Series(np.arange(peaks.n_obs), index=of_peaks.to_numpy()).reindex(pairing.rna)
    found = row.notna().to_numpy()
    # One row a cell of the RNA, a one where its barcode stands in the peaks.
    pairing_matrix = sparse.csr_matrix(
        (np.ones(found.sum(), np.int32), (np.flatnonzero(found), row[found].astype(int))),
        shape=(rna.n_obs, peaks.n_obs),
    )
    counts = fragment_files.peaks_to_promoters(peaks.X, peaks.var_names, windows, n_genes)
    source = np.where(found, "peaks", NO_SOURCE)
    totals = pd.DataFrame({"promoter_source": source}, index=rna.obs_names)
    return pairing_matrix @ counts, totals


def ingest_library(
    files: LibraryFiles,
    genes: pd.DataFrame,
    windows: pd.DataFrame,
    min_gene_overlap: float,
    min_barcode_overlap: float,
    translation: Mapping[str, str] | None,
    name: str,
) -> ad.AnnData:
    """Bring one library to the vocabulary, as :func:`ingest` does; cells are named by barcode."""
    library = read_library(files)
    rna = library.rna
    to_vocabulary = align_genes(
        rna, genes, min_gene_overlap, f"sample {name}", "ingest.min_gene_overlap"
    )
    counts, totals = promoter_counts(
        library, genes, windows, to_vocabulary, min_barcode_overlap, translation, name
    )
    # What Cell Ranger measured has our own names; what a file says of its cells has any.
    obs = rna.obs if files.kind == "10x" else normalise(rna.obs, files.path)
    return ad.AnnData(
        sparse.csr_matrix(rna.X @ to_vocabulary),
        obs=obs.assign(**totals.set_axis(obs.index)),
        var=genes.set_index("gene_id"),
        layers={"promoter": counts},
        obsm=dict(rna.obsm),
    )


def join_libraries(libraries: list[ad.AnnData]) -> ad.AnnData:
    """Join the libraries of a sample, numbered as :func:`scdyn.barcodes.sample_barcodes` does."""
    if len(libraries) == 1:
        return libraries[0]
    names = barcodes.sample_barcodes([cells.obs_names for cells in libraries])
    obs = join([cells.obs for cells in libraries]).set_axis(names)
    joined = ad.concat(libraries, join="outer", merge="same")
    joined.obs = obs
    return joined


def ingest(
    sheet_row: dict[str, str],
    genes: pd.DataFrame,
    windows: pd.DataFrame,
    min_gene_overlap: float,
    min_barcode_overlap: float,
    translation: Mapping[str, str] | None = None,
) -> ad.AnnData:
    """Bring one sample to the vocabulary.

    Parameters
    ----------
    sheet_row
        Of the sample sheet.
    genes, windows
        The vocabulary and its promoter windows.
    min_gene_overlap, min_barcode_overlap
        Shares, 0 to 1, below which the sample is refused.
    translation
        ATAC to RNA barcodes; see :func:`scdyn.barcodes.read_translation`.

    Returns
    -------
    AnnData
        All barcodes of the matrices, named ``{sample}_{barcode}``: ``X`` RNA counts,
        ``layers["promoter"]`` promoter counts; in ``obs`` the sample, the barcode, and what an
        ``.h5ad`` says of its cells (its own ``sample`` as ``sample_in_file``); in
        ``obsm["spatial"]`` its positions. What the sample sheet and its metadata say of the
        cells is joined later; see :func:`scdyn.cell_tables.annotate`.

    Raises
    ------
    InputError
        If a file cannot be used, or too few genes or barcodes are found.
    """
    name = sheet_row["sample"]
    overlaps = min_gene_overlap, min_barcode_overlap
    libraries = find_libraries(sheet_row)
    if len(libraries) > 1:
        order = (f"-{number} {files.path}" for number, files in enumerate(libraries, start=1))
        logger.info("%s: %d libraries; %s", name, len(libraries), ", ".join(order))
    cells = join_libraries(
        [ingest_library(files, genes, windows, *overlaps, translation, name) for files in libraries]
    )
    twice = cells.obs_names[cells.obs_names.duplicated()]
    if len(twice):
        raise InputError(
            f"{sheet_row['path']}: barcode {twice[0]} stands there twice; give each library a row "
            "or file of its own."
        )
    cells.obs = cells.obs.assign(sample=name, barcode=cells.obs_names.to_numpy())
    cells.obs_names = name + "_" + cells.obs_names
    return cells
