"""Gene regulatory networks: expression to edges to regulons to activity."""

from scdyn.lazy import attach

_HOMES = {
    "infer_regulons": "network",
    "infer_edges": "inference",
    "merge_adjacencies": "consensus",
    "promoter_evidence": "promoters",
    "find_regulons": "regulons",
    "score_regulons": "activity",
    "aucell": "activity",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = attach(__name__, _HOMES)
