"""What can be said of a study's input in seconds, before hours of compute are spent on it."""

from __future__ import annotations

import html
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from scdyn import barcodes, cost, tenx
from scdyn import fragments as fragment_files
from scdyn.errors import InputError
from scdyn.features import GENES, PEAKS, barcode_names, read_features, read_genomes
from scdyn.libraries import LibraryFiles, find_libraries
from scdyn.machine import VARIABLE, nvidia_driver, visible_gpus
from scdyn.pages import document
from scdyn.reference import strip_version

# Blocks of a fragments file that are looked at, of some hundred thousand lines each.
BLOCKS_SEEN = 8
# Results take about as much room as their input, and temporary files once more.
ROOM_FOR_INPUT = 3


@dataclass(frozen=True)
class Finding:
    """One check of one thing.

    Attributes
    ----------
    subject
        A sample, or "study".
    check
        What was looked at.
    found
        What was seen, or the sentence that says what is wrong and what to do.
    passed
        Whether the study can go on.
    """

    subject: str
    check: str
    found: str
    passed: bool = True


@dataclass(frozen=True)
class Thresholds:
    """Shares and ratios below which a sample is refused; see the config's ``ingest``."""

    min_gene_overlap: float
    min_barcode_overlap: float
    min_promoter_enrichment: float


def examine_sample(
    row: Mapping[str, str],
    genes: pd.DataFrame,
    windows: pd.DataFrame,
    thresholds: Thresholds,
    translation: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Examine a sample's files without reading its counts.

    Parameters
    ----------
    row
        Of the sample sheet.
    genes, windows
        The vocabulary and its promoter windows.
    thresholds
        Of the config.
    translation
        ATAC to RNA barcodes; see :func:`scdyn.barcodes.read_translation`.

    Returns
    -------
    list of Finding
        Of each library; the first that does not pass ends a library's.
    """
    findings: list[Finding] = []
    name = row["sample"]
    try:
        for files in find_libraries(row):
            for check, found in examine_library(files, genes, windows, thresholds, translation):
                findings.append(Finding(name, check, found))
    except InputError as error:
        findings.append(Finding(name, "files", str(error), passed=False))
    return findings


def examine_library(
    files: LibraryFiles,
    genes: pd.DataFrame,
    windows: pd.DataFrame,
    thresholds: Thresholds,
    translation: Mapping[str, str] | None,
) -> Iterator[tuple[str, str]]:
    """Yield what was looked at and what was seen.

    Raises
    ------
    InputError
        At the first thing that is wrong.
    """
    matrix, peaks, fragments = find_files(files)
    features = read_features(matrix)
    named = features[features["kind"] == GENES]
    by_id = strip_version(named["id"]).isin(genes["gene_id"])
    n_found = max(by_id.sum(), named["name"].isin(genes["symbol"]).sum())
    share = n_found / max(1, min(len(genes), len(named)))
    text = f"{n_found} of {len(named)} genes are in the vocabulary of {len(genes)}"
    if share < thresholds.min_gene_overlap:
        raise InputError(
            f"{matrix}: only {text}, {share:.0%} where ingest.min_gene_overlap asks for "
            f"{thresholds.min_gene_overlap:.0%}: another species or annotation?"
        )
    yield "genes", text
    cells = barcode_names(matrix)
    yield "cells", f"{len(cells)} barcodes in {matrix}"
    stated = genome_stated(peaks, fragments)
    if files.rna_only:
        yield "promoters", "not measured, as the sheet says: RNA only"
    elif fragments:
        yield "promoters", f"counted from {fragments}"
        yield from examine_fragments(fragments, cells, windows, thresholds, stated, translation)
    else:
        names = features["name"][features["kind"] == PEAKS]
        if peaks != matrix:  # all are peaks, though an h5ad of them does not say so
            names = read_features(peaks)["name"]
            yield examine_barcodes(peaks, cells, thresholds, translation)
        if len(names):
            yield "promoters", "summed from peaks, there being no fragments: these are coarser"
            places = fragment_files.parse_peaks(pd.Index(names))
            places["start"] = (places["start"] + places["end"]) // 2
            yield from examine_build(peaks, places, windows, thresholds, stated)


def find_files(files: LibraryFiles) -> tuple[Path, Path, Path | None]:
    """Find a library's matrix of genes, its matrix of peaks and its fragments."""
    if files.kind != "10x":
        for path in (files.path, files.atac_path, files.fragments):
            if path and not Path(path).exists():
                raise InputError(f"{path}: no such file; check the sample sheet.")
        peaks = Path(files.atac_path or files.path)
        fragments = Path(files.fragments) if files.fragments else None
        return Path(files.path), peaks, fragments
    of_genes = tenx.locate(files.path)
    of_peaks = tenx.locate(files.atac_path) if files.atac_path else of_genes
    fragments = Path(files.fragments) if files.fragments else of_peaks.fragments
    if fragments and not fragments.exists():
        raise InputError(f"{fragments}: no such file; check the sample sheet's fragments.")
    return of_genes.matrix, of_peaks.matrix, fragments


def genome_stated(matrix: Path, fragments: Path | None) -> str:
    """Name the genome that Cell Ranger says it used, empty if it does not say.

    It stands with the features of an ``.h5`` and in the header of a fragments file.
    """
    if fragments:
        for line in fragment_files.read_header(fragments):
            if line.startswith("# reference_path="):
                return Path(line.split("=", 1)[1]).name
    names = sorted(read_genomes(matrix)) if matrix.suffix == ".h5" else []
    return ", ".join(names)


def examine_fragments(
    path: Path,
    cells: pd.Index,
    windows: pd.DataFrame,
    thresholds: Thresholds,
    stated: str,
    translation: Mapping[str, str] | None,
) -> Iterator[tuple[str, str]]:
    """Look at the beginning of a fragments file: its barcodes, chromosomes and promoters.

    Raises
    ------
    InputError
        If it is of other cells or another genome. Whether enough of the barcodes are there
        is for ingestion to say, which reads the whole file.
    """
    blocks = [
        block.select("chrom", "start", "barcode").to_pandas()
        for block in islice(fragment_files.read_fragments(path), BLOCKS_SEEN)
    ]
    seen = pd.concat(blocks) if blocks else pd.DataFrame(columns=["chrom", "start", "barcode"])
    if seen.empty:
        raise InputError(f"{path}: holds no fragments; copy it again from Cell Ranger's output.")
    others = pd.Index(seen["barcode"].unique())
    pairing = barcodes.pair(cells, others, translation)
    text = (
        f"{pairing.n_shared} of {len(cells)} RNA barcodes are among those of the first "
        f"{len(seen)} fragments, {pairing.how}"
    )
    if not pairing.n_shared:
        raise InputError(
            f"{path}: none of the {len(cells)} RNA barcodes (such as {', '.join(cells[:5])}) is "
            f"among its own (such as {', '.join(others[:5])}): are these two of the same cells?"
        )
    yield "barcodes", text
    yield from examine_build(path, seen, windows, thresholds, stated)


def examine_barcodes(
    path: Path,
    cells: pd.Index,
    thresholds: Thresholds,
    translation: Mapping[str, str] | None,
) -> tuple[str, str]:
    """Look at the barcodes of a matrix of peaks.

    Raises
    ------
    InputError
        If it is of other cells.
    """
    others = barcode_names(path)
    pairing = barcodes.pair(cells, others, translation)
    if pairing.n_shared < thresholds.min_barcode_overlap * len(cells):
        raise InputError(
            f"{path}: only {pairing.n_shared} of the {len(cells)} RNA barcodes (such as "
            f"{', '.join(cells[:5])}) are among its own (such as {', '.join(others[:5])}): "
            "are these two of the same cells?"
        )
    return "barcodes", f"{pairing.n_shared} of {len(cells)} RNA barcodes, {pairing.how}"


def examine_build(
    path: Path, places: pd.DataFrame, windows: pd.DataFrame, thresholds: Thresholds, stated: str
) -> Iterator[tuple[str, str]]:
    """Tell whether open chromatin lies at the annotation's promoters.

    Raises
    ------
    InputError
        If it lies there no more often than places drawn at random.
    """
    ratio = fragment_files.promoter_enrichment(places, windows)
    asked = thresholds.min_promoter_enrichment
    if not ratio >= asked:
        chromosomes = ", ".join(sorted(places["chrom"].astype(str).unique())[:3])
        annotated = ", ".join(sorted(windows["chrom"].unique())[:3])
        why = (
            f"lies in the annotation's promoters {ratio:.2f} times as often as by chance, where "
            f"ingest.min_promoter_enrichment asks for {asked:g}"
            if pd.notna(ratio)
            else f"has chromosomes {chromosomes} and the annotation {annotated}"
        )
        made = f"; it was made with {stated}, so name the annotation of that" if stated else ""
        raise InputError(f"{path}: open chromatin {why}: another genome build or species?{made}")
    made = f", made with {stated}" if stated else ""
    yield "genome build", f"in promoters {ratio:.1f} times as often as by chance{made}"


def examine_machine(inputs: Sequence[str | Path], results: str | Path) -> list[Finding]:
    """Examine the room on the disk, and say whether a GPU is here.

    Parameters
    ----------
    inputs
        Files and folders that are read.
    results
        Where what is made will lie; need not be there yet.
    """
    size = sum(size_of(Path(path)) for path in inputs)
    place = Path(results).absolute()
    while not place.exists():
        place = place.parent
    free, needed = shutil.disk_usage(place).free, ROOM_FOR_INPUT * size
    room = f"{free / 1e9:.1f} GB are free at {place}; about {needed / 1e9:.1f} GB are needed"
    return [
        Finding("study", "disk", room if free > needed else f"{room}: make room.", free > needed),
        Finding("study", "GPU", f"{seen_of_gpus()} (a cluster's other nodes may differ)"),
    ]


def seen_of_gpus() -> str:
    """Say which GPUs are here; whether torch can use them is for the rules that train to say."""
    if os.environ.get(VARIABLE) == "cpu":
        return "not looked for: the config's device is cpu"
    driver, n_gpus = nvidia_driver(), len(visible_gpus())
    if n_gpus:
        return f"{n_gpus} here" + (f", NVIDIA's {driver}" if driver else "")
    if driver:
        return f"NVIDIA's {driver} is here, but no GPU that may be used"
    return "none is here; the CPU is used instead"


def examine_models(
    models: Mapping[str, Mapping[str, Any]],
    tasks: Mapping[str, Mapping[str, Any]],
    n_cells: Mapping[str, int],
    genes: pd.DataFrame,
) -> list[Finding]:
    """Say what the configured models will cost on this machine; nothing here is refused.

    Parameters
    ----------
    models, tasks
        Of the config.
    n_cells
        Cells of each corpus, such as :func:`count_cells` of its samples together.
    genes
        The vocabulary.
    """
    n_threads, n_gpus = cost.cores_of_a_job(), len(cost.gpus_used())
    found = cost.estimate(
        models,
        tasks,
        n_cells,
        len(genes),
        int(genes["is_tf"].sum()),
        cost.product_rate(),
        n_threads,
    )
    return [
        Finding(subject, "time", cost.sentence(work, seconds, n_threads, n_gpus))
        for subject, work, seconds in found
    ]


def count_cells(row: Mapping[str, str]) -> int:
    """Count the barcodes of a sample's matrices.

    Raises
    ------
    InputError
        If one cannot be read.
    """
    return sum(len(barcode_names(find_files(files)[0])) for files in find_libraries(row))


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def report(findings: Sequence[Finding]) -> pd.DataFrame:
    """Bring findings into one table, those that do not pass first."""
    table = pd.DataFrame([asdict(finding) for finding in findings])
    return table.sort_values("passed", kind="stable", ignore_index=True)


def require(table: pd.DataFrame, log: str | Path) -> None:
    """Stop if a finding does not pass.

    Raises
    ------
    InputError
        With the first sentence, and how many more the log has.
    """
    refused = table.loc[~table["passed"], "found"]
    if len(refused):
        more = f" ({len(refused) - 1} more in {log})" if len(refused) > 1 else ""
        raise InputError(f"{refused.iloc[0]}{more}")


def page(table: pd.DataFrame) -> str:
    """Lay the findings out as HTML."""
    rows = ["<th>of</th><th>check</th><th>found</th>"]
    for row in table.itertuples():
        cells = (row.subject, row.check, row.found)
        rows.append("".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells))
    text = "".join(f"<tr>{row}</tr>" for row in rows)
    return document("Input", f"<h1>Input, examined before the run</h1><table>{text}</table>")
