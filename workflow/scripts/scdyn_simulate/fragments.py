"""ATAC fragments of the simulated cells, and counts of insertions in peaks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from scdyn_simulate.network import Genome

MONONUCLEOSOMAL = 0.3
"""Share of fragments that span a nucleosome."""
PROMOTER_CENTRE, PROMOTER_SPREAD = -100.0, 250.0
"""Mean and spread of fragments around the nucleosome-free region upstream of a TSS, in bp."""
DISTAL_SPREAD = 120.0
"""Spread of fragments around the centre of a distal element, in bp."""


@dataclass(frozen=True)
class Fragments:
    """Fragments sorted by chromosome and start, as arrays of equal length.

    ``chrom`` is an index of the genome's chromosomes, ``start`` and ``end`` are
    0-based and half-open (both ends are insertions), ``barcode`` is an index of the
    sample's barcodes, ``support`` the number of read pairs.
    """

    chrom: np.ndarray
    start: np.ndarray
    end: np.ndarray
    barcode: np.ndarray
    support: np.ndarray


@dataclass(frozen=True)
class Peaks:
    """Disjoint intervals, sorted; 0-based, half-open; chrom as in ``Fragments``."""

    chrom: np.ndarray
    start: np.ndarray
    end: np.ndarray


def draw_lengths(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw fragment lengths from the nucleosome-free and mononucleosomal modes.

    Returns
    -------
    numpy.ndarray
        Lengths in bp, at least 25; (n,).
    """
    long = rng.random(n) < MONONUCLEOSOMAL
    lengths = np.where(long, rng.normal(200, 25, n), rng.normal(75, 22, n))
    return np.clip(np.rint(lengths), 25, None).astype(np.int64)


def draw_events(rates: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw Poisson numbers of events and list the events.

    Parameters
    ----------
    rates
        Expected numbers, (sites, barcodes).

    Returns
    -------
    tuple
        Site and barcode of each event.
    """
    numbers = rng.poisson(rates)
    sites, barcodes = np.nonzero(numbers)
    repeats = numbers[sites, barcodes]
    return np.repeat(sites, repeats), np.repeat(barcodes, repeats)


def draw_fragments(
    genome: Genome,
    promoters: np.ndarray,
    distal: np.ndarray,
    background: np.ndarray,
    rng: np.random.Generator,
) -> Fragments:
    """Draw all fragments of a sample.

    Parameters
    ----------
    genome
        Positions of promoters and distal elements.
    promoters, distal
        Expected number of fragments, (sites, barcodes).
    background
        Expected number of fragments anywhere in the nuclear genome, (barcodes,).
    rng
        Random stream.

    Returns
    -------
    Fragments
        Without chrM, whose reads Cell Ranger ARC counts but does not write to the file.
    """
    names = list(genome.lengths)
    number = {name: i for i, name in enumerate(names)}
    gene = genome.promoters["gene"].to_numpy()
    gene_chrom = genome.genes["chrom"].map(number).to_numpy()[gene]
    direction = np.where(genome.genes["strand"] == "+", 1, -1)[gene]
    site, first = draw_events(promoters, rng)
    offset = rng.normal(PROMOTER_CENTRE, PROMOTER_SPREAD, len(site))
    middles = [genome.promoters["tss"].to_numpy()[site] + direction[site] * offset]
    chroms, barcodes = [gene_chrom[site]], [first]
    site, second = draw_events(distal, rng)
    middles.append(
        genome.distal["centre"].to_numpy()[site] + rng.normal(0, DISTAL_SPREAD, len(site))
    )
    chroms.append(genome.distal["chrom"].map(number).to_numpy()[site])
    barcodes.append(second)
    third = np.repeat(np.arange(len(background)), rng.poisson(background))
    nuclear = np.array([genome.lengths[n] if n != "chrM" else 0 for n in names], dtype=float)
    anywhere = rng.choice(len(names), len(third), p=nuclear / nuclear.sum())
    middles.append(rng.random(len(third)) * nuclear[anywhere])
    chroms.append(anywhere)
    barcodes.append(third)
    chrom, middle, barcode = (np.concatenate(parts) for parts in (chroms, middles, barcodes))
    length = draw_lengths(len(chrom), rng)
    start = np.clip(np.rint(middle).astype(np.int64) - length // 2, 0, None)
    start = np.minimum(start, nuclear[chrom].astype(np.int64) - length)
    order = np.argsort((chrom << 32) + start, kind="stable")
    return Fragments(
        chrom=chrom[order].astype(np.int8),
        start=start[order].astype(np.int32),
        end=(start + length)[order].astype(np.int32),
        barcode=barcode[order].astype(np.int32),
        support=rng.geometric(0.5, len(order)).astype(np.int16),
    )


def call_peaks(genome: Genome) -> Peaks:
    """Merge windows around promoters and distal elements into disjoint peaks.

    Returns
    -------
    Peaks
    """
    number = {name: i for i, name in enumerate(genome.lengths)}
    gene = genome.promoters["gene"].to_numpy()
    near = pd.DataFrame(
        {
            "chrom": genome.genes["chrom"].map(number).to_numpy()[gene],
            "start": genome.promoters["tss"] - 500,
            "end": genome.promoters["tss"] + 500,
        }
    )
    far = pd.DataFrame(
        {
            "chrom": genome.distal["chrom"].map(number),
            "start": genome.distal["centre"] - 250,
            "end": genome.distal["centre"] + 250,
        }
    )
    table = pd.concat([near, far]).sort_values(["chrom", "start", "end"])
    merged: list[list[int]] = []
    for chrom, start, end in table.itertuples(index=False):
        if merged and merged[-1][0] == chrom and start <= merged[-1][2]:
            merged[-1][2] = max(merged[-1][2], end)
        else:
            merged.append([chrom, max(0, start), end])
    chrom, start, end = np.array(merged).T
    return Peaks(chrom, start, end)


def find_interval(chrom: np.ndarray, position: np.ndarray, peaks: Peaks) -> np.ndarray:
    """Find the index of the interval that contains each position, or -1."""
    starts = (peaks.chrom.astype(np.int64) << 32) + peaks.start
    place = (chrom.astype(np.int64) << 32) + position
    index = np.searchsorted(starts, place, side="right") - 1
    at = index.clip(min=0)
    inside = (index >= 0) & (peaks.chrom[at] == chrom) & (position < peaks.end[at])
    return np.where(inside, index, -1)


def count_cuts(
    fragments: Fragments, peaks: Peaks, genome: Genome, n_barcodes: int, n_called: int
) -> tuple[sparse.csc_array, dict[str, np.ndarray]]:
    """Count insertions in peaks, and compute Cell Ranger ARC's metrics per barcode.

    Parameters
    ----------
    fragments, peaks, genome
        The sample's fragments, the peaks, and the genome.
    n_barcodes, n_called
        Number of barcodes, and of called barcodes, which come first.

    Returns
    -------
    tuple
        Insertions, (peaks, called barcodes), int32; and columns of the metrics, each
        (n_barcodes,).
    """
    ends = [
        find_interval(fragments.chrom, position, peaks)
        for position in (fragments.start, fragments.end - 1)
    ]
    peak = np.concatenate(ends)
    barcode = np.concatenate([fragments.barcode] * 2)
    kept = (peak >= 0) & (barcode < n_called)
    ones = np.ones(kept.sum(), dtype=np.int32)
    matrix = sparse.coo_array(
        (ones, (peak[kept], barcode[kept])), shape=(len(peaks.start), n_called)
    ).tocsc()
    matrix.sort_indices()
    in_peak = (ends[0] >= 0) | (ends[1] >= 0)
    cuts = (ends[0] >= 0).astype(int) + (ends[1] >= 0)
    number = {name: i for i, name in enumerate(genome.lengths)}
    gene_chrom = genome.genes["chrom"].map(number).to_numpy()
    chrom = gene_chrom[genome.promoters["gene"]]
    tss = genome.promoters["tss"].to_numpy()
    order = np.lexsort([tss, chrom])
    # Distance to the nearest TSS on either side of a fragment's middle, on its chromosome.
    line = (chrom[order].astype(np.int64) << 32) + tss[order]
    middle = (fragments.start.astype(np.int64) + fragments.end) // 2
    place = (fragments.chrom.astype(np.int64) << 32) + middle
    after = np.searchsorted(line, place).clip(max=len(line) - 1)
    distance = np.minimum(
        np.abs(line[after] - place), np.abs(line[(after - 1).clip(min=0)] - place)
    )

    def sum_per_barcode(weight: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(fragments.barcode, weight, n_barcodes).astype(int)

    reads = sum_per_barcode(fragments.support)
    return matrix, {
        "atac_raw_reads": (1.25 * reads).astype(int),
        "atac_dup_reads": reads - sum_per_barcode(),
        "atac_mitochondrial_reads": (0.02 * reads).astype(int),
        "atac_fragments": sum_per_barcode(),
        "atac_TSS_fragments": sum_per_barcode(distance <= 1_000),
        "atac_peak_region_fragments": sum_per_barcode(in_peak),
        "atac_peak_region_cutsites": sum_per_barcode(cuts),
    }
