"""The corpus as bins on disk, and batches of them for the model."""

from scdyn.lazy import attach

_HOMES = {
    "Corpus": "corpus",
    "bin_values": "tokens",
    "write_tokens": "tokens",
    "TokenStore": "tokens",
    "Loader": "loader",
    "open_pca": "pca",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = attach(__name__, _HOMES)
