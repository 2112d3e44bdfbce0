"""Simulation of an embryo's tail bud, up to the files that a sequencing facility delivers.

All cells have the same gene regulatory network: transcription factors regulate
promoters, promoters transcribe RNA, and RNA is translated to transcription factors.
Types and fates of cells result from these dynamics.

Network (:mod:`scdyn_simulate.network`)
    Out-degree of a transcription factor: Pareto with exponent 1.5 above
    ``least_targets``, cut at ``most_targets`` (heavy-tailed out-degrees: Guelzow
    et al. 2002, Nature Genetics). An edge activates with probability
    ``activating_share``; weights are log-normal. Two masters repress each other
    and activate themselves (toggle switch: Gardner et al. 2000, Nature; in
    differentiation: Huang et al. 2007, Developmental Biology).
Dynamics (:mod:`scdyn_simulate.dynamics`)
    With A the summed activating and R the summed repressing input, each a weight
    times a Hill function of a protein, a promoter tends to A / (1 + A + R)
    (thermodynamic form, as in dyngen: Cannoodt et al. 2021, Nature
    Communications). RNA follows the promoter at a first-order rate with
    multiplicative chemical Langevin noise (Gillespie 2000; used for expression by
    SERGIO: Dibaeinia & Sinha 2020, Cell Systems); that chromatin leads
    transcription is MultiVelo's model (Li et al. 2022, Nature Biotechnology).
    Proteins follow RNA at a first-order rate. In transcription factors unrelated
    to fate, A is multiplied by the exponential of an Ornstein-Uhlenbeck process,
    partly shared within a pathway. Kinetic times are log-normal over genes.
    Integration is by Euler-Maruyama with steps of ``step``.
Fate
    A cell leaves the niche at a normally distributed time; the progenitor
    programme then decays and releases both masters. Its signal (medio-lateral
    position, standard normal) favours one of them; the rest is noise. The fate is
    read at ``end`` from the activity of the programmes, by simulating the same cell
    beyond its capture with the same signal and noise. In the knockout the
    mesodermal master's RNA is transcribed, but its protein has no function, neither
    for its targets nor for its own promoter. ``intended_fate`` is the fate of the
    same cell with the same signal and noise and a functional master.
Counts (:mod:`scdyn_simulate.counts`)
    Baseline expression of genes: log-normal. UMIs per cell: log-normal (Splatter:
    Zappia et al. 2017, Genome Biology). Counts: negative binomial as a
    gamma-Poisson mixture with log-normal dispersions (the same). Ambient RNA: a
    beta-distributed share of the sample's mean profile (SoupX: Young & Behjati
    2020, GigaScience). Batch: one log-normal factor per gene and sample on RNA, and
    another on ATAC. Doublets: the sum of two cells of different state. Poor cells:
    few UMIs, a high mitochondrial share. Fragments per cell: log-normal; Poisson
    over promoters, distal elements and a uniform background; lengths from two
    normal modes, nucleosome-free and mononucleosomal (the modes: Buenrostro et
    al. 2013, Nature Methods). All other numbers are round numbers of our choice.

Tuned parameters (on two seeds): ``rna_noise``, ``progenitor_times`` and the
repression of the masters by the niche, so that logistic regression trained on
mature wild-type cells predicts the fate of about 0.65 to 0.85 of the progenitors,
and of the earliest ones by chance; ``batch_sd`` and the number of targets of
fate-unrelated factors, so that about 0.95 of mature cells are classified correctly;
abundance and drives of transcription factors and the scores of motifs, so that
GRNBoost2 ranks true edges a few times better than chance and pySCENIC keeps about
half of the regulons. The transformer of this workflow was not used for tuning.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scdyn.io.files import atomic
from scdyn_simulate import counts as simulate_counts
from scdyn_simulate import dynamics as simulate_dynamics
from scdyn_simulate import files as simulate_files
from scdyn_simulate import network as simulate_network
from scdyn_simulate.layout import SAMPLES, choose_layout
from scdyn_simulate.parameters import Simulation


def simulate_study(parameters: Simulation, folder: Path) -> None:
    """Simulate the study and write its files.

    Parameters
    ----------
    parameters
        Parameters of the simulation.
    folder
        Folder to write, atomically; an existing one is replaced.
    """
    # One random stream per stage, so that changes of one stage do not affect the others.
    seeds = np.random.SeedSequence(parameters.seed).spawn(6)
    network = simulate_network.build_network(parameters, np.random.default_rng(seeds[0]))
    genome = simulate_network.build_genome(parameters, network, np.random.default_rng(seeds[1]))
    cells = simulate_dynamics.simulate_cells(parameters, network, SAMPLES, seeds[2])
    drivers = simulate_dynamics.knock_out_drivers(parameters, network, cells)
    core = simulate_counts.Sequencer(parameters, network, genome, cells, seeds[3], SAMPLES)
    with atomic(folder) as temporary:
        temporary.mkdir()
        simulate_files.write_reference(temporary, parameters, network, genome, seeds[4])
        simulate_files.write_truth(temporary, parameters, network, drivers)
        tables = []
        for index, sample in enumerate(SAMPLES):
            counts = core.sequence(index)
            simulate_files.write_sample(temporary / sample, genome, counts, choose_layout(sample))
            tables.append(counts.cells)
        simulate_files.write_cells(temporary, tables, np.random.default_rng(seeds[5]))
