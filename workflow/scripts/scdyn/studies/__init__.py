"""Development, spatial and perturbation studies, as tables."""

from scdyn.lazy import attach

_HOMES = {
    "study_development": "development",
    "study_sections": "spatial",
    "study_perturbation": "perturbation",
    "compute_pseudotime": "development",
    "development_table": "development",
    "fate_trends": "development",
    "coherence_table": "spatial",
    "perturbation_tables": "perturbation",
    "gene_table": "genes",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = attach(__name__, _HOMES)
