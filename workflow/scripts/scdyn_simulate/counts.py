"""Sequencing of the simulated cells: positions, RNA counts, barcodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse, stats

from scdyn_simulate.dynamics import Cells
from scdyn_simulate.fragments import Fragments, Peaks, call_peaks, count_cuts, draw_fragments
from scdyn_simulate.network import Genome, Network
from scdyn_simulate.parameters import Simulation

WHITELIST = 20_000
"""Number of possible barcodes, small enough that some occur in two samples."""
N_BLOCKS = 10
"""Pairs of somites on the section."""
BLOCK = 160.0
"""Distance from one somite to the next, um."""


@dataclass(frozen=True)
class Counts:
    """The data of one sequenced sample, and the truth.

    ``cells`` has one row per called barcode, in the order of the matrix: sample,
    barcode, cell_type, x, y (um), then the truth. ``barcodes`` are all observed
    barcodes: first the called ones, in the same order. ``rna`` and ``peaks`` are
    (features, called barcodes); ``metrics`` has one row per barcode of ``barcodes``.
    """

    cells: pd.DataFrame
    barcodes: np.ndarray
    rna: sparse.csc_array
    intervals: Peaks
    peaks: sparse.csc_array
    fragments: Fragments
    metrics: pd.DataFrame


def draw_whitelist(rng: np.random.Generator) -> np.ndarray:
    """Draw distinct barcodes of 16 bases with the suffix of the only GEM well.

    Returns
    -------
    numpy.ndarray
        Strings, (WHITELIST,), in random order.
    """
    numbers = np.unique(rng.integers(0, 4**16, WHITELIST + 100, dtype=np.int64))
    digits = (numbers[:, None] >> (2 * np.arange(15, -1, -1))) & 3
    bases = np.array(list("ACGT"))[digits]
    return rng.permutation(np.array(["".join(row) + "-1" for row in bases]))[:WHITELIST]


def place_cells(
    parameters: Simulation, table: pd.DataFrame, rng: np.random.Generator
) -> np.ndarray:
    """Place cells on a section: tail at the bottom, midline at x = 0.

    The position depends on a cell's signal and intended fate, also in the knockout:
    the neural tube is along the midline with ten pairs of somites on its sides
    (older cells further from the tail), progenitors are in the tail with lateral
    ones outside, and endothelium is anywhere.

    Returns
    -------
    numpy.ndarray
        x and y in um, (cells, 2).
    """
    n = len(table)
    first, last = parameters.mature_times
    age = (table["time"].to_numpy() - first) / (last - first)
    side = rng.choice([-1.0, 1.0], n)
    tube = np.column_stack(
        [rng.normal(0, 30, n), 150 + N_BLOCKS * BLOCK * age + rng.normal(0, 40, n)]
    )
    block = np.clip(np.floor(N_BLOCKS * age + rng.normal(0, 0.4, n)), 0, N_BLOCKS - 1)
    somite = np.column_stack(
        [
            side * (145 + rng.uniform(-50, 50, n)),
            150 + BLOCK * (block + 0.5) + rng.uniform(-62, 62, n),
        ]
    )
    lateral = stats.norm.cdf(table["signal"].to_numpy())
    depth = rng.uniform(0, 1, n) ** 1.5
    across = (1 - 0.5 * depth) * (side * 130 * lateral + rng.normal(0, 20, n))
    tail = np.column_stack([across, 80 - 380 * depth + rng.normal(0, 15, n)])
    anywhere = np.column_stack(
        [rng.uniform(-240, 240, n), rng.uniform(-250, 150 + N_BLOCKS * BLOCK, n)]
    )
    chosen = np.where((table["intended_fate"] == "somite").to_numpy()[:, None], somite, tube)
    chosen = np.where((table["stage"] == "progenitor").to_numpy()[:, None], tail, chosen)
    return np.where((table["stage"] == "endothelium").to_numpy()[:, None], anywhere, chosen)


def mark_cells(
    parameters: Simulation, table: pd.DataFrame, rng: np.random.Generator
) -> pd.DataFrame:
    """Draw the artefacts of each barcode and its sequencing depth.

    Returns
    -------
    pandas.DataFrame
        ``table`` with is_doublet, partner (a row of another state), is_poor,
        modality (both, rna, atac), umis and fragments (expected), and
        mitochondrial (share of UMIs).
    """
    n = len(table)
    table = table.copy()
    kind = rng.random(n)
    table["is_doublet"] = kind < parameters.doublet_share
    table["is_poor"] = kind > 1 - parameters.poor_share
    state = table["state"].to_numpy()
    partner = rng.permutation(n)
    for _ in range(20):
        same = state[partner] == state
        partner[same] = rng.integers(0, n, same.sum())
    table["partner"] = np.where(table["is_doublet"], partner, np.arange(n))
    lone = rng.random(n)
    share = parameters.one_modality_share
    table["modality"] = np.where(lone < share, "rna", np.where(lone > 1 - share, "atac", "both"))
    umis = parameters.umis * rng.lognormal(0, parameters.umis_sd, n)
    fragments = parameters.fragments * rng.lognormal(0, parameters.fragments_sd, n)
    doubled, poor = table["is_doublet"].to_numpy(), table["is_poor"].to_numpy()
    umis = np.where(doubled, umis + umis[partner], umis)
    fragments = np.where(doubled, fragments + fragments[partner], fragments)
    table["umis"] = umis * np.where(poor, rng.uniform(0.08, 0.25, n), 1)
    table["fragments"] = fragments * np.where(poor, rng.uniform(0.1, 0.3, n), 1)
    table.loc[table["modality"] == "atac", "umis"] = 3.0
    table.loc[table["modality"] == "rna", "fragments"] = 0.0
    sound = parameters.mitochondrial_share * rng.lognormal(0, 0.4, n)
    table["mitochondrial"] = np.where(poor, rng.uniform(0.3, 0.6, n), sound.clip(max=0.25))
    return table


def annotate(
    parameters: Simulation, state: np.ndarray, knockout: bool, rng: np.random.Generator
) -> np.ndarray:
    """Annotate cell types as a laboratory would.

    Returns
    -------
    numpy.ndarray
        Types with some errors; ``unassigned`` in a knockout.
    """
    if knockout:
        return np.full(len(state), "unassigned")
    types = np.array(["progenitor", "somite", "neural_tube", "endothelium"])
    wrong = rng.random(len(state)) < parameters.label_error
    number = (state[:, None] == types).argmax(axis=1)
    return types[(number + wrong * rng.integers(1, 4, len(state))) % 4]


class Sequencer:
    """Sequences the samples of one study, whose common properties are drawn once.

    Parameters
    ----------
    parameters, network, genome, cells
        The simulated study.
    seed
        Random stream of this stage.
    samples
        Names of the samples.
    """

    def __init__(
        self,
        parameters: Simulation,
        network: Network,
        genome: Genome,
        cells: Cells,
        seed: np.random.SeedSequence,
        samples: Sequence[str],
    ) -> None:
        shared, *self.seeds = seed.spawn(1 + len(samples))
        rng = np.random.default_rng(shared)
        self.parameters, self.genome, self.cells = parameters, genome, cells
        self.samples = samples
        genes = genome.genes
        # TFs vary less than other genes, because the effect of undetected TFs cannot be inferred.
        is_tf = genes["network"].between(0, network.n_tfs - 1).to_numpy()
        spread = np.where(is_tf, parameters.baseline_sd / 2, parameters.baseline_sd)
        self.baseline = np.where(is_tf, 2.5, 1.0) * rng.lognormal(0, spread)
        self.dispersion = parameters.dispersion * rng.lognormal(0, 0.4, len(genes))
        self.promoters = rng.lognormal(0, 0.5, len(genes))
        self.distal = rng.lognormal(0, 0.7, len(genome.distal))
        self.whitelist = draw_whitelist(rng)
        self.intervals = call_peaks(genome)

    def map_genes(self, levels: np.ndarray) -> np.ndarray:
        """Map levels of the network's genes to the genome's genes.

        Returns
        -------
        numpy.ndarray
            (genes, cells), genes in the genome's order; non-coding genes have a
            constant level of 0.3.
        """
        rows = self.genome.genes["network"].to_numpy()
        return np.where((rows >= 0)[:, None], levels[rows], np.float32(0.3))

    def sequence(self, index: int) -> Counts:
        """Sequence one sample.

        Parameters
        ----------
        index
            Index of the sample.

        Returns
        -------
        Counts
        """
        p, name = self.parameters, self.samples[index]
        rng_cells, rng_rna, rng_atac = (
            np.random.default_rng(s) for s in self.seeds[index].spawn(3)
        )
        rows = np.flatnonzero(self.cells.table["sample"] == index)
        # Barcodes are random and the matrix is sorted by barcode, so the order of cells is random.
        rows = rng_cells.permutation(rows)
        table = self.cells.table.iloc[rows].reset_index(drop=True)
        table[["x", "y"]] = place_cells(p, table, rng_cells)
        table = mark_cells(p, table, rng_cells)
        knockout = name.startswith("knockout")
        table["cell_type"] = annotate(p, table["state"].to_numpy(), knockout, rng_cells)
        n, n_uncalled = len(table), max(1, round(p.uncalled_share * len(table)))
        n_empty = round(p.empty_ratio * n)
        seen = rng_cells.permutation(self.whitelist)[: n + n_uncalled + n_empty]
        barcodes = np.concatenate([np.sort(seen[:n]), seen[n:]])
        table["barcode"], table["sample"] = barcodes[:n], name
        rna = self.count_rna(table, rows, rng_rna)
        fragments = self.sequence_atac(table, rows, (n_uncalled, n_empty), rng_atac)
        peaks, per_barcode = count_cuts(fragments, self.intervals, self.genome, len(barcodes), n)
        umis = np.concatenate(
            [rna.sum(axis=0), rng_rna.poisson(rng_rna.gamma(2, 15, len(seen) - n))]
        )
        found = np.concatenate([np.diff(rna.indptr), (0.9 * umis[n:]).astype(int)])
        metrics = pd.DataFrame(
            {
                "barcode": barcodes,
                "gex_barcode": barcodes,
                "atac_barcode": barcodes,
                "is_cell": (np.arange(len(barcodes)) < n).astype(int),
                "excluded_reason": 0,
                "gex_raw_reads": umis * 5 + rng_rna.poisson(20, len(umis)),
                "gex_umis_count": umis,
                "gex_genes_count": found,
                **per_barcode,
            }
        ).sort_values("barcode", ignore_index=True)
        return Counts(table, barcodes, rna, self.intervals, peaks, fragments, metrics)

    def count_rna(
        self, table: pd.DataFrame, rows: np.ndarray, rng: np.random.Generator
    ) -> sparse.csc_array:
        """Draw the RNA counts of a sample's called barcodes.

        Returns
        -------
        scipy.sparse.csc_array
            (genes, cells), int32.
        """
        p = self.parameters
        mitochondrial = (self.genome.genes["chrom"] == "chrM").to_numpy()
        batch = rng.lognormal(0, p.batch_sd, len(self.baseline))
        level = 0.01 + self.map_genes(self.cells.rna)[:, rows]
        profile = (self.baseline * batch)[:, None] * level
        profile[mitochondrial] /= profile[mitochondrial].sum(axis=0)
        profile[~mitochondrial] /= profile[~mitochondrial].sum(axis=0)
        profile = (profile + profile[:, table["partner"]]) / 2
        share = table["mitochondrial"].to_numpy()
        profile *= np.where(mitochondrial[:, None], share, 1 - share)
        ambient = profile.mean(axis=1, keepdims=True)
        soup = rng.beta(40 * p.ambient_share, 40 * (1 - p.ambient_share), len(table))
        mean = ((1 - soup) * profile + soup * ambient) * table["umis"].to_numpy()
        shape = (1 / self.dispersion)[:, None]
        counts = rng.poisson(rng.gamma(shape, mean / shape)).astype(np.int32)
        return sparse.csc_array(counts)

    def sequence_atac(
        self,
        table: pd.DataFrame,
        rows: np.ndarray,
        sizes: tuple[int, int],
        rng: np.random.Generator,
    ) -> Fragments:
        """Draw the fragments of all barcodes of a sample.

        Parameters
        ----------
        table, rows
            The called cells and their indices in the study.
        sizes
            Numbers of uncalled barcodes with many fragments, and of empty droplets.

        Returns
        -------
        Fragments
        """
        p, n = self.parameters, len(table)
        batch = rng.lognormal(0, p.batch_sd, len(self.promoters))
        openness = self.map_genes(self.cells.openness)[:, rows]
        openness = (openness + openness[:, table["partner"]]) / 2
        targets = self.genome.promoters
        accessible = self.promoters * batch
        use = targets["use"].to_numpy() * accessible[targets["gene"]]
        promoters = use[:, None] * (0.04 + openness[targets["gene"]])
        distal = self.distal[:, None] * (0.3 + 0.7 * openness[self.genome.distal["gene"]])
        n_uncalled, n_empty = sizes
        # An uncalled barcode with many fragments is a cell whose RNA was lost.
        lost = rng.integers(0, n, n_uncalled)
        source = np.concatenate([np.arange(n), lost, np.zeros(n_empty, dtype=int)])
        foreign = rng.beta(40 * p.ambient_share, 40 * (1 - p.ambient_share), len(source))
        foreign[n + n_uncalled :] = 1
        depth = np.concatenate(
            [
                table["fragments"],
                p.fragments * rng.lognormal(0, p.fragments_sd, n_uncalled),
                p.empty_fragments * rng.lognormal(0, 0.7, n_empty),
            ]
        )
        poor = np.append(table["is_poor"].to_numpy(), np.zeros(n_uncalled + n_empty, dtype=bool))
        quality = np.where(poor, 0.4, 1.0)
        aimed = quality * rng.beta(60 * p.promoter_share, 60 * (1 - p.promoter_share), len(source))
        away = quality * rng.beta(60 * p.distal_share, 60 * (1 - p.distal_share), len(source))
        rates = []
        for rate, share in ((promoters, aimed), (distal, away)):
            shares = rate / rate.sum(axis=0)
            mean = shares.mean(axis=1, keepdims=True)
            mixed = (1 - foreign) * shares[:, source] + foreign * mean
            rates.append(mixed * (share * depth))
        background = depth * (1 - aimed - away).clip(min=0)
        return draw_fragments(self.genome, rates[0], rates[1], background, rng)
