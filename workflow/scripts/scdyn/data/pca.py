"""Principal components of a corpus: computed once, exactly, in two passes over its blocks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import zarr
from scipy import linalg, sparse

from scdyn.data.corpus import Corpus, check_rows, cut_rows, map_ahead
from scdyn.errors import InputError, reading
from scdyn.io.artefacts import ALL_CHUNKS, STAMP, make_stamp, open_zarr
from scdyn.io.files import atomic
from scdyn.io.shards import CELLS_AT_ONCE, REMEDY
from scdyn.log import logger
from scdyn.pp.counts import MOMENTS, log_normalise

# Genes per modality, those of the highest variance, and components per modality.
N_GENES, N_COMPONENTS = 2000, 50
UNREADABLE = "the components cannot be read"


def sum_moments(corpus: Corpus) -> pd.DataFrame:
    """Sum the moments of the samples' log-normalised values: the columns of MOMENTS, by gene id."""
    names = [name for names in MOMENTS.values() for name in names]
    total = corpus.shards[0].read_table("var")[names]
    for shard in corpus.shards[1:]:
        total = total + shard.read_table("var")[names]
    return total


def choose_genes(moments: pd.DataFrame, modality: str, n_cells: int, n_genes: int) -> np.ndarray:
    """Choose the genes whose log-normalised values vary most.

    Parameters
    ----------
    moments
        From :func:`sum_moments`.
    modality, n_cells
        The modality, and the number of cells in which it was measured.
    n_genes
        Number of genes.

    Returns
    -------
    ndarray
        Positions of the genes, ascending; fewer if fewer vary.
    """
    total, squares = (moments[name].to_numpy() for name in MOMENTS[modality])
    variance = (squares - total**2 / max(n_cells, 1)) / max(n_cells - 1, 1)
    # Sums of squares of constant values differ from zero by rounding.
    varies = variance > 1e-9 * np.maximum(squares / max(n_cells, 1), 1e-9)
    best = np.argsort(-variance, kind="stable")[: min(n_genes, int(varies.sum()))]
    return np.sort(best)


def iter_values(
    corpus: Corpus, modality: str, rows: np.ndarray, genes: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows and log-normalised values (cells, chosen genes) of blocks, dense float32."""
    column = np.full(corpus.n_genes, -1, dtype=np.int32)
    column[genes] = np.arange(len(genes))
    divisor = corpus.divisors[modality][genes]

    def read(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts = corpus.read(part, modality)
        found = column.take(counts.indices)
        kept = np.flatnonzero(found >= 0)
        indptr = np.searchsorted(kept, counts.indptr)
        shape = (len(part), len(genes))
        chosen = sparse.csr_matrix((counts.data[kept], found[kept], indptr), shape)
        logs = log_normalise(chosen, divisor, corpus.sizes[modality][part])
        return part, logs.toarray()

    yield from map_ahead(read, cut_rows(rows, CELLS_AT_ONCE))


def fit_components(
    corpus: Corpus,
    modality: str,
    rows: np.ndarray,
    genes: np.ndarray,
    mean: np.ndarray,
    n_components: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit the principal components of one modality from the covariance of the chosen genes.

    ``mean`` is that of the genes (genes,), which is subtracted before products are summed in
    float32.

    Returns
    -------
    loadings : ndarray of float32, (genes, components)
        The largest number of each component is positive.
    variance : ndarray, (components,)
    """
    n_genes = len(genes)
    products, total = np.zeros((n_genes, n_genes)), np.zeros(n_genes)
    for _, values in iter_values(corpus, modality, rows, genes):
        values -= mean
        # Only one triangle is computed.
        products += linalg.blas.ssyrk(1.0, values, trans=1)
        total += values.sum(0, dtype=np.float64)
    left = total / len(rows)  # by rounding
    covariance = (products - len(rows) * np.triu(np.outer(left, left))) / max(len(rows) - 1, 1)
    n_components = min(n_components, n_genes, len(rows) - 1)
    first = n_genes - n_components
    variance, loadings = linalg.eigh(
        covariance, lower=False, subset_by_index=[first, n_genes - 1], overwrite_a=True
    )
    loadings = loadings[:, ::-1]
    signs = np.sign(loadings[np.abs(loadings).argmax(0), np.arange(n_components)])
    return (loadings * signs).astype(np.float32), variance[::-1].copy()


def compute_pca(
    corpus: Corpus, path: str | Path, n_genes: int = N_GENES, n_components: int = N_COMPONENTS
) -> None:
    """Compute the principal components of each modality over all cells of a corpus.

    Of each modality, the log-normalised values of the genes with the highest variance are centred
    and not scaled. The components are those of their exact covariance, computed from blocks.

    Parameters
    ----------
    corpus
        The cells.
    path
        Folder, ``NAME.zarr``, written atomically: the arrays ``rna`` and ``promoter`` (cells,
        components) of float32, and for each modality ``genes`` (positions in the vocabulary),
        ``mean``, ``loadings`` (genes, components) and ``variance``. A modality that was measured in
        fewer than three cells has no components; cells in which it was not measured are at zero,
        the mean.
    n_genes, n_components
        Most genes and components per modality.
    """
    moments = sum_moments(corpus)
    with atomic(path) as temporary:
        group = zarr.open_group(str(temporary), mode="w", zarr_format=3)
        group.attrs[STAMP] = {**make_stamp(), "corpus": corpus.id}
        for modality in MOMENTS:
            rows = np.arange(len(corpus))
            if modality == "promoter":
                rows = np.flatnonzero(corpus.measured)
            genes = choose_genes(moments, modality, len(rows), n_genes)
            if len(rows) < 3 or not len(genes):
                genes = genes[:0]
                shape = (len(corpus), 0)
                group.create_array(modality, shape=shape, dtype="float32", chunks=(1, 1))
                continue
            sums = moments[MOMENTS[modality][0]].to_numpy()
            mean = (sums[genes] / len(rows)).astype(np.float32)
            loadings, variance = fit_components(corpus, modality, rows, genes, mean, n_components)
            n_found = loadings.shape[1]
            array = group.create_array(
                modality,
                shape=(len(corpus), n_found),
                dtype="float32",
                chunks=(min(CELLS_AT_ONCE, len(corpus)), n_found),
                compressors=None,
                config=ALL_CHUNKS,
            )
            if len(rows) < len(corpus):
                for part in cut_rows(np.arange(len(corpus)), CELLS_AT_ONCE):
                    array[part[0] : part[-1] + 1] = 0
            for here, values in iter_values(corpus, modality, rows, genes):
                scores = (values - mean) @ loadings
                # Samples without the modality may lie between the rows.
                far = np.flatnonzero(np.diff(here) > CELLS_AT_ONCE) + 1
                for near, found in zip(np.split(here, far), np.split(scores, far), strict=True):
                    start, stop = int(near[0]), int(near[-1]) + 1
                    part = np.zeros((stop - start, n_found), dtype=np.float32)
                    part[near - start] = found
                    array[start:stop] = part
            fitted = {"genes": genes, "mean": mean, "loadings": loadings, "variance": variance}
            for name, values in fitted.items():
                group.create_array(f"fitted/{modality}/{name}", data=values, config=ALL_CHUNKS)
            logger.info("%s: %d components of %d genes, %d cells", modality, n_found, len(genes),
                        len(rows))  # fmt: skip


def open_pca(corpus: Corpus) -> Pca:
    """Open the principal components of a corpus in its folder; compute them if there are none."""
    path = corpus.folder / "pca.zarr"
    if not path.exists():
        compute_pca(corpus, path)
    return Pca(path, corpus)


class Pca:
    """The principal components of a corpus.

    Parameters
    ----------
    path
        Of :func:`compute_pca`.
    corpus
        Its corpus.

    Raises
    ------
    InputError
        If the folder cannot be read, or was computed from another corpus.
    """

    def __init__(self, path: str | Path, corpus: Corpus) -> None:
        self.path, self._n_cells = Path(path), len(corpus)
        with reading("CORPUS", self.path, UNREADABLE, REMEDY):
            self._group = open_zarr(self.path)
            made_from = self._group.attrs[STAMP]["corpus"]
        if made_from != corpus.id:
            raise InputError(
                "CORPUS", f"{self.path}: was computed from another corpus than {corpus.folder}; "
                f"{REMEDY}.",
            )  # fmt: skip

    @cached_property
    def rna(self) -> np.ndarray:
        """Components of the RNA, (cells, components) of float32."""
        return self._read("rna")

    @cached_property
    def promoter(self) -> np.ndarray:
        """Components of the promoters; of cells in which they were not measured zero."""
        return self._read("promoter")

    def _read(self, modality: str) -> np.ndarray:
        with reading("CORPUS", self.path, UNREADABLE, REMEDY):
            values: np.ndarray = self._group[modality][:]
            if len(values) != self._n_cells:
                raise ValueError(f"{modality} has {len(values)} of {self._n_cells} cells")
            return values

    def select(self, rows: np.ndarray, both: bool = False) -> np.ndarray:
        """Select the components of some cells: of the RNA, or of both modalities side by side."""
        rows = check_rows(rows, self._n_cells)
        parts = (self.rna, self.promoter) if both else (self.rna,)
        return np.concatenate([part[rows] for part in parts], axis=1)
