"""Preflight: check a study's input in seconds, before hours of computation."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata.io import sparse_dataset

from scdyn.errors import InputError, reading
from scdyn.io import barcodes, tenx
from scdyn.io import fragments as fragment_files
from scdyn.io.barcodes import join_barcodes, require_unique
from scdyn.io.checks import read_first_values, require_counts, require_nonempty
from scdyn.io.download import annotation_of
from scdyn.io.features import (
    GENES,
    PEAKS,
    open_modality,
    read_barcodes,
    read_features,
    read_genomes,
    refuse_10x,
    require_one_genome,
)
from scdyn.io.hdf5 import open_hdf5
from scdyn.io.sample_files import (
    Library,
    LibraryFiles,
    Matrix,
    choose_promoter_source,
    find_libraries,
    locate,
)
from scdyn.log import logger
from scdyn.machine import VARIABLE, nvidia_driver, visible_gpus
from scdyn.pp.counts import choose_rna_source, require_layer, require_same_genes
from scdyn.pp.preflight_findings import DISK, Finding
from scdyn.pp.reference import find_genes, find_genome_prefixes, strip_genome_prefix, strip_version
from scdyn.settings import InputThresholds

# Required room on the disk in multiples of the input: results and temporary files.
ROOM_FOR_INPUT = 3


def examine_sample(
    row: Mapping[str, str],
    genes: pd.DataFrame,
    windows: pd.DataFrame,
    thresholds: InputThresholds,
    translation: Mapping[str, str] | None = None,
    catalogue: pd.DataFrame | None = None,
) -> list[Finding]:
    """Examine a sample's files, of the counts only the first values.

    Parameters
    ----------
    row
        Of the sample sheet.
    genes, windows
        The vocabulary and its promoter windows.
    thresholds
        From the config.
    translation
        RNA barcode of each ATAC barcode; see :func:`scdyn.io.barcodes.read_translation`.
    catalogue
        Catalogue of public files, used to suggest the annotation of another genome build.

    Returns
    -------
    list of Finding
        Of each library, up to its first failed check.
    """
    findings: list[Finding] = []
    name = row["sample"]
    try:
        libraries = find_libraries(row)
    except InputError as error:
        return [Finding(name, "files", str(error), passed=False)]
    for files in libraries:
        try:
            seen = examine_library(files, genes, windows, thresholds, translation, catalogue)
            for check, found in seen:
                findings.append(Finding(name, check, found))
        except InputError as error:
            findings.append(Finding(name, "files", str(error), passed=False))
    return findings


def list_barcodes(row: Mapping[str, str]) -> pd.Index:
    """List a sample's barcodes as in ingestion; an empty index if the files cannot be read.

    Parameters
    ----------
    row
        Of the sample sheet.
    """
    try:
        return join_barcodes([read_barcodes(locate(files).rna) for files in find_libraries(row)])
    except InputError:  # reported by examine_sample
        return pd.Index([], dtype=str)


def count_cells(
    rows: Sequence[Mapping[str, str]], corpora: Mapping[str, Sequence[str]]
) -> dict[str, int]:
    """Count the barcodes of each corpus' matrices.

    Parameters
    ----------
    rows
        Of the sample sheet, with ``sample``.
    corpora
        Corpus to its samples.
    """
    of_sample = {row["sample"]: len(list_barcodes(row)) for row in rows}
    return {name: sum(of_sample[s] for s in samples) for name, samples in corpora.items()}


def examine_library(
    files: LibraryFiles,
    genes: pd.DataFrame,
    windows: pd.DataFrame,
    thresholds: InputThresholds,
    translation: Mapping[str, str] | None,
    catalogue: pd.DataFrame | None = None,
) -> Iterator[tuple[str, str]]:
    """Yield the name and the result of each check.

    Raises
    ------
    InputError
        At the first failed check.
    """
    library = locate(files)
    matrix = library.rna
    source, layers, has_peaks = inspect_library(library)
    features = read_features(matrix, source)
    names = list_gene_names(features, matrix)
    found = find_genes(names, genes)
    n_found, n_genes = len(np.unique(found[found >= 0])), len(found)
    share = n_found / max(1, min(len(genes), n_genes))
    text = f"{n_found} of {n_genes} genes are in the vocabulary of {len(genes)}"
    if share < thresholds.min_gene_overlap:
        named = features["name"][features["kind"] == GENES]
        raise InputError(
            "GENES",
            f"{matrix}: only {text} ({', '.join(named[:3])} here, {', '.join(genes['symbol'][:3])} "
            f"in reference.annotation), {share:.0%} where ingest.min_gene_overlap requires "
            f"{thresholds.min_gene_overlap:.0%}; use the annotation of the same species.",
        )
    yield "genes", text
    if library.kind != "10x":
        yield "RNA counts", f"in {source} of {matrix}"
    cells = read_barcodes(matrix)
    require_unique(cells, matrix)
    yield "cells", f"{len(cells)} barcodes in {matrix}"
    others = features["kind"][~features["kind"].isin([GENES, PEAKS])].value_counts()
    for kind, n_features in others.items():
        yield "features", f"{n_features} of type {kind} are ignored"
    promoters, layer = choose_promoter_source(library, layers, has_peaks)
    examine_counts(library, source, layer, of_peaks=promoters == "peaks")
    stated = read_stated_genome(library)
    if promoters == "none":
        yield "promoters", "not measured, according to the sample sheet (RNA only)"
    elif promoters == "promoter layer":
        yield "promoters", f"counts of the layer {layer} in {library.unspliced or matrix}"
    elif promoters == "fragments":
        path = Path(library.fragments)
        yield "promoters", f"counted from {path}"
        yield from examine_fragments(
            path, cells, windows, thresholds, stated, translation, catalogue
        )
    else:
        place = library.peaks or matrix
        if library.peaks:
            features = read_features(library.peaks)
            yield examine_barcodes(place, cells, thresholds, translation)
        names = features["name"][features["kind"] == PEAKS]
        yield (
            "promoters",
            f"summed from the peaks of {place}; fragments would be more accurate",
        )
        places = fragment_files.parse_peaks(pd.Index(names))
        places["start"] = (places["start"] + places["end"]) // 2
        yield from examine_build(
            "peaks", place.path, places, windows, thresholds, stated, catalogue
        )


def list_gene_names(features: pd.DataFrame, matrix: Matrix) -> list[pd.Series]:
    """List the columns of features that may name the genes.

    Raises
    ------
    InputError
        If there are no genes, or genes of several genomes.
    """
    named = features[features["kind"] == GENES].drop(columns="kind").reset_index(drop=True)
    if named.empty:
        raise InputError(
            "MATRIX",
            f"{matrix}: has no {GENES} features "
            f"(found: {', '.join(features['kind'].unique()) or 'none'}); in the sample sheet, "
            "write the GEX output into path and the ATAC output into atac_path.",
        )
    require_one_genome(find_genome_prefixes(named["name"]), matrix.path)
    return [named[column] for column in named]


def list_measured_genes(row: Mapping[str, str]) -> set[str]:
    """List all ids and symbols of genes in a sample's matrices.

    Parameters
    ----------
    row
        Of the sample sheet.

    Raises
    ------
    InputError
        If a file cannot be read.
    """
    names: set[str] = set()
    for library in map(locate, find_libraries(row)):
        source, _, _ = inspect_library(library)
        for column in list_gene_names(read_features(library.rna, source), library.rna):
            names.update(column, plain := strip_genome_prefix(column), strip_version(plain))
    return names


def genes_of_panel(rows: Sequence[Mapping[str, str]]) -> set[str]:
    """List every id and symbol by which the matrices of any sample call their genes.

    A sample whose files cannot be read is left out, with a warning: its examination says so of it
    and of all others.

    Parameters
    ----------
    rows
        Of the sample sheet.

    Raises
    ------
    InputError
        If no sample's files can be read.
    """
    names: set[str] = set()
    for row in rows:
        try:
            names |= list_measured_genes(row)
        except InputError as error:
            logger.warning("sample %s is left out: %s", row["sample"], error)
            if row is rows[-1] and not names:
                raise
    return names


def inspect_library(library: Library) -> tuple[str, list[str], bool]:
    """See what decides where counts are read from.

    Returns
    -------
    source : str
        Place of the RNA counts in an AnnData; see :func:`scdyn.pp.counts.choose_rna_source`.
    layers : list of str
        Layers of an AnnData.
    has_peaks : bool
        Whether the file of the RNA counts also has peaks.

    Raises
    ------
    InputError
        If the first values of an AnnData are not counts.
    """
    path = library.rna.path
    if library.kind == "10x":
        features = read_features(library.rna)
        for matrix in filter(None, (library.rna, library.unspliced, library.peaks)):
            n_cells, n_features = len(read_barcodes(matrix)), len(read_features(matrix))
            for file in matrix.counts:
                tenx.require_sizes(matrix, Path(file), n_cells, n_features)
        return "X", [], bool((features["kind"] == PEAKS).any())
    with reading("FORMAT", path, f"not a readable {library.kind}"), open_hdf5(path) as file:
        refuse_10x(file)
        rna = open_modality(file, "rna")
        layers = rna.get("layers", {})
        source = choose_rna_source(layers, rna.get("X"), rna.get("raw/X"), library.rna_layer, path)
        if library.promoter_layer:
            require_layer(library.promoter_layer, layers, path)
        require_counts(read_first_values(rna[source]), path)
        require_nonempty(count_stored(rna[source]), path)
        return source, list(layers), "mod/atac" in file


def count_stored(values: h5py.Group | h5py.Dataset) -> int:
    """Count the stored values of an AnnData's matrix, including zeros if it is dense."""
    return values["data"].size if isinstance(values, h5py.Group) else values.size


def count_columns(values: h5py.Group | h5py.Dataset) -> int:
    """Count the columns of an AnnData's matrix."""
    return (sparse_dataset(values) if isinstance(values, h5py.Group) else values).shape[1]


def examine_counts(library: Library, source: str, layer: str | None, of_peaks: bool) -> None:
    """Check the first counts of all matrices except the RNA of an AnnData.

    :func:`inspect_library` checks that one.

    Parameters
    ----------
    library
        With existing files.
    source
        Place of the RNA counts in an AnnData, from :func:`inspect_library`.
    layer, of_peaks
        Source of the promoter counts, from :func:`scdyn.io.sample_files.choose_promoter_source`.

    Raises
    ------
    InputError
        If they are not counts (such as peaks after TF-IDF), have other genes, or are empty.
    """
    for matrix in filter(None, (library.rna, library.unspliced, library.peaks)):
        if not matrix.path.endswith((".h5ad", ".h5mu")):
            tenx.check_first_counts(matrix)
    if library.kind != "10x" and layer is not None:
        path = library.rna.path
        with reading("FORMAT", path, f"not a readable {library.kind}"), open_hdf5(path) as file:
            rna = open_modality(file, "rna")
            values = rna["layers"][layer]
            require_same_genes(count_columns(rna[source]), count_columns(values), path)
            require_counts(read_first_values(values), f"{path}, layer {layer}")
    place = library.peaks or library.rna
    if of_peaks and place.path.endswith((".h5ad", ".h5mu")):
        with reading("FORMAT", place.path, "not a readable h5ad"), open_hdf5(place.path) as file:
            table = open_modality(file, "atac")
            layers, raw = table.get("layers", {}), table.get("raw/X")
            source = choose_rna_source(layers, table.get("X"), raw, "", place.path)
            require_counts(read_first_values(table[source]), place.path)


def read_stated_genome(library: Library) -> str:
    """Return the genome that Cell Ranger used, or an empty string.

    It is in the header of a fragments file, or among the features of an ``.h5``.
    """
    if library.fragments:
        for line in fragment_files.read_header(library.fragments):
            if line.startswith("# reference_path="):
                return Path(line.split("=", 1)[1]).name
    path = (library.peaks or library.rna).path
    return ", ".join(sorted(read_genomes(path))) if path.endswith(".h5") else ""


def examine_fragments(
    path: Path,
    cells: pd.Index,
    windows: pd.DataFrame,
    thresholds: InputThresholds,
    stated: str,
    translation: Mapping[str, str] | None,
    catalogue: pd.DataFrame | None = None,
) -> Iterator[tuple[str, str]]:
    """Check barcodes and genome build by the first fragments of a file.

    Raises
    ------
    InputError
        If the file belongs to other cells or another genome. The share of barcodes with fragments
        is checked in ingestion, which reads the whole file.
    """
    blocks = []
    for block in islice(fragment_files.read_fragments(path), fragment_files.BLOCKS_SEEN):
        fragment_files.check_positions(block, path)
        blocks.append(block.select("chrom", "start", "barcode").to_pandas())
    seen = pd.concat(blocks) if blocks else pd.DataFrame(columns=["chrom", "start", "barcode"])
    if seen.empty:
        raise InputError(
            "FRAGMENTS", f"{path}: contains no fragments; copy it again from Cell Ranger's output."
        )
    n_seen = seen["barcode"].value_counts(sort=False)
    others = pd.Index(n_seen.index)
    pairing = barcodes.pair_barcodes(cells, others, translation)
    text = (
        f"{pairing.n_shared} of {len(cells)} RNA barcodes are among the first {len(seen)} "
        f"fragments, {pairing.how}"
    )
    if not pairing.n_shared:
        raise InputError(
            "BARCODES",
            f"{path}: no barcodes in common between RNA and ATAC ({', '.join(cells[:5])} in the "
            f"RNA, {', '.join(others[:5])} here); use files of the same cells, or, if the barcodes "
            "of the two chemistries differ, name a table in ingest.barcode_translation.",
        )
    barcodes.refuse_background(pairing, n_seen, path)
    yield "barcodes", text
    yield from examine_build("fragments", path, seen, windows, thresholds, stated, catalogue)


def examine_barcodes(
    path: Matrix,
    cells: pd.Index,
    thresholds: InputThresholds,
    translation: Mapping[str, str] | None,
) -> tuple[str, str]:
    """Check the barcodes of a matrix of peaks.

    Raises
    ------
    InputError
        If it belongs to other cells.
    """
    others = read_barcodes(path)
    pairing = barcodes.pair_barcodes(cells, others, translation)
    if pairing.n_shared < thresholds.min_barcode_overlap * len(cells):
        raise InputError(
            "BARCODES",
            f"{path}: {'too few' if pairing.n_shared else 'no'} barcodes in common between RNA and "
            f"ATAC: only {pairing.n_shared} of {len(cells)} RNA barcodes (such as "
            f"{', '.join(cells[:5])}) are in this file (such as {', '.join(others[:5])}); use "
            "files of the same cells.",
        )
    return "barcodes", f"{pairing.n_shared} of {len(cells)} RNA barcodes, {pairing.how}"


def examine_build(
    what: str,
    path: str | Path,
    places: pd.DataFrame,
    windows: pd.DataFrame,
    thresholds: InputThresholds,
    stated: str,
    catalogue: pd.DataFrame | None = None,
) -> Iterator[tuple[str, str]]:
    """Check that open chromatin is enriched in the annotation's promoters.

    Raises
    ------
    InputError
        If the enrichment is below the threshold.
    """
    ratio = fragment_files.compute_promoter_enrichment(places, windows)
    required = thresholds.min_promoter_enrichment
    if not ratio >= required:
        chromosomes = ", ".join(sorted(places["chrom"].astype(str).unique())[:3])
        annotated = ", ".join(sorted(windows["chrom"].unique())[:3])
        why = (
            f"is in the annotation's promoters only {ratio:.2f} times as often as expected by "
            f"chance, where ingest.min_promoter_enrichment requires {required:g}"
            if pd.notna(ratio)
            else f"is on chromosomes {chromosomes}, the annotation has {annotated}"
        )
        name = annotation_of(stated, catalogue) if catalogue is not None else ""
        named = f": name {name} as reference.annotation" if name else ""
        hint = f" (the file was made with {stated}{named})" if stated else ""
        raise InputError(
            "PROMOTERS",
            f"{path}: open chromatin {why}; use the annotation of the same genome build and "
            f"species{hint}.",
        )
    made = f", made with {stated}" if stated else ""
    found = f"{what} are in promoters {ratio:.1f} times as often as expected by chance{made}"
    yield "genome build", found


def examine_machine(inputs: Sequence[str | Path], results: str | Path) -> list[Finding]:
    """Examine the room on the disk, and whether there is a GPU.

    Parameters
    ----------
    inputs
        Files and folders that are read.
    results
        Folder of the results, which may not exist yet.
    """
    room, is_enough = compare_room(inputs, results)
    return [
        Finding("study", DISK, room, is_enough),
        Finding("study", "GPU", f"{describe_gpus()} (other nodes of a cluster may differ)"),
    ]


def compare_room(inputs: Sequence[str | Path], results: str | Path) -> tuple[str, bool]:
    """Compare the free room on the disk with the room that the results need.

    Parameters
    ----------
    inputs, results
        As for :func:`examine_machine`.

    Returns
    -------
    text : str
        The comparison in words, as the text of an :class:`InputError` if there is too little.
    is_enough : bool
    """
    size = sum(measure_size(Path(path)) for path in inputs)
    place = Path(results).absolute()
    while not place.exists():
        place = place.parent
    free, needed = shutil.disk_usage(place).free, ROOM_FOR_INPUT * size
    room = f"{free / 1e9:.1f} GB are free at {place}; about {needed / 1e9:.1f} GB are needed"
    if free > needed:
        return room, True
    return str(InputError("DISK", f"not enough room on the disk: {room}; make room.")), False


def require_room(inputs: Sequence[str | Path], results: str | Path) -> None:
    """Stop if the disk has too little room for the results.

    Parameters
    ----------
    inputs, results
        As for :func:`examine_machine`.

    Raises
    ------
    InputError
        Naming the folder.
    """
    room, is_enough = compare_room(inputs, results)
    if not is_enough:
        raise InputError.from_text(room)


def describe_gpus() -> str:
    """Describe the GPUs of this machine. Training checks later whether torch can use them."""
    if os.environ.get(VARIABLE) == "cpu":
        return "not used: device is cpu in the config"
    driver, n_gpus = nvidia_driver(), len(visible_gpus())
    if n_gpus:
        return f"{n_gpus} found" + (f", NVIDIA {driver}" if driver else "")
    if driver:
        seen = f"NVIDIA {driver} is installed, but no GPU is visible"
    else:
        seen = "none found"
    if os.environ.get(VARIABLE) == "gpu":
        return f"{seen}; device is gpu in the config, so training will fail on this machine"
    return seen if driver else f"{seen}; using the CPU"


def measure_size(path: Path) -> int:
    """Return the size of a file, or of all files in a folder, in bytes."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
