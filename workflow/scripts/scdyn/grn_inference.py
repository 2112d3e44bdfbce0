"""Regulators of genes, a part of the genes at a time, by arboreto's own regressions.

Each gene is regressed on all TFs by itself, so the parts can be jobs of their own, and together
give the edges of ``pyscenic grn`` on the same matrix and seed. Dask, which arboreto would start
for this, is not used.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
from arboreto import core

from scdyn.errors import InputError
from scdyn.log import PROGRESS_SECONDS, logger

# What arboreto calls the two methods, and how pySCENIC sets them.
METHODS = {"grnboost2": ("GBM", core.SGBM_KWARGS), "genie3": ("RF", core.RF_KWARGS)}


def part_of(genes: Sequence[str], number: int, n_parts: int) -> list[str]:
    """Take every ``n_parts``-th gene, from ``number`` (1 to n_parts) on: parts of equal work."""
    return list(genes[number - 1 :: n_parts])


def infer_edges(
    expression: pd.DataFrame, tfs: Sequence[str], targets: Sequence[str], method: str, seed: int
) -> pd.DataFrame:
    """Infer which TFs regulate some genes.

    Parameters
    ----------
    expression
        (cells, symbols).
    tfs
        Symbols of the TFs; a gene is never its own regulator.
    targets
        Symbols of the genes to explain.
    method
        One of :data:`METHODS` (Moerman et al. 2019; Huynh-Thu et al. 2010).
    seed
        Of every gene's regression.

    Returns
    -------
    DataFrame
        ``TF``, ``target``, ``importance``, as arboreto writes them: edges of importance over zero.

    Raises
    ------
    InputError
        If no TF is among the genes, or a gene's regression fails.
    """
    matrix, genes = expression.to_numpy(), list(expression.columns)
    if not set(tfs) & set(genes):
        raise InputError(f"none of the {len(tfs)} TFs is among the {len(genes)} genes.")
    tf_matrix, tf_names = core.to_tf_matrix(matrix, genes, list(tfs))
    column = {gene: i for i, gene in enumerate(genes)}
    regressor, settings = METHODS[method]
    edges = [pd.DataFrame({"TF": [], "target": [], "importance": np.empty(0)})]
    begun = said = time.monotonic()
    for i, target in enumerate(targets, start=1):
        found = core.infer_partial_network(
            regressor, settings, tf_matrix, tf_names, target, matrix[:, column[target]], seed=seed
        )
        # Arboreto would go on without a gene whose regression failed ten times.
        if found is core._GRN_SCHEMA:
            raise InputError(f"the regression of gene {target} fails; see the log.")
        edges.append(found)
        if time.monotonic() - said > PROGRESS_SECONDS or i == 1:
            said = time.monotonic()
            left = (said - begun) / i * (len(targets) - i)
            logger.info("%d of %d genes, about %.0f min left", i, len(targets), left / 60)
    return pd.concat(edges, ignore_index=True)
