"""Promoters, RNA and proteins of all cells over time, and the fates of the cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scdyn_simulate.network import FATES, Network
from scdyn_simulate.parameters import Simulation

PATHWAY_SHARE = 0.3
"""Share of the variance of a drive that is common to the transcription factors of a pathway."""
NICHE_INPUT = 3.0
"""Promoter input of the niche to its factor while the cell is in the niche."""


@dataclass(frozen=True)
class Noise:
    """The noise of all cells, drawn once and used in every run.

    ``rna`` holds standard normal deviates, (steps, n_tfs, cells); ``drives`` the
    drives of the factors unrelated to fate, in natural-log units of promoter input,
    (steps, free TFs, cells).
    """

    rna: np.ndarray
    drives: np.ndarray


@dataclass(frozen=True)
class Cells:
    """The cells of the study before sequencing.

    ``table`` has one row per cell: sample (index), stage (progenitor, mature or
    endothelium, as sampled), signal (standard normal; positive: lateral, towards
    somite), leave and time (time units), state (type at capture), fate,
    intended_fate. ``openness`` and ``rna`` are (n_genes, n_cells), at capture,
    relative: 1 is a promoter that is always open. ``noise`` is their noise.
    """

    table: pd.DataFrame
    openness: np.ndarray
    rna: np.ndarray
    noise: Noise


@dataclass(frozen=True)
class Run:
    """A simulation of the transcription factors of some cells.

    ``activity`` is the Hill activity of each protein at the end, (n_tfs, cells);
    ``history`` the same at each step, (steps, n_tfs, cells), without steps if not recorded;
    ``openness`` and ``rna`` the state at capture, (n_tfs, cells).
    """

    activity: np.ndarray
    history: np.ndarray
    openness: np.ndarray
    rna: np.ndarray


def draw_cells(parameters: Simulation, n_samples: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw the external conditions of the cells: sample, signal, times.

    Returns
    -------
    pandas.DataFrame
        Columns sample, stage, signal, leave, time; ``n_cells`` rows, divided over
        the samples as evenly as possible.
    """
    n = parameters.n_cells
    shares = [
        parameters.progenitor_share,
        1 - parameters.progenitor_share - parameters.endothelium_share,
        parameters.endothelium_share,
    ]
    stage = rng.choice(["progenitor", "mature", "endothelium"], size=n, p=shares)
    first, last = parameters.progenitor_times, parameters.mature_times
    time = np.where(stage == "progenitor", rng.uniform(*first, n), rng.uniform(*last, n))
    time = np.where(stage == "endothelium", rng.uniform(0, last[1], n), time)
    return pd.DataFrame(
        {
            "sample": np.arange(n) * n_samples // n,
            "stage": stage,
            "signal": rng.standard_normal(n),
            "leave": rng.normal(0, parameters.niche_sd, n),
            "time": time,
        }
    )


def compute_external_input(
    parameters: Simulation, network: Network, table: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the inputs that come from the embryo and not from the network.

    Returns
    -------
    tuple
        Constant input, (n_tfs, cells): the signal to the two masters; and the
        input of the niche's factor while a cell is in the niche, (n_tfs, cells).
    """
    constant = np.zeros((network.n_tfs, len(table)), dtype=np.float32)
    inside = np.zeros_like(constant)
    embryo = (table["stage"] != "endothelium").to_numpy()
    lateral = 1 / (1 + np.exp(-2 * table["signal"].to_numpy()))
    constant[network.tf("Som1")] = parameters.signal_strength * lateral * embryo
    constant[network.tf("Neu1")] = parameters.signal_strength * (1 - lateral) * embryo
    inside[network.tf("Pro1")] = NICHE_INPUT * embryo
    return constant, inside


def draw_noise(
    parameters: Simulation, network: Network, n_cells: int, rng: np.random.Generator
) -> Noise:
    """Draw the noise of all cells.

    A drive is the sum of an Ornstein-Uhlenbeck process per factor and one per
    pathway, both started from their stationary distribution and advanced by their
    exact transition.

    Returns
    -------
    Noise
    """
    n_steps = round((parameters.end - parameters.start) / parameters.step)
    free = network.programmes == "Reg"
    n_pathways = int(network.pathways.max()) + 1
    state = rng.standard_normal((free.sum() + n_pathways, n_cells), dtype=np.float32)
    keep = np.float32(np.exp(-parameters.step / parameters.drive_time))
    drives = np.empty((n_steps, free.sum(), n_cells), dtype=np.float32)
    for i in range(n_steps):
        state = keep * state
        state += np.sqrt(1 - keep**2) * rng.standard_normal(state.shape, dtype=np.float32)
        own, shared = np.split(state, [free.sum()])
        drives[i] = np.float32(np.sqrt(1 - PATHWAY_SHARE)) * own
        drives[i] += np.float32(np.sqrt(PATHWAY_SHARE)) * shared[network.pathways[free]]
    drives *= np.float32(parameters.drive_sd)
    rna = rng.standard_normal((n_steps, network.n_tfs, n_cells), dtype=np.float32)
    return Noise(rna, drives)


def apply_hill(protein: np.ndarray, parameters: Simulation) -> np.ndarray:
    """Apply the Hill function to a protein level: 0 to 1, 1/2 at ``half``."""
    power = (protein / np.float32(parameters.half)) ** np.float32(parameters.hill)
    return power / (1 + power)


def transcribe(
    rna: np.ndarray, openness: np.ndarray, rate: np.ndarray, noise: np.ndarray, p: Simulation
) -> np.ndarray:
    """Advance RNA by one step of the chemical Langevin equation.

    Production is proportional to the promoter's openness and decay to the RNA; the
    variance of the noise is that of their sum (Gillespie 2000).

    Returns
    -------
    numpy.ndarray
        RNA levels, never negative; the shape of ``rna``.
    """
    spread = p.rna_noise * np.sqrt(rate * np.float32(p.step) * (openness + rna))
    return np.maximum(rna + np.float32(p.step) * rate * (openness - rna) + spread * noise, 0)


def compute_capture_steps(parameters: Simulation, table: pd.DataFrame) -> np.ndarray:
    """Compute the step at which each cell is captured, (cells,)."""
    return np.round((table["time"].to_numpy() - parameters.start) / parameters.step).astype(int)


def run_tfs(
    parameters: Simulation,
    network: Network,
    table: pd.DataFrame,
    functional: np.ndarray,
    noise: Noise,
    subset: np.ndarray | None = None,
    record: bool = False,
) -> Run:
    """Simulate the transcription factors from the start to the end.

    Parameters
    ----------
    parameters, network
        The simulation and its network.
    table
        All cells of the study (columns stage, signal, leave, time).
    functional
        1 if a cell's protein functions, 0 if it is knocked out; (n_tfs, cells).
    noise
        The noise of all cells of ``table``.
    subset
        Indices of the cells to simulate; all by default.
    record
        Whether to keep the activities of every step.

    Returns
    -------
    Run
    """
    n_tfs, chosen = network.n_tfs, slice(None) if subset is None else subset
    free = network.programmes == "Reg"
    constant, inside = (a[:, chosen] for a in compute_external_input(parameters, network, table))
    leave = table["leave"].to_numpy(np.float32)[chosen]
    capture = compute_capture_steps(parameters, table)[chosen]
    functional = functional.astype(np.float32)[:, chosen]
    activating, repressing = network.inputs(slice(0, n_tfs))
    basal, open_rate, rna_rate, protein_rate = (
        a[:n_tfs, None].astype(np.float32)
        for a in (network.basal, network.promoter_rate, network.rna_rate, network.protein_rate)
    )
    openness = make_start_levels(network, table)[:, chosen]
    rna, protein = openness.copy(), openness.copy()
    captured = [openness.copy(), rna.copy()]
    n_recorded = len(noise.rna) if record else 0
    history = np.empty((n_recorded, *openness.shape), dtype=np.float32)
    for i in range(len(noise.rna)):
        activity = apply_hill(protein, parameters) * functional
        if record:
            history[i] = activity
        for kept, current in zip(captured, (openness, rna), strict=True):
            kept[:, capture == i] = current[:, capture == i]
        time = np.float32(parameters.start + i * parameters.step)
        niche = 1 / (1 + np.exp((time - leave) / np.float32(0.3)))
        input_ = basal + constant + inside * niche
        input_ += activating @ activity
        input_[free] *= np.exp(noise.drives[i][:, chosen])
        aim = input_ / (1 + input_ + repressing @ activity)
        protein = protein + np.float32(parameters.step) * protein_rate * (rna - protein)
        rna = transcribe(rna, openness, rna_rate, noise.rna[i][:, chosen], parameters)
        openness = openness + np.float32(parameters.step) * open_rate * (aim - openness)
    return Run(apply_hill(protein, parameters) * functional, history, captured[0], captured[1])


def make_start_levels(network: Network, table: pd.DataFrame) -> np.ndarray:
    """Make the levels at the start: the first factor of a cell's origin is on.

    Returns
    -------
    numpy.ndarray
        (n_tfs, cells).
    """
    levels = np.full((network.n_tfs, len(table)), 0.05, dtype=np.float32)
    endothelium = (table["stage"] == "endothelium").to_numpy()
    levels[network.tf("End1")] = np.where(endothelium, 0.85, 0.0)
    levels[network.tf("Pro1")] = np.where(endothelium, 0.0, 0.75)
    levels[network.programmes == "Reg"] = 0.4
    return levels


def run_targets(
    parameters: Simulation,
    network: Network,
    table: pd.DataFrame,
    history: np.ndarray,
    noise: np.random.SeedSequence,
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate the genes that are not regulators, each cell up to its capture.

    Parameters
    ----------
    history
        Activities of the transcription factors, (steps, n_tfs, cells).

    Returns
    -------
    tuple
        Openness and RNA at capture, each (n_genes - n_tfs, cells), float32.
    """
    rng = np.random.default_rng(noise)
    genes = slice(network.n_tfs, None)
    activating, repressing = network.inputs(genes)
    basal, open_rate, rna_rate = (
        a[genes, None].astype(np.float32)
        for a in (network.basal, network.promoter_rate, network.rna_rate)
    )
    capture = compute_capture_steps(parameters, table)
    # Sorted by decreasing time of capture, so that the cells not yet captured are a leading slice.
    order = np.argsort(-capture, kind="stable")
    running = np.searchsorted(-capture[order], -np.arange(len(history)), side="left")
    captured = [np.empty((len(basal), len(table)), dtype=np.float32) for _ in range(2)]
    openness = rna = np.empty((0, 0), dtype=np.float32)
    for i, active in enumerate([*running, 0]):
        if i:
            done = order[active : openness.shape[1]]
            for kept, current in zip(captured, (openness, rna), strict=True):
                kept[:, done] = current[:, active:]
        if active == 0:
            break
        activity = np.ascontiguousarray(history[i][:, order[:active]])
        input_ = activating @ activity
        input_ += basal
        aim = input_ / (1 + input_ + repressing @ activity)
        if not i:
            openness, rna = aim, aim.copy()
        xi = rng.standard_normal(aim.shape, dtype=np.float32)
        openness, rna = openness[:, :active], rna[:, :active]
        rna = transcribe(rna, openness, rna_rate, xi, parameters)
        openness = openness + np.float32(parameters.step) * open_rate * (aim - openness)
    return captured[0], captured[1]


def read_types(network: Network, activity: np.ndarray, without: int | None = None) -> np.ndarray:
    """Read the type of each cell: the fate with the most active programme.

    Parameters
    ----------
    activity
        Hill activities, (n_tfs, cells).
    without
        A factor that is knocked out and therefore ignored.

    Returns
    -------
    numpy.ndarray
        somite, neural_tube or endothelium; (cells,).
    """
    counted = np.arange(network.n_tfs) != without
    means = [
        activity[(network.programmes == prefix) & counted].mean(axis=0) for prefix in FATES.values()
    ]
    return np.array(list(FATES))[np.argmax(means, axis=0)]


def simulate_cells(
    parameters: Simulation, network: Network, samples: Sequence[str], seed: np.random.SeedSequence
) -> Cells:
    """Simulate the cells of all samples, and the fate that each would have reached.

    Parameters
    ----------
    parameters, network
        The simulation and its network.
    samples
        Names of the samples; in those that begin with ``knockout`` the
        mesodermal master's protein has no function.
    seed
        Random stream of this stage.

    Returns
    -------
    Cells
    """
    outside, chance, targets = seed.spawn(3)
    table = draw_cells(parameters, len(samples), np.random.default_rng(outside))
    noise = draw_noise(parameters, network, len(table), np.random.default_rng(chance))
    functional = np.ones((network.n_tfs, len(table)), dtype=np.float32)
    knocked_out = np.array([s.startswith("knockout") for s in samples])[table["sample"]]
    intended = run_tfs(
        parameters, network, table, functional, noise, subset=np.flatnonzero(knocked_out)
    )
    functional[network.tf("Som1"), knocked_out] = 0
    run = run_tfs(parameters, network, table, functional, noise, record=True)
    openness, rna = run_targets(parameters, network, table, run.history, targets)
    captured = run.history[compute_capture_steps(parameters, table), :, np.arange(len(table))].T
    table["fate"] = read_types(network, run.activity)
    table["intended_fate"] = table["fate"]
    table.loc[knocked_out, "intended_fate"] = read_types(network, intended.activity)
    table["state"] = np.where(
        table["stage"] == "progenitor", "progenitor", read_types(network, captured)
    )
    return Cells(table, np.vstack([run.openness, openness]), np.vstack([run.rna, rna]), noise)


def knock_out_drivers(parameters: Simulation, network: Network, cells: Cells) -> pd.DataFrame:
    """Measure how the loss of each factor of a fate changes the share of that fate.

    The wild-type progenitors are simulated again with the same signal and noise,
    without the factor's function; for endothelium, which no progenitor becomes,
    the endothelial cells are.

    Returns
    -------
    pandas.DataFrame
        Columns symbol, fate, role (master or programme), effect: change in the
        share of these cells that reach the fate.
    """
    wildtype = cells.table["sample"] < 2
    groups = {
        fate: np.flatnonzero(
            wildtype
            & (cells.table["stage"] == ("endothelium" if fate == "endothelium" else "progenitor"))
        )
        for fate in FATES
    }
    rows = []
    for fate, prefix in FATES.items():
        subset = groups[fate]
        before = (cells.table["fate"].to_numpy()[subset] == fate).mean()
        for tf in map(int, np.flatnonzero(network.programmes == prefix)):
            functional = np.ones((network.n_tfs, len(cells.table)), dtype=np.float32)
            functional[tf] = 0
            run = run_tfs(parameters, network, cells.table, functional, cells.noise, subset)
            share = (read_types(network, run.activity, without=tf) == fate).mean()
            symbol = network.symbols[tf]
            role = "master" if symbol == f"{prefix}1" else "programme"
            rows.append((symbol, fate, role, share - before))
    return pd.DataFrame(rows, columns=["symbol", "fate", "role", "effect"])
