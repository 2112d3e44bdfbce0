"""Parameters of the simulation."""

from __future__ import annotations

from dataclasses import dataclass

from scdyn.errors import InputError


@dataclass(frozen=True)
class Simulation:
    """Parameters of the simulation.

    Times have no natural unit; 1 is slightly longer than the lifetime of an RNA, and 0
    is the mean time at which cells leave the niche. The first four are keys of the
    config, with their defaults there (:class:`scdyn.settings.SimulationSettings`).
    """

    seed: int
    """Seed of all random streams; the same seed gives the same files, byte for byte."""
    n_cells: int
    """Called barcodes over the three samples."""
    n_genes: int
    """Protein-coding genes: transcription factors, targets and 13 mitochondrial ones."""
    n_tfs: int
    """Transcription factors."""
    n_lncrnas: int = 20
    """Non-coding genes in addition to ``n_genes``, outside the network."""
    n_decoy_motifs: int = 250
    """Motifs in the ranking database that belong to no transcription factor."""

    least_targets: float = 0.02
    """Smallest out-degree of a transcription factor, as a share of the genes."""
    most_targets: float = 0.08
    """Largest out-degree of a transcription factor, as a share of the genes."""
    activating_share: float = 0.72
    """Probability that an edge activates."""

    step: float = 0.1
    """Length of an Euler-Maruyama step, in time units."""
    start: float = -4.0
    """Time at which the simulation starts, early enough to forget its initial state by 0."""
    end: float = 16.0
    """Time at which fates are read."""
    hill: float = 3.0
    """Hill exponent of regulation."""
    half: float = 0.4
    """Protein level of half-maximal regulation; a fully open promoter gives a level of 1."""
    promoter_time: float = 0.25
    """Median relaxation time of a promoter."""
    rna_time: float = 0.8
    """Median lifetime of an RNA."""
    protein_time: float = 0.6
    """Median lifetime of a protein."""
    rna_noise: float = 0.2
    """Amplitude of the chemical Langevin noise on RNA."""
    drive_time: float = 8.0
    """Correlation time of the drives of fate-unrelated transcription factors."""
    drive_sd: float = 1.5
    """Standard deviation of these drives, in natural-log units of promoter input."""
    signal_strength: float = 0.3
    """Largest input of the medio-lateral signal to a master; that of self-activation is 4."""
    niche_sd: float = 0.5
    """Standard deviation of the time at which a cell leaves the niche."""

    progenitor_share: float = 0.35
    """Share of progenitors, captured in the tail around the decision."""
    endothelium_share: float = 0.15
    """Share of endothelium, the third, unrelated type."""
    progenitor_times: tuple[float, float] = (1.5, 7.5)
    """Capture times of progenitors, uniform."""
    mature_times: tuple[float, float] = (10.0, 15.0)
    """Capture times of mature cells, uniform; endothelium: from 0 on."""

    umis: float = 2800.0
    """Median UMIs per cell."""
    umis_sd: float = 0.4
    """Spread of UMIs over cells, standard deviation in natural-log units."""
    baseline_sd: float = 1.0
    """Spread of baseline expression over genes, natural-log units."""
    dispersion: float = 0.15
    """Median dispersion of the negative binomial: variance = mean + dispersion mean^2."""
    mitochondrial_share: float = 0.06
    """Median share of mitochondrial UMIs in an intact cell."""
    ambient_share: float = 0.04
    """Mean share of ambient RNA, and of ambient fragments, per cell."""
    batch_sd: float = 0.1
    """Spread of a sample's gene-wise factors, natural-log units."""
    doublet_share: float = 0.045
    """Share of called barcodes with two cells of different states."""
    poor_share: float = 0.04
    """Share of called barcodes with a damaged cell."""
    one_modality_share: float = 0.02
    """Share of called barcodes with RNA only, and share of those with fragments only."""
    uncalled_share: float = 0.015
    """Number of barcodes with many fragments that are not called, per called barcode."""
    empty_ratio: float = 2.0
    """Number of barcodes of empty droplets with a few fragments, per called barcode."""
    label_error: float = 0.02
    """Share of wild-type cells whose annotated type is wrong."""

    fragments: float = 2200.0
    """Median fragments per cell."""
    fragments_sd: float = 0.4
    """Spread of fragments over cells, natural-log units."""
    empty_fragments: float = 12.0
    """Median fragments per empty droplet."""
    promoter_share: float = 0.40
    """Mean share of a cell's fragments at promoters."""
    distal_share: float = 0.25
    """Mean share of a cell's fragments at distal elements; the rest is background."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be simulated.

        Raises
        ------
        InputError
            If there are too few genes or cells, or cells are captured after fates are
            read.
        """
        if self.n_tfs < 12:
            raise InputError("CONFIG", f"n_tfs is {self.n_tfs}: four programmes need at least 12.")
        if self.n_genes < self.n_tfs + 100:
            raise InputError(
                "CONFIG",
                f"n_genes is {self.n_genes}: give at least {self.n_tfs + 100} "
                f"(n_tfs + 100), so that every programme has targets.",
            )
        if self.n_cells < 60:
            raise InputError(
                "CONFIG", f"n_cells is {self.n_cells}: give at least 60, 20 per sample."
            )
        if max(self.mature_times[1], self.progenitor_times[1]) >= self.end:
            raise InputError(
                "CONFIG", f"end is {self.end}: fates must be read after the last capture."
            )
