"""Simulators of cells from known networks, with other mechanisms than the embedded study.

``steady_state``: cell types set master regulators; the effects of regulators add up through Hill
functions in an acyclic network; each gene fluctuates around its steady state (the mechanism of
SERGIO, Dibaeinia & Sinha 2020). ``bursts``: TFs follow a few continuous programmes; regulators act
through logic gates (and, or, not) on a gene's burst frequency (the two-state model of
transcription; counts are Beta-Poisson, Vu et al. 2016). In both, sequencing detects few molecules.
"""

from __future__ import annotations

import numpy as np
import pandas as pd


def draw_edges(
    n_tfs: int, n_genes: int, acyclic: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one to six regulators per gene, from TFs with very different numbers of targets.

    Returns
    -------
    tuple
        Regulator and target of each edge. If ``acyclic``, the regulators of a TF have lower
        indices, and the first tenth of the TFs has none.
    """
    reach = rng.pareto(1.5, n_tfs) + 0.5
    regulators, targets = [], []
    for gene in range(n_genes):
        candidates = np.arange(gene if acyclic and gene < n_tfs else n_tfs)
        candidates = candidates[candidates != gene]
        if gene < n_tfs and (not acyclic or gene < n_tfs // 10):
            continue
        weights = reach[candidates] / reach[candidates].sum()
        size = min(int(rng.integers(1, 7)), len(candidates))
        regulators.append(rng.choice(candidates, size, replace=False, p=weights))
        targets.append(np.full(size, gene))
    return np.concatenate(regulators), np.concatenate(targets)


def sequence(molecules: np.ndarray, depth: float, rng: np.random.Generator) -> np.ndarray:
    """Draw Poisson counts of the molecules; depths are log-normal around ``depth`` UMIs."""
    share = molecules / molecules.sum(1, keepdims=True)
    depths = depth * rng.lognormal(0, 0.35, (len(molecules), 1))
    return rng.poisson(share * depths)


def as_study(
    counts: np.ndarray, n_tfs: int, regulators: np.ndarray, targets: np.ndarray
) -> tuple[pd.DataFrame, list[str], pd.DataFrame]:
    """Name the genes and normalise as the workflow does: log1p of counts to median depth."""
    genes = [f"T{i:04d}" if i < n_tfs else f"G{i:04d}" for i in range(counts.shape[1])]
    totals = counts.sum(1, keepdims=True)
    values = np.log1p(counts / totals * np.median(totals)).astype(np.float32)
    expression = pd.DataFrame(values, columns=genes, index=[f"c{i}" for i in range(len(counts))])
    names = np.array(genes)
    edges = pd.DataFrame({"tf": names[regulators], "target": names[targets]})
    return expression, genes[:n_tfs], edges


def steady_state(
    n_cells: int, n_genes: int, n_tfs: int, seed: int
) -> tuple[pd.DataFrame, list[str], pd.DataFrame]:
    """Simulate cell types at their steady states.

    Returns
    -------
    tuple
        Log-normalised (cells, genes); TFs; true ``tf``, ``target``.
    """
    rng = np.random.default_rng(seed)
    regulators, targets = draw_edges(n_tfs, n_genes, True, rng)
    cell_type = rng.integers(0, 8, n_cells)
    state = np.empty((n_cells, n_genes))
    for gene in range(n_genes):
        mine = regulators[targets == gene]
        if len(mine):
            half = np.median(state[:, mine], axis=0) + 0.05
            level = state[:, mine] ** 2 / (state[:, mine] ** 2 + half**2)
            repressed = rng.random(len(mine)) < 0.3
            strength = rng.uniform(1, 5, len(mine))
            mean = np.where(repressed, 1 - level, level) @ strength + 0.1
        else:
            mean = rng.lognormal(0, 1, 8)[cell_type]
        state[:, gene] = mean * rng.gamma(4, 1 / 4, n_cells)
    return as_study(
        sequence(state * rng.lognormal(0, 1, n_genes), 3 * n_genes, rng), n_tfs, regulators, targets
    )


def bursts(
    n_cells: int, n_genes: int, n_tfs: int, seed: int
) -> tuple[pd.DataFrame, list[str], pd.DataFrame]:
    """Simulate bursting genes behind logic gates.

    Returns
    -------
    tuple
        As :func:`steady_state`.
    """
    rng = np.random.default_rng(seed)
    regulators, targets = draw_edges(n_tfs, n_genes, False, rng)
    programmes = rng.normal(size=(n_cells, 6))
    loadings = rng.normal(size=(6, n_tfs)) * (rng.random((6, n_tfs)) < 0.4)
    activity = 1 / (1 + np.exp(-2 * (programmes @ loadings + rng.normal(size=(n_cells, n_tfs)))))
    frequency = np.empty((n_cells, n_genes))
    frequency[:, :n_tfs] = activity
    for gene in range(n_tfs, n_genes):
        mine = regulators[targets == gene]
        inputs = np.where(rng.random(len(mine)) < 0.3, 1 - activity[:, mine], activity[:, mine])
        every = rng.random() < 0.5
        frequency[:, gene] = inputs.prod(1) if every else 1 - (1 - inputs).prod(1)
    on = rng.beta(0.1 + 3 * frequency, 1.5)
    molecules = on * rng.lognormal(0, 1, n_genes) + 1e-3
    return as_study(sequence(molecules, 3 * n_genes, rng), n_tfs, regulators, targets)


SIMULATORS = {"steady_state": steady_state, "bursts": bursts}
