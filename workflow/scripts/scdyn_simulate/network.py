"""The genes of the simulated embryo: their regulatory network and their positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from scdyn_simulate.parameters import Simulation

FATES = {"somite": "Som", "neural_tube": "Neu", "endothelium": "End"}
MITOCHONDRIAL = tuple(
    "mt-Nd1 mt-Nd2 mt-Co1 mt-Co2 mt-Atp8 mt-Atp6 mt-Co3 "
    "mt-Nd3 mt-Nd4l mt-Nd4 mt-Nd5 mt-Nd6 mt-Cytb".split()
)
CHROMOSOMES = ("chr1", "chr2", "chr3", "chr4")
MITOCHONDRIAL_LENGTH = 16_300


@dataclass(frozen=True)
class Network:
    """A signed, weighted network and the kinetic constants of each gene.

    The order of genes is: transcription factors, targets, mitochondrial genes.
    """

    symbols: list[str]
    """Symbols of the genes, length ``n_genes``."""
    programmes: np.ndarray
    """Programme of each transcription factor: Som, Neu, End, Pro or Reg; (n_tfs,)."""
    weights: np.ndarray
    """Activating (> 0) and repressing (< 0) inputs, (n_tfs, n_genes)."""
    basal: np.ndarray
    """Promoter input without any regulator, (n_genes,)."""
    promoter_rate: np.ndarray
    """1 / relaxation time of the promoter, (n_genes,), 1 / time unit."""
    rna_rate: np.ndarray
    """1 / life of the RNA, (n_genes,), 1 / time unit."""
    protein_rate: np.ndarray
    """1 / life of the protein, (n_tfs,), 1 / time unit."""
    pathways: np.ndarray
    """Pathway whose drive each transcription factor shares, (n_tfs,)."""

    @property
    def n_tfs(self) -> int:
        """Number of transcription factors."""
        return len(self.programmes)

    def tf(self, symbol: str) -> int:
        """Row of a transcription factor."""
        return self.symbols.index(symbol)

    def inputs(self, genes: slice) -> tuple[sparse.csr_array, sparse.csr_array]:
        """Activating and repressing weights, each (genes, n_tfs) and >= 0.

        Sparse, because dense products are summed in an order that depends on the
        number of threads.
        """
        columns = self.weights[:, genes].T.astype(np.float32)
        return sparse.csr_array(columns.clip(min=0)), sparse.csr_array((-columns).clip(min=0))


@dataclass(frozen=True)
class Genome:
    """Positions of the genes and their promoters, sorted by position.

    ``genes`` has one row per gene: id, symbol, biotype, chrom, strand, start, end
    (1-based, inclusive, as in GTF), network (index in the network; -1 for
    non-coding genes). ``transcripts`` has one row per transcript: gene (row of
    ``genes``), id, exons (pairs of 1-based start and end, ascending), tss (0-based).
    ``promoters`` has one row per distinct TSS: gene, tss (0-based), use (share of
    the gene's openness; sums to 1 per gene). ``distal`` has chrom, centre (0-based)
    and gene (the nearest, whose openness the element has). ``lengths`` are those of
    the chromosomes, in base pairs.
    """

    genes: pd.DataFrame
    transcripts: pd.DataFrame
    promoters: pd.DataFrame
    distal: pd.DataFrame
    lengths: dict[str, int]


def name_genes(parameters: Simulation) -> tuple[list[str], np.ndarray]:
    """Name all genes after their programme or kind, and list the programme of each TF.

    Returns
    -------
    tuple
        Symbols, length n_genes, and programmes, (n_tfs,).
    """
    sizes = {
        "Som": max(3, round(0.13 * parameters.n_tfs)),
        "Neu": max(3, round(0.13 * parameters.n_tfs)),
        "End": max(2, round(0.10 * parameters.n_tfs)),
        "Pro": max(1, round(0.07 * parameters.n_tfs)),
    }
    sizes["Reg"] = parameters.n_tfs - sum(sizes.values())
    symbols = [
        f"Reg{i:02d}" if programme == "Reg" else f"{programme}{i}"
        for programme, size in sizes.items()
        for i in range(1, size + 1)
    ]
    targets = parameters.n_genes - parameters.n_tfs - len(MITOCHONDRIAL)
    symbols += [f"Gene{i:04d}" for i in range(1, targets + 1)] + list(MITOCHONDRIAL)
    return symbols, np.repeat(list(sizes), list(sizes.values()))


def list_core_edges(programmes: np.ndarray, symbols: list[str]) -> dict[tuple[str, str], float]:
    """List the designed edges: the toggle switch, the programmes and their feedback.

    Returns
    -------
    dict
        Signed weight of each (regulator, target).
    """
    edges = {
        ("Som1", "Som1"): 4.0,
        ("Neu1", "Neu1"): 4.0,
        ("End1", "End1"): 4.0,
        ("Som1", "Neu1"): -20.0,
        ("Neu1", "Som1"): -20.0,
        # The niche's factor represses both masters, and each master represses it.
        ("Pro1", "Som1"): -8.0,
        ("Pro1", "Neu1"): -8.0,
        ("Som1", "Pro1"): -4.0,
        ("Neu1", "Pro1"): -4.0,
        ("End1", "Som1"): -12.0,
        ("End1", "Neu1"): -12.0,
        ("End1", "Pro1"): -4.0,
        ("Pro1", "End1"): -4.0,
        ("Som1", "End1"): -8.0,
        ("Neu1", "End1"): -8.0,
        # One member of each programme activates its master: a weaker driver.
        ("Som2", "Som1"): 1.0,
        ("Neu2", "Neu1"): 1.0,
        ("End2", "End1"): 1.0,
    }
    for symbol, programme in zip(symbols, programmes, strict=False):
        if programme != "Reg" and symbol != f"{programme}1":
            edges[f"{programme}1", symbol] = 4.0
    return edges


def assign_pools(n_targets: int, rng: np.random.Generator) -> np.ndarray:
    """Assign the programme that mostly regulates each target gene.

    Returns
    -------
    numpy.ndarray
        Som, Neu, Both, End, Pro or Any for each target, (n_targets,).
    """
    shares = {"Som": 0.13, "Neu": 0.13, "Both": 0.04, "End": 0.1, "Pro": 0.08}
    shares["Any"] = 1 - sum(shares.values())
    return rng.choice(list(shares), size=n_targets, p=list(shares.values()))


def weigh_pools(programme: str, pools: np.ndarray, activates: bool) -> np.ndarray:
    """Weigh each gene by the relative probability that a TF of a programme regulates it.

    Returns
    -------
    numpy.ndarray
        One positive number per gene.
    """
    own = (pools == programme) | ((pools == "Both") & (programme in ("Som", "Neu")))
    if programme == "Reg":
        return np.where(pools == "Any", 1.0, 0.2)
    # A fate's factors activate their own genes and repress those of other fates.
    other = (pools != "Any") & ~own
    return np.where(
        own, 1.0 if activates else 0.03, np.where(other, 0.03 if activates else 0.5, 0.12)
    )


def build_network(parameters: Simulation, rng: np.random.Generator) -> Network:
    """Draw the network and the kinetics of its genes.

    Parameters
    ----------
    parameters
        Sizes, shares and median times.
    rng
        Random stream of this stage.

    Returns
    -------
    Network
    """
    symbols, programmes = name_genes(parameters)
    n_tfs, n_genes = parameters.n_tfs, parameters.n_genes
    n_regulated = n_genes - len(MITOCHONDRIAL)
    pools = np.concatenate([programmes, assign_pools(n_regulated - n_tfs, rng)])
    pools[pools == "Reg"] = "Any"
    core = list_core_edges(programmes, symbols)
    weights = np.zeros((n_tfs, n_genes))
    # Only designed edges regulate the TFs of a programme, so that fates do not depend on chance.
    closed = programmes != "Reg"
    for tf, programme in enumerate(programmes):
        share = parameters.least_targets * (1 + rng.pareto(1.5))
        degree = round(min(share, parameters.most_targets) * n_genes)
        n_activated = rng.binomial(degree, parameters.activating_share)
        taken = np.zeros(n_regulated, dtype=bool)
        taken[:n_tfs][closed] = True
        taken[tf] = True
        for sign, size in ((1, n_activated), (-1, degree - n_activated)):
            chance = weigh_pools(programme, pools, sign > 0) * ~taken
            chosen = rng.choice(n_regulated, size, replace=False, p=chance / chance.sum())
            weights[tf, chosen] = sign * rng.lognormal(np.log(4.0), 0.4, size)
            taken[chosen] = True
    # Inputs to driven factors are weak, because strong ones would fix them on or off.
    weights[:, np.flatnonzero(programmes == "Reg")] *= 0.25
    for (regulator, target), weight in core.items():
        weights[symbols.index(regulator), symbols.index(target)] = weight
    activated = (weights > 0).any(axis=0)
    basal = np.where(activated, 0.12, 0.8) * rng.lognormal(0, 0.4, n_genes)
    return Network(
        symbols=symbols,
        programmes=programmes,
        weights=weights,
        basal=set_tf_basal(basal, symbols, programmes),
        promoter_rate=1 / (parameters.promoter_time * rng.lognormal(0, 0.2, n_genes)),
        rna_rate=1 / (parameters.rna_time * rng.lognormal(0, 0.25, n_genes)),
        protein_rate=1 / (parameters.protein_time * rng.lognormal(0, 0.2, n_tfs)),
        pathways=rng.integers(0, 6, n_tfs),
    )


def set_tf_basal(basal: np.ndarray, symbols: list[str], programmes: np.ndarray) -> np.ndarray:
    """Set the basal input of transcription factors by programme.

    The two masters have the same basal input, high enough to turn each on in the
    absence of the other, which then decides the cell's fate.

    Returns
    -------
    numpy.ndarray
        A changed copy, (n_genes,).
    """
    basal = basal.copy()
    for tf, programme in enumerate(programmes):
        basal[tf] = 0.4 if programme == "Reg" else 0.05
    for symbol, value in {"Som1": 0.25, "Neu1": 0.25, "End1": 0.01, "Pro1": 0.02}.items():
        basal[symbols.index(symbol)] = value
    return basal


def build_genome(parameters: Simulation, network: Network, rng: np.random.Generator) -> Genome:
    """Place the genes on chromosomes in random order.

    Returns
    -------
    Genome
    """
    n_genes, n_lncrnas = parameters.n_genes, parameters.n_lncrnas
    symbols = [*network.symbols, *(f"Lnc{i:02d}" for i in range(1, n_lncrnas + 1))]
    numbers = rng.permutation(np.arange(1, 20 * len(symbols)))[: len(symbols)]
    nuclear = np.concatenate([np.arange(n_genes - 13), np.arange(n_genes, len(symbols))])
    rows, transcripts = [], []
    position = dict.fromkeys(CHROMOSOMES, 20_000)
    for rank, gene in enumerate(rng.permutation(nuclear)):
        chrom = CHROMOSOMES[rank * len(CHROMOSOMES) // len(nuclear)]
        position[chrom] += int(rng.integers(15_000, 25_001))
        length = int(np.clip(rng.lognormal(np.log(5_000), 0.5), 1_500, 12_000))
        strand = "+" if rng.random() < 0.5 else "-"
        rows.append((gene, chrom, strand, position[chrom] + 1, position[chrom] + length))
        transcripts.append(draw_transcripts(length, position[chrom] + 1, strand, rng))
    lengths = {chrom: last + 40_000 for chrom, last in position.items()}
    for i in range(13):
        strand = "-" if MITOCHONDRIAL[i] == "mt-Nd6" else "+"
        start = 2_000 + 1_050 * i
        rows.append((n_genes - 13 + i, "chrM", strand, start + 1, start + 900))
        transcripts.append([[(start + 1, start + 900)]])
    genes = pd.DataFrame(rows, columns=["network", "chrom", "strand", "start", "end"])
    genes["symbol"] = [symbols[i] for i in genes["network"]]
    genes["id"] = [f"ENSSIMG{numbers[i]:011d}" for i in genes["network"]]
    genes["version"] = rng.integers(1, 12, len(genes))
    genes["biotype"] = np.where(genes["network"] < n_genes, "protein_coding", "lncRNA")
    genes.loc[genes["network"] >= n_genes, "network"] = -1
    table = list_transcripts(genes, transcripts)
    return Genome(
        genes=genes,
        transcripts=table,
        promoters=list_promoters(genes, table, rng),
        distal=place_distal(genes, lengths, rng),
        lengths={**lengths, "chrM": MITOCHONDRIAL_LENGTH},
    )


def draw_transcripts(
    length: int, start: int, strand: str, rng: np.random.Generator
) -> list[list[tuple[int, int]]]:
    """Draw 1 to 4 transcripts of a gene; the first one spans all of it.

    The others skip exons, and about half of them begin at a TSS further downstream.

    Returns
    -------
    list
        Exons of each transcript, as (start, end) pairs, 1-based, both included.
    """
    n_exons = int(rng.integers(2, 8))
    cuts = np.sort(rng.choice(np.arange(1, length // 60), 2 * n_exons - 2, replace=False)) * 60
    edges = np.concatenate([[0], cuts, [length]]).reshape(-1, 2)
    exons = [(start + int(a), start + int(b) - 1) for a, b in edges]
    transcripts = [exons]
    for _ in range(rng.choice(4, p=[0.45, 0.3, 0.15, 0.1])):
        kept = exons
        if rng.random() < 0.6:
            # On average, a second TSS is a third of the gene's length downstream.
            shift = int(np.clip(rng.exponential(length / 3), 300, length - 300))
            if strand == "+":
                first = start + shift
                kept = [(max(a, first), b) for a, b in exons if b > first + 30]
                kept[0] = (first, kept[0][1])
            else:
                last = start + length - 1 - shift
                kept = [(a, min(b, last)) for a, b in exons if a < last - 30]
                kept[-1] = (kept[-1][0], last)
        inner = [pair for pair in kept[1:-1] if rng.random() < 0.7]
        transcripts.append([kept[0], *inner, *kept[1:][-1:]])
    return transcripts


def list_transcripts(genes: pd.DataFrame, transcripts: list) -> pd.DataFrame:
    """Make the table of transcripts from the exons of each gene.

    Returns
    -------
    pandas.DataFrame
        Columns gene, id, exons, tss.
    """
    rows: list[tuple] = []
    for gene, (strand, listed) in enumerate(zip(genes["strand"], transcripts, strict=True)):
        for exons in listed:
            tss = exons[0][0] - 1 if strand == "+" else exons[-1][1] - 1
            rows.append((gene, f"ENSSIMT{len(rows) + 1:011d}", exons, tss))
    return pd.DataFrame(rows, columns=["gene", "id", "exons", "tss"])


def list_promoters(
    genes: pd.DataFrame, transcripts: pd.DataFrame, rng: np.random.Generator
) -> pd.DataFrame:
    """List the distinct TSSs of nuclear genes, with their share of the gene's openness.

    Returns
    -------
    pandas.DataFrame
        Columns gene, tss (0-based), use (normalised gamma variates, so that the
        shares of a gene are Dirichlet-distributed).
    """
    nuclear = (genes["chrom"] != "chrM").to_numpy()[transcripts["gene"]]
    table = transcripts.loc[nuclear, ["gene", "tss"]].drop_duplicates(ignore_index=True)
    table["use"] = rng.gamma(2.0, size=len(table))
    table["use"] /= table.groupby("gene")["use"].transform("sum")
    return table


def place_distal(
    genes: pd.DataFrame, lengths: dict[str, int], rng: np.random.Generator
) -> pd.DataFrame:
    """Place about three distal elements for every two genes, away from genes.

    Returns
    -------
    pandas.DataFrame
        Columns chrom, centre (0-based), gene.
    """
    tables = []
    for chrom, length in lengths.items():
        here = genes[genes["chrom"] == chrom]
        if here.empty:
            continue
        centres = np.sort(rng.integers(5_000, length - 5_000, 3 * len(here)))
        starts, ends = here["start"].to_numpy(), here["end"].to_numpy()
        before = np.searchsorted(starts, centres) - 1
        to_left = np.where(before >= 0, centres - ends[before], centres)
        after = np.minimum(before + 1, len(here) - 1)
        to_right = np.where(before + 1 < len(here), starts[after] - centres, centres)
        apart = (to_left > 2_500) & (to_right > 2_500)
        nearest = np.where((to_left < to_right) & (before >= 0), before, after)
        table = pd.DataFrame({"centre": centres, "gene": here.index.to_numpy()[nearest]})[apart]
        tables.append(table[table["centre"].diff().fillna(10_000) > 1_000].assign(chrom=chrom))
    return pd.concat(tables, ignore_index=True)
