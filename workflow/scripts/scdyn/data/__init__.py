"""The corpus: samples whose counts are read in blocks, and batches of cells for the model."""

from scdyn.lazy import attach

_HOMES = {
    "Corpus": "corpus",
    "Pca": "pca",
    "make_corpus": "corpus",
    "open_pca": "pca",
    "write_tokens": "tokens",
    "TokenStore": "tokens",
    "Loader": "loader",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = attach(__name__, _HOMES)
