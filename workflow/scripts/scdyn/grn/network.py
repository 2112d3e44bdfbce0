"""All steps from the cells of a corpus to its regulons at once, for notebooks."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd

from scdyn.data.corpus import Corpus
from scdyn.data.pca import open_pca
from scdyn.grn.cells import choose_cells, choose_genes, write_expression
from scdyn.grn.consensus import merge_adjacencies
from scdyn.grn.expression import read_expression
from scdyn.grn.inference import infer_edges, require_edges
from scdyn.grn.regulons import find_regulons
from scdyn.io.artefacts import read_cells
from scdyn.settings import LEFT_OUT, GrnSettings


def infer_regulons(corpus: Corpus, settings: GrnSettings | None = None) -> pd.DataFrame:
    """Infer the regulons of a corpus, as the workflow does without a motif database.

    Parameters
    ----------
    corpus
        The cells; their principal components are computed if that was not done yet.
    settings
        The config's block ``grn``; ``rankings`` and ``annotations`` are not used. The defaults if
        None.

    Returns
    -------
    DataFrame
        ``regulon``, ``tf``, ``target``, ``weight`` and the evidence for each edge; see
        :func:`scdyn.grn.regulons.find_regulons`.

    Raises
    ------
    InputError
        If no TF is detected, or no regulon is found.
    """
    settings = settings or GrnSettings()
    seed = settings.seeds[0]
    components = open_pca(corpus)["rna"]
    used, _ = choose_cells(corpus, components, settings.cells, settings.max_cells, seed)
    genes = choose_genes(used, settings.min_cells_share)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "expression.h5ad"
        write_expression(used, genes, path)
        expression, chosen = read_expression(path), read_cells(path)
    runs = {}
    for name, seed_of_run in settings.seed_of_runs().items():
        left_out = settings.left_out_share if name == LEFT_OUT else 0.0
        targets = range(len(expression.genes))
        runs[name] = infer_edges(expression, targets, settings.method, seed_of_run, left_out)
        require_edges(runs[name], name, "cells")
    merged = merge_adjacencies(
        runs,
        expression,
        chosen,
        mask_dropouts=settings.mask_dropouts,
        promoters=settings.promoter_evidence != "none",
        seed=seed,
    )
    regulons, _ = find_regulons(
        runs,
        merged,
        None,
        n_targets=settings.n_targets,
        repressing=settings.repressing,
        promoter_p=settings.promoter_p if settings.promoters_prune else None,
        min_runs=settings.runs_needed,
        min_targets=settings.min_targets,
    )
    return regulons
