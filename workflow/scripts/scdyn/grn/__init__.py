"""Gene regulatory networks: expression to edges to regulons to activity."""

from scdyn.lazy import attach

_HOMES = {
    "infer_edges": "inference",
    "merge_adjacencies": "consensus",
    "merge_runs": "consensus",
    "promoter_evidence": "promoters",
    "take_strongest_targets": "regulons",
    "build_consensus": "regulons",
    "find_regulons": "regulons",
    "aucell": "aucell",
    "score_regulons": "aucell",
}
__all__ = sorted(_HOMES)
__getattr__ = attach(__name__, _HOMES)
