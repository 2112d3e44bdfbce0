"""Reading input formats, and writing files atomically."""

from scdyn.lazy import attach

_HOMES = {
    "read_fragments": "fragments",
    "find_libraries": "sample_files",
    "read_h5": "tenx",
    "read_mtx": "tenx",
    "read_table": "artefacts",
    "read_parquet": "artefacts",
    "iter_parquet": "artefacts",
    "write_parquet": "artefacts",
    "writing_parquet": "artefacts",
    "read_cells": "artefacts",
    "write_h5ad": "artefacts",
    "atomic": "files",
    "write_table": "files",
    "fetch": "download",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = attach(__name__, _HOMES)
