"""The corpus: joined samples with counts and normalised values, their PCA and layout."""

from __future__ import annotations

from collections.abc import Iterable

import anndata as ad
from scipy import sparse

from scdyn.errors import InputError
from scdyn.pp.counts import normalise
from scdyn.pp.obs_columns import METRICS

# Columns of ``obs`` that are measured. Labels and covariates are in a separate table.
MEASURED = ("sample", "barcode", "promoter_source", *METRICS)


def join(samples: Iterable[ad.AnnData]) -> ad.AnnData:
    """Join samples over the same vocabulary and normalise them.

    Only the columns of :data:`MEASURED` are kept. Labels and covariates are in the corpus' table
    of cells (:mod:`scdyn.pp.metadata`), so that they can change without recomputing counts.

    Parameters
    ----------
    samples
        From ingestion. Their matrices are not copied, and are freed once they are joined if the
        caller keeps no reference.

    Raises
    ------
    InputError
        If there is no sample, the samples have different vocabularies, or two have a cell of the
        same name.
    """
    samples = list(samples)
    if not samples:
        raise InputError("CORPUS", "no samples to join; give at least one.")
    for sample in samples[1:]:
        if not sample.var_names.equals(samples[0].var_names):
            raise InputError(
                "CORPUS", "the samples have different vocabularies; ingest them again."
            )
    var = samples[0].var.copy()
    samples = [
        ad.AnnData(
            sample.X,
            obs=sample.obs[[name for name in MEASURED if name in sample.obs]],
            var=sample.var,
            layers=dict(sample.layers),
        )
        for sample in samples
    ]
    cells = samples[0] if len(samples) == 1 else ad.concat(samples, join="outer", merge="first")
    del samples
    duplicated = cells.obs_names[cells.obs_names.duplicated()]
    if len(duplicated):
        raise InputError(
            "CORPUS", f"duplicate cell {duplicated[0]}; join each sample once, under its own name."
        )
    cells.var = var
    cells.X = sparse.csr_matrix(cells.X)
    normalise(cells)
    return cells
