"""The transformer in plain torch: encoder, heads, adapters, inference."""

from scdyn.lazy import attach

_HOMES = {
    "ModelConfig": "architecture",
    "ScDynOmics": "transformer",
    "Classifier": "classifier",
    "Pretrained": "pretrained",
    "adapt": "adapters",
    "embed": "embedding",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = attach(__name__, _HOMES)
