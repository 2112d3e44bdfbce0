"""Count fragments and peaks in promoter windows."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
from scipy import sparse

from scdyn.errors import UNREADABLE, InputError, reading
from scdyn.io.chromosomes import to_ucsc_name, to_ucsc_names
from scdyn.io.files import iter_line_blocks, open_bytes

# Bytes of text parsed at once; memory does not depend on the number of fragments.
BLOCK_BYTES = 8 * 2**20
# Number of insertions in promoters that are held before they are summed.
INSERTIONS_AT_ONCE = 30_000_000
# Number of blocks used to find the form of the barcodes and whether they match the RNA's.
BLOCKS_SEEN = 32
COMMENTS = re.compile(rb"(?:#[^\n]*(?:\n|\Z)|[ \t\r]*\n)*")
FRAGMENT = re.compile(rb"[^\t]+\t-?\d+\t-?\d+\t[^\t\r]+")
COLUMNS = {"chrom": pl.String, "start": pl.Int64, "end": pl.Int64, "barcode": pl.String}


def read_header(path: str | Path) -> list[str]:
    """Read the comment lines before the first fragment; an empty list if they cannot be read."""
    try:
        with io.TextIOWrapper(open_bytes(path), errors="replace") as file:
            return [line.strip() for line in takewhile(lambda line: line.startswith("#"), file)]
    except UNREADABLE:
        return []


def read_fragments(path: str | Path) -> Iterator[pl.DataFrame]:
    """Stream a fragments file in blocks.

    Parameters
    ----------
    path
        Chromosome, start, end and barcode, tab-separated, as in the ``atac_fragments.tsv.gz`` of
        Cell Ranger; further columns (number of reads, strand) are ignored. Comments (``#``) and
        a header are skipped. Plain or compressed.

    Yields
    ------
    polars.DataFrame
        ``chrom``, ``start``, ``end``, ``barcode``.

    Raises
    ------
    InputError
        If the file cannot be decompressed, or with the first line that is not a fragment.
    """
    remedy = "copy it again from the sequencing core"
    with (
        reading("FRAGMENTS", path, "not a readable fragments file", remedy),
        open_bytes(path) as file,
    ):
        n_lines = 0
        for text in iter_line_blocks(file, BLOCK_BYTES):
            try:
                block = parse_fragments(text if n_lines else comment_out_header(text))
            except (ValueError, pl.exceptions.PolarsError):
                refuse_line(text, n_lines, path)
                raise
            if len(block):
                yield block
            n_lines += text.count(b"\n")


def comment_out_header(text: bytes) -> bytes:
    """Turn a header into a comment: a first line whose second field begins with a letter."""
    start = find_end_of_comments(text)
    fields = text[start:].split(b"\n", 1)[0].split(b"\t")
    is_header = len(fields) >= len(COLUMNS) and fields[1].strip(b'"')[:1].isalpha()
    return text[:start] + b"#" + text[start:] if is_header else text


def find_end_of_comments(text: bytes) -> int:
    """Find the end of the comments and empty lines at the beginning of a text."""
    found = COMMENTS.match(text)
    return found.end() if found else 0


def refuse_line(text: bytes, n_before: int, path: str | Path) -> None:
    """Raise an error for the first line that is not a fragment; see :func:`read_fragments`.

    Parameters
    ----------
    text, n_before
        Whole lines, and the number of lines before them in the file.
    path
        The file, for messages.

    Raises
    ------
    InputError
        Showing the line.
    """
    for number, line in enumerate(text.split(b"\n"), n_before + 1):
        if line.strip() and not line.startswith(b"#") and not FRAGMENT.match(line):
            shown = "".join(
                c if c.isprintable() else " " for c in line[:60].decode(errors="replace")
            )
            raise InputError(
                "FRAGMENTS",
                f"{path}: line {number} ('{shown}') is not a fragment; expected chromosome, start, "
                "end and barcode separated by tabs, with integer start and end.",
            )


def parse_fragments(text: bytes) -> pl.DataFrame:
    """Parse whole lines of a fragments file; see :func:`read_fragments`.

    Raises
    ------
    ValueError, polars.exceptions.PolarsError
        If a line is not a fragment.
    """
    text = text[find_end_of_comments(text) :]  # polars would read an empty first line as a row
    if not text.strip():
        return pl.DataFrame(schema=COLUMNS)
    lines = pl.read_csv(
        text, has_header=False, separator="\t", quote_char=None, comment_prefix="#", schema=COLUMNS,
        truncate_ragged_lines=True, extra_columns="ignore",
    )  # fmt: skip
    lines = lines.filter(~pl.all_horizontal(pl.all().is_null()))  # drop empty lines
    if lines.null_count().sum_horizontal()[0]:
        raise ValueError("a line lacks one of chromosome, start, end, barcode")
    return lines


def count_barcodes(blocks: Iterable[pl.DataFrame]) -> pd.Series:
    """Count the fragments per barcode, in the order of first appearance."""
    counts = [block.group_by("barcode", maintain_order=True).len() for block in blocks]
    if not counts:
        return pd.Series([], index=pd.Index([], dtype=str), dtype=int)
    summed = pl.concat(counts).group_by("barcode", maintain_order=True).sum()
    return pd.Series(summed["len"].to_numpy(), index=pd.Index(summed["barcode"].to_numpy()))


def count_insertions(
    fragments: str | Path,
    windows: pd.DataFrame,
    n_genes: int,
    barcodes: pd.Index,
    form: Callable[[pd.Series], pd.Series] | None = None,
    rings: pd.DataFrame | None = None,
) -> tuple[sparse.csr_matrix, pd.DataFrame]:
    """Count Tn5 insertions in the promoter windows of each gene.

    Both ends of a fragment are insertions, at ``start`` and at ``end - 1``. An insertion counts
    once per window that contains it, so that a gene's count divided by its number of TSSs is the
    mean over its TSSs.

    Parameters
    ----------
    fragments
        Path of the fragments file, in any order.
    windows
        From :func:`scdyn.pp.reference.make_promoter_windows`.
    n_genes
        Number of genes of the vocabulary.
    barcodes
        The barcodes to count, in the order of the rows.
    form
        Converts the file's barcodes to the form of ``barcodes``; None if they have it.
    rings
        From :func:`scdyn.pp.reference.make_tss_rings`, for TSS enrichment.

    Returns
    -------
    counts : csr_matrix of int32, (barcodes, genes)
    totals : DataFrame, (barcodes)
        ``fragments``, ``insertions_in_promoters`` (each counted once), ``promoter_share`` (their
        share of all insertions), ``nucleosome_signal`` (ratio of fragments of 147 to 294 bp to
        shorter ones, as in Signac, Stuart et al. 2021) and, with rings, ``tss_enrichment``
        (:func:`compute_tss_enrichment`).

    Raises
    ------
    InputError
        If the file is not valid, or has no chromosome in common with the annotation.
    """
    rows = pl.DataFrame({"barcode": barcodes.to_numpy(), "row": np.arange(len(barcodes))})
    counts = sparse.csr_matrix((len(barcodes), n_genes), dtype=np.int32)
    held: list[tuple[np.ndarray, np.ndarray]] = []
    n_held = 0
    totals = np.zeros((6, len(barcodes)), dtype=np.int64)
    chromosomes: set[str] = set()
    by_chrom = {chrom: table for chrom, table in windows.groupby("chrom")}
    rings_of = {} if rings is None else dict(list(rings.groupby("chrom")))
    for block in read_fragments(fragments):
        check_positions(block, fragments)
        chromosomes.update(block["chrom"].unique())
        if form is None:
            in_cells = block.join(rows, on="barcode", how="inner")
        else:
            found = block["barcode"].unique()
            converted = form(pd.Series(found.to_list(), dtype=str))
            converted = pl.Series(converted.to_list(), dtype=pl.String)
            names = pl.DataFrame({"barcode": found, "converted": converted})
            matched = names.join(rows, left_on="converted", right_on="barcode", how="inner")
            in_cells = block.join(matched, on="barcode", how="inner")
        length = (in_cells["end"] - in_cells["start"]).to_numpy()
        row = in_cells["row"].to_numpy()
        for i, chosen in enumerate([length >= 0, (length >= 147) & (length < 294), length < 147]):
            totals[i] += np.bincount(row[chosen], minlength=len(barcodes))
        for (named,), part in in_cells.group_by("chrom"):
            chrom = to_ucsc_name(named)
            table = by_chrom.get(chrom)
            if table is None:
                continue
            row = np.tile(part["row"].to_numpy(), 2)
            position = np.concatenate([part["start"].to_numpy(), part["end"].to_numpy() - 1])
            hit, window = find_overlaps(position, position + 1, table)
            gene = table["gene"].to_numpy()[window]
            held.append((row[hit].astype(np.int32), gene.astype(np.int32)))
            n_held += len(hit)
            # Each addition copies all counts, so that it pays to have many insertions.
            if n_held >= INSERTIONS_AT_ONCE:
                counts, n_held = counts + sum_pairs(held, counts.shape), 0
            totals[3] += np.bincount(row[np.unique(hit)], minlength=len(barcodes))
            if chrom in rings_of:
                hit, ring = find_overlaps(position, position + 1, rings_of[chrom])
                at_centre = rings_of[chrom]["is_centre"].to_numpy()[ring]
                totals[4] += np.bincount(row[hit[at_centre]], minlength=len(barcodes))
                totals[5] += np.bincount(row[hit[~at_centre]], minlength=len(barcodes))
    counts = counts + sum_pairs(held, counts.shape)
    if not set(map(to_ucsc_name, chromosomes)) & set(by_chrom):
        raise InputError(
            "GENOMES",
            f"{fragments}: no chromosomes in common between fragments "
            f"({', '.join(sorted(chromosomes)[:3]) or 'none'}) and annotation "
            f"({', '.join(sorted(by_chrom)[:3])}); use the annotation of the same genome build.",
        )
    table = pd.DataFrame(
        {
            "fragments": totals[0],
            "insertions_in_promoters": totals[3],
            "promoter_share": totals[3] / np.maximum(2 * totals[0], 1),
            "nucleosome_signal": totals[1] / np.maximum(totals[2], 1),
        },
        index=barcodes,
    )
    if rings is not None:
        table["tss_enrichment"] = compute_tss_enrichment(totals[4], totals[5])
    return counts, table


def sum_pairs(
    pairs: list[tuple[np.ndarray, np.ndarray]], shape: tuple[int, int]
) -> sparse.csr_matrix:
    """Count how often each pair of row and column occurs, and empty the list."""
    row, column = (
        np.concatenate([np.zeros(0, np.int32), *(pair[i] for pair in pairs)]) for i in (0, 1)
    )
    pairs.clear()
    return sparse.csr_matrix((np.ones(len(row), np.int32), (row, column)), shape)


def compute_tss_enrichment(centre: np.ndarray, flanks: np.ndarray) -> np.ndarray:
    """Compute the TSS enrichment per cell: insertions per base at the TSSs over the flanks.

    ENCODE's TSS enrichment takes the maximum of a smoothed profile over all cells, for which a
    single cell has too few insertions.

    Parameters
    ----------
    centre, flanks
        (cells,) insertions in the rings of :func:`scdyn.pp.reference.make_tss_rings`. A cell
        without insertions in the flanks gets the mean of all cells, at least one, as in Signac.
    """
    n_centre, n_flanks = 101, 200
    usual = max(flanks.mean(), 1.0) if len(flanks) else 1.0
    return (centre / n_centre) / (np.where(flanks > 0, flanks, usual) / n_flanks)


def check_positions(block: pl.DataFrame, path: str | Path) -> None:
    """Refuse fragments with an invalid position.

    Raises
    ------
    InputError
        Showing the first fragment with a negative start, or an end that is not after its start.
    """
    nowhere = block.filter((pl.col("start") < 0) | (pl.col("end") <= pl.col("start")))
    if len(nowhere):
        raise InputError(
            "FRAGMENTS",
            f"{path}: {len(nowhere)} fragments have an invalid start or end, such as "
            f"{' '.join(map(str, nowhere.row(0)))}; expected chromosome, start, end (after the "
            "start), barcode, number of reads.",
        )


def compute_promoter_enrichment(
    places: pd.DataFrame, windows: pd.DataFrame, seed: int = 0
) -> float:
    """Compute the enrichment of fragments or peaks in promoters over random positions.

    Open chromatin is enriched at promoters. If the annotation is of another genome build or
    species, the ratio is about one.

    Parameters
    ----------
    places
        ``chrom`` and ``start`` of fragments or peaks.
    windows
        From :func:`scdyn.pp.reference.make_promoter_windows`.
    seed
        Of the random positions, uniform between the first and last position per chromosome.

    Returns
    -------
    float
        Number of positions in promoters, plus one, over that of as many random positions, plus
        one. NaN if no position is on a chromosome of the annotation.
    """
    rng = np.random.default_rng(seed)
    found, drawn, n_places = 1, 1, 0
    by_chrom = {chrom: table for chrom, table in windows.groupby("chrom")}
    for chrom, part in places.groupby(to_ucsc_names(places["chrom"])):
        if chrom not in by_chrom:
            continue
        starts = part["start"].to_numpy()
        random = rng.integers(starts.min(), starts.max() + 1, len(starts))
        found, drawn = (
            total + len(np.unique(find_overlaps(positions, positions + 1, by_chrom[chrom])[0]))
            for total, positions in ((found, starts), (drawn, random))
        )
        n_places += len(starts)
    return found / drawn if n_places else np.nan


def find_overlaps(
    starts: np.ndarray, ends: np.ndarray, windows: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """Find all pairs of an interval and a window that overlap, on one chromosome.

    Two binary searches over arrays; the joins of bioframe and pyranges copy whole tables.

    Parameters
    ----------
    starts, ends
        (N,) 0-based half-open intervals, in any order.
    windows
        ``start`` and ``end``, sorted by start.

    Returns
    -------
    interval, window : ndarray of int64
        Row numbers in ``starts`` and in ``windows``, one pair per position.
    """
    window_starts, window_ends = windows["start"].to_numpy(), windows["end"].to_numpy()
    # The ends are not sorted, but their running maximum is: no window before the first one whose
    # running maximum exceeds the interval's start can overlap it.
    first = np.searchsorted(np.maximum.accumulate(window_ends), starts, side="right")
    last = np.searchsorted(window_starts, ends, side="left")
    n_candidates = np.maximum(last - first, 0)
    interval = np.repeat(np.arange(len(starts)), n_candidates)
    offset = np.arange(n_candidates.sum()) - np.repeat(
        np.cumsum(n_candidates) - n_candidates, n_candidates
    )
    window = first[interval] + offset
    meets = window_ends[window] > starts[interval]
    return interval[meets], window[meets]


def parse_peaks(names: pd.Index) -> pd.DataFrame:
    """Parse peak names such as ``chrom:start-end`` into ``chrom``, ``start`` and ``end``.

    Raises
    ------
    InputError
        Showing the first name that is not an interval.
    """
    parsed = pd.Series(names.astype(str)).str.extract(r"^(.+)[:\-_](\d+)[-_](\d+)$")
    if parsed[0].isna().any():
        bad = names[parsed[0].isna().to_numpy()][0]
        raise InputError(
            "PROMOTERS", f"the peak name '{bad}' is not chrom:start-end; rename the peaks."
        )
    parsed.columns = ["chrom", "start", "end"]
    parsed["chrom"] = to_ucsc_names(parsed["chrom"])
    return parsed.astype({"start": np.int64, "end": np.int64})


def map_peaks(peak_names: pd.Index, windows: pd.DataFrame, n_genes: int) -> sparse.csr_matrix:
    """Map peaks to the genes whose promoter windows they overlap.

    For samples without fragments: multiplied by it, counts of peaks are summed per gene.

    Parameters
    ----------
    peak_names
        ``chrom:start-end`` or ``chrom-start-end`` (0-based, half open).
    windows, n_genes
        As in :func:`count_insertions`.

    Returns
    -------
    csr_matrix
        (peaks, genes) number of overlaps.

    Raises
    ------
    InputError
        If a name is not an interval, or no peak overlaps a window.
    """
    peaks = parse_peaks(peak_names)
    pairs = []
    for chrom, table in windows.groupby("chrom"):
        on_chrom = np.flatnonzero(peaks["chrom"] == chrom)
        bounds = peaks[["start", "end"]].to_numpy()[on_chrom]
        peak, window = find_overlaps(bounds[:, 0], bounds[:, 1], table)
        pairs.append(np.stack([on_chrom[peak], table["gene"].to_numpy()[window]]))
    peak, gene = np.concatenate(pairs, axis=1)
    if not len(peak):
        raise InputError(
            "PROMOTERS",
            f"none of the {len(peak_names)} peaks (such as {peak_names[0]}) overlaps a promoter; "
            "use the annotation of the same genome build.",
        )
    ones = np.ones(len(peak), np.int32)
    return sparse.csr_matrix((ones, (peak, gene)), shape=(len(peak_names), n_genes))
