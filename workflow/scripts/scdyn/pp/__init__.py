"""From a sample's raw files to counts over the vocabulary: reference, preflight, ingestion, QC."""

from scdyn.lazy import attach

_HOMES = {
    "read_annotation": "reference",
    "read_tfs": "reference",
    "build_vocabulary": "reference",
    "read_vocabulary": "reference",
    "examine_sample": "preflight",
    "ingest": "ingestion",
    "filter_cells": "qc",
    "join_metadata": "metadata",
    "compute_umap": "neighbours",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = attach(__name__, _HOMES)
