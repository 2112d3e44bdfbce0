"""Principal components of a corpus: computed once, exactly, in passes over its blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zarr
from scipy import linalg

from scdyn.data.corpus import Corpus, check_rows
from scdyn.errors import InputError, reading
from scdyn.io.artefacts import ALL_CHUNKS, STAMP, make_stamp, open_zarr
from scdyn.io.files import atomic
from scdyn.io.shards import CELLS_AT_ONCE, REMEDY
from scdyn.log import logger

# Genes per modality, those of the highest variance, and components per space.
N_GENES, N_COMPONENTS = 2000, 50
# What components are of: RNA, or RNA and promoters jointly; of log-normalised values, or of these
# scaled to unit variance per gene.
SPACES = ("rna", "rna_scaled", "both", "both_scaled")
# Largest scaled value, in standard deviations, above which a gene of few cells would rule a
# component.
MAX_SCALED = 10.0
# Fewest cells with promoters, below which their mean and variance say nothing.
MIN_MEASURED = 3
UNREADABLE = "the components cannot be read"


class Features(NamedTuple):
    """The chosen genes of one modality, and the moments of their log-normalised values."""

    genes: np.ndarray
    """(genes,) positions in the vocabulary, ascending."""
    mean: np.ndarray
    """(genes,) float32, over the cells in which the modality was measured."""
    deviation: np.ndarray
    """(genes,) float32 standard deviation over the same cells."""


def choose_features(corpus: Corpus, n_genes: int) -> dict[str, Features]:
    """Choose the genes of each modality whose log-normalised values vary most.

    Parameters
    ----------
    corpus
        The cells.
    n_genes
        Most genes per modality; fewer are chosen if fewer vary.

    Returns
    -------
    dict
        Per modality; without ``promoter`` if promoters were measured in fewer than
        :data:`MIN_MEASURED` cells.
    """
    n_cells = {"rna": len(corpus), "promoter": int(corpus.measured.sum())}
    modalities = [name for name, n in n_cells.items() if name == "rna" or n >= MIN_MEASURED]
    sums = {name: np.zeros((2, corpus.n_genes)) for name in modalities}
    for block in corpus.iter_blocks(layers=[f"{name}_log" for name in modalities]):
        for name in modalities:
            logs = block.layers[f"{name}_log"]
            for power, of_power in enumerate(sums[name], start=1):
                values = logs.data.astype(np.float64) ** power
                of_power += np.bincount(logs.indices, values, minlength=corpus.n_genes)
    result = {}
    for name in modalities:
        total, squares = sums[name]
        mean = total / n_cells[name]
        variance = (squares - total * mean) / max(n_cells[name] - 1, 1)
        # Sums of squares of constant values differ from zero by rounding.
        varies = variance > 1e-9 * np.maximum(squares / n_cells[name], 1e-9)
        best = np.argsort(-variance, kind="stable")[: min(n_genes, int(varies.sum()))]
        genes = np.sort(best)
        moments = (mean[genes], np.sqrt(variance[genes]))
        result[name] = Features(genes, *(values.astype(np.float32) for values in moments))
    return result


def iter_values(
    corpus: Corpus, features: dict[str, Features], scaled: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows and values (cells, chosen genes of all modalities) of blocks, dense float32.

    Values are log-normalised counts minus the gene's mean; if ``scaled``, divided by its standard
    deviation and clipped to :data:`MAX_SCALED`. Promoters that were not measured are zero.
    """
    for block in corpus.iter_blocks(layers=[f"{name}_log" for name in features]):
        parts = []
        for name, (genes, mean, deviation) in features.items():
            part = block.layers[f"{name}_log"][:, genes].toarray()
            part -= mean
            if scaled:
                part /= deviation
                np.clip(part, -MAX_SCALED, MAX_SCALED, out=part)
            if name == "promoter":
                part[~corpus.measured[block.rows]] = 0
            parts.append(part)
        yield block.rows, np.concatenate(parts, axis=1)


def compute_covariance(
    corpus: Corpus, features: dict[str, Features], scaled: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the covariance of the values of :func:`iter_values`, whose products are in float32.

    Returns
    -------
    covariance : ndarray, (genes, genes)
        Only its upper triangle is set.
    centre : ndarray of float32, (genes,)
        The mean, which is not zero because of clipping and of rounding.
    """
    n_genes = sum(len(of_modality.genes) for of_modality in features.values())
    products, total = np.zeros((n_genes, n_genes), order="F"), np.zeros(n_genes)
    if n_genes == 0:
        return products, total.astype(np.float32)
    for _, values in iter_values(corpus, features, scaled):
        products += linalg.blas.ssyrk(1.0, values.T)
        total += values.sum(0, dtype=np.float64)
    centre = total / len(corpus)
    linalg.blas.dsyr(-len(corpus), centre, a=products, overwrite_a=True)
    products /= max(len(corpus) - 1, 1)
    return products, centre.astype(np.float32)


def fit_components(covariance: np.ndarray, n_components: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the leading eigenvectors of a covariance (genes, genes), of which one triangle is set.

    Returns
    -------
    loadings : ndarray of float32, (genes, components)
        The largest number of each component is positive.
    variance : ndarray, (components,)
    """
    n_genes = len(covariance)
    if n_components == 0:
        return np.zeros((n_genes, 0), dtype=np.float32), np.zeros(0)
    variance, loadings = linalg.eigh(
        covariance, lower=False, subset_by_index=[n_genes - n_components, n_genes - 1]
    )
    loadings = loadings[:, ::-1]
    signs = np.sign(loadings[np.abs(loadings).argmax(0), np.arange(n_components)])
    return (loadings * signs).astype(np.float32), variance[::-1].copy()


def compute_pca(
    corpus: Corpus, path: str | Path, n_genes: int = N_GENES, n_components: int = N_COMPONENTS
) -> None:
    """Compute the principal components of the :data:`SPACES` over all cells of a corpus.

    Of each modality, the log-normalised values of the genes with the highest variance are used,
    centred, or centred and scaled as by scanpy's ``pp.scale(max_value=10)``. The components are
    those of their exact covariance, summed from blocks; for ``both`` that of the genes of RNA and
    of promoters together. Promoters that were not measured are at the mean.

    Parameters
    ----------
    corpus
        The cells.
    path
        Folder, ``NAME.zarr``, written atomically: for each space an array (cells, components) of
        float32. ``features`` has the :class:`Features` of each modality, and ``fitted`` for each
        space ``centre`` (subtracted last), ``loadings`` and ``variance``. Of a corpus in which
        promoters were measured in fewer than :data:`MIN_MEASURED` cells there are only the spaces
        of the RNA, which :class:`Pca` reads for those of both.
    n_genes, n_components
        Most genes per modality, and most components per space.
    """
    features = choose_features(corpus, n_genes)
    numbers = [len(of_modality.genes) for of_modality in features.values()]
    # The genes of the RNA come first.
    widths = dict(zip(("rna", "both"), np.cumsum(numbers).tolist(), strict=False))
    with atomic(path) as temporary:
        group = zarr.open_group(str(temporary), mode="w", zarr_format=3)
        arrays = {
            space: space if "both" in widths else space.replace("both", "rna") for space in SPACES
        }
        group.attrs[STAMP] = {**make_stamp(), "corpus": corpus.id, "arrays": arrays}
        for name, of_modality in features.items():
            write_arrays(group, f"features/{name}", of_modality._asdict())
        for scaled in (False, True):
            covariance, centre = compute_covariance(corpus, features, scaled)
            loadings = {}
            for modalities, width in widths.items():
                n_found = max(0, min(n_components, width, len(corpus) - 1))
                space = f"{modalities}_scaled" if scaled else modalities
                loadings[space], variance = fit_components(covariance[:width, :width], n_found)
                fitted = {"centre": centre[:width], "loadings": loadings[space]}
                write_arrays(group, f"fitted/{space}", fitted | {"variance": variance})
                group.create_array(
                    space,
                    shape=(len(corpus), n_found),
                    dtype="float32",
                    chunks=(min(CELLS_AT_ONCE, len(corpus)), max(n_found, 1)),
                    compressors=None,
                    config=ALL_CHUNKS,
                )
                logger.info("%s: %d components of %d genes, %d cells", space, n_found, width,
                            len(corpus))  # fmt: skip
            for rows, values in iter_values(corpus, features, scaled):
                values -= centre
                for space, of_space in loadings.items():
                    scores = values[:, : len(of_space)] @ of_space
                    group[space][rows[0] : rows[-1] + 1] = scores


def write_arrays(group: zarr.Group, place: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write small arrays to a place in a group."""
    for name, values in arrays.items():
        group.create_array(f"{place}/{name}", data=values, config=ALL_CHUNKS)


def open_pca(corpus: Corpus) -> Pca:
    """Open the principal components of a corpus in its folder; compute them if there are none."""
    path = corpus.folder / "pca.zarr"
    if not path.exists():
        compute_pca(corpus, path)
    return Pca(path, corpus)


class Pca:
    """The principal components of a corpus: ``pca["rna"]``, or of another of :data:`SPACES`.

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
        self._read: dict[str, np.ndarray] = {}
        with reading("CORPUS", self.path, UNREADABLE, REMEDY):
            self._group = open_zarr(self.path)
            stamp = self._group.attrs[STAMP]
            made_from, self._arrays = stamp["corpus"], stamp["arrays"]
        if made_from != corpus.id:
            raise InputError(
                "CORPUS", f"{self.path}: was computed from another corpus than {corpus.folder}; "
                f"{REMEDY}.",
            )  # fmt: skip

    def __getitem__(self, space: str) -> np.ndarray:
        """Return the components of all cells, (cells, components) of float32, read once."""
        name = self._arrays[space]
        if name not in self._read:
            with reading("CORPUS", self.path, UNREADABLE, REMEDY):
                values: np.ndarray = self._group[name][:]
                if len(values) != self._n_cells:
                    raise ValueError(f"{name} has {len(values)} of {self._n_cells} cells")
            self._read[name] = values
        return self._read[name]

    def select(self, rows: np.ndarray, space: str) -> np.ndarray:
        """Select the components of some cells in one of the :data:`SPACES`."""
        return self[space][check_rows(rows, self._n_cells)]
