"""Write a large sample: genes and peaks like ``cellranger-arc aggr``, or two layers of an h5ad."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import h5py
import make_fragments
import numpy as np
import pandas as pd
from scipy import sparse

N_GENES, N_PEAKS = 22_000, 150_000
# Draws per cell that give 2,500 expressed genes, 8,000 open peaks (of 3,000 genes' promoters) and
# 3,000 genes of a second layer.
DRAWS_OF_GENES, DRAWS_OF_PEAKS, DRAWS_OF_LAYER = 3_500, 9_900, 4_400
CELLS_OF_LIBRARY = 25_000
CELLS_AT_ONCE = 500


def make_vocabulary() -> pd.DataFrame:
    """Make the vocabulary: all genes with their TSSs."""
    genes = make_fragments.genes(N_GENES)
    return genes.assign(
        symbol=[f"Gene{i}" for i in range(N_GENES)],
        length=2000,
        n_tss=genes["tss"].str.count(",") + 1,
        is_tf=np.arange(N_GENES) < 1500,
        is_mt=False,
    )


def name_peaks(seed: int = 0) -> list[str]:
    """Name random peaks, a quarter of them at promoters."""
    rng = np.random.default_rng(seed)
    genes = make_fragments.genes(N_GENES)
    chrom = genes["chrom"].to_numpy()[rng.integers(0, N_GENES, N_PEAKS)]
    start = rng.integers(0, 60_000_000, N_PEAKS)
    near = genes.sample(N_PEAKS // 4, replace=True, random_state=seed)
    chrom[: len(near)] = near["chrom"]
    start[: len(near)] = near["tss"].str.split(",").str[0].astype(int)
    return [f"{c}:{s}-{s + 900}" for c, s in zip(chrom, start, strict=True)]


def draw_cells(
    sizes: dict[int, int], n_cells: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draw blocks of cells: the features of each cell, and their counts.

    Parameters
    ----------
    sizes
        Number of features of each kind, and of draws from it per cell. Ten cell types differ in
        their features, whose frequencies vary widely, as in real data.
    n_cells, seed
        Number of cells and seed.

    Yields
    ------
    lengths, indices : ndarray
        Features per cell, and the features of one cell after another.
    """
    rng = np.random.default_rng(seed)
    weights = [rng.lognormal(0, 1.5, n) for n in sizes]
    bounds = [np.cumsum(rng.permuted(np.tile(w, (10, 1)), axis=1), axis=1) for w in weights]
    starts = np.cumsum([0, *sizes])
    for _ in range(0, n_cells, CELLS_AT_ONCE):
        rows = [
            np.concatenate(
                [
                    start + np.unique(np.searchsorted(b[kind], rng.random(n) * b[kind][-1]))
                    for b, n, start in zip(bounds, sizes.values(), starts, strict=False)
                ]
            )
            for kind in rng.integers(0, 10, CELLS_AT_ONCE)
        ]
        yield np.array([len(row) for row in rows]), np.concatenate(rows)


def name_cells(n_cells: int) -> list[str]:
    """Name cells like barcodes of libraries of :data:`CELLS_OF_LIBRARY` cells."""
    return [f"{i:016d}-{i // CELLS_OF_LIBRARY + 1}" for i in range(n_cells)]


def write(path: Path, n_cells: int, seed: int = 0) -> None:
    """Write genes, in another order than the vocabulary's, and peaks as an ``.h5`` of 10x."""
    rng = np.random.default_rng(seed)
    genes = make_vocabulary().sample(frac=1, random_state=seed)
    sizes = {N_GENES: DRAWS_OF_GENES, N_PEAKS: DRAWS_OF_PEAKS}
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        filters = {
            "maxshape": (None,), "chunks": (80_000,), "compression": "gzip", "compression_opts": 1,
            "shuffle": True,
        }  # fmt: skip
        data = group.create_dataset("data", (0,), "int32", **filters)
        indices = group.create_dataset("indices", (0,), "int64", **filters)
        indptr = [0]
        for lengths, part in draw_cells(sizes, n_cells, seed):
            indptr.extend(indptr[-1] + np.cumsum(lengths))
            for dataset, values in ((data, rng.geometric(0.6, len(part))), (indices, part)):
                dataset.resize(indptr[-1], axis=0)
                dataset[-len(part) :] = values
        group["indptr"] = np.array(indptr, dtype=np.int64)
        group["shape"] = np.array([N_GENES + N_PEAKS, n_cells], dtype=np.int32)
        group["barcodes"] = np.array(name_cells(n_cells), dtype="S")
        places = name_peaks()
        group["features/id"] = np.array([*genes["gene_id"], *places], dtype="S")
        group["features/name"] = np.array([*genes["symbol"], *places], dtype="S")
        kinds = ["Gene Expression"] * N_GENES + ["Peaks"] * N_PEAKS
        group["features/feature_type"] = np.array(kinds, dtype="S")
        group["features/genome"] = np.array(["generated"] * (N_GENES + N_PEAKS), dtype="S")


def write_layers(path: Path, n_cells: int, seed: int = 0) -> None:
    """Write the layers "spliced" and "unspliced", and logs in ``X``, as an ``.h5ad``."""
    rng = np.random.default_rng(seed)
    genes = make_vocabulary().sample(frac=1, random_state=seed)
    layers = {}
    for name, n_draws in (("spliced", DRAWS_OF_GENES), ("unspliced", DRAWS_OF_LAYER)):
        drawn = list(draw_cells({N_GENES: n_draws}, n_cells, seed))
        indptr = np.concatenate([[0], np.cumsum(np.concatenate([length for length, _ in drawn]))])
        indices = np.concatenate([part.astype(np.int32) for _, part in drawn])
        data = rng.geometric(0.6, len(indices)).astype(np.float32)
        layers[name] = sparse.csr_matrix((data, indices, indptr), (n_cells, N_GENES))
    cells = ad.AnnData(
        layers["spliced"].log1p(),
        obs=pd.DataFrame(index=name_cells(n_cells)),
        var=pd.DataFrame(index=genes["gene_id"].to_numpy()),
        layers=layers,
    )
    cells.write_h5ad(path, compression="gzip")
