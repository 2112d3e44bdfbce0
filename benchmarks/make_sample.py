"""Write a large sample like ``cellranger-arc aggr``: genes and peaks of several libraries."""

from __future__ import annotations

from pathlib import Path

import h5py
import make_fragments
import numpy as np
import pandas as pd

N_GENES, N_PEAKS = 36_000, 150_000
# Mean number of non-zero genes and peaks per cell, as in a good library.
GENES_OF_CELL, PEAKS_OF_CELL = 2_500, 5_000
CELLS_OF_LIBRARY = 12_500
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


def write(path: Path, n_cells: int, seed: int = 0) -> None:
    """Write the sample, with ten cell types that differ in their genes and peaks."""
    rng = np.random.default_rng(seed)
    n_features = N_GENES + N_PEAKS
    genes = make_vocabulary()
    # Frequencies of genes and peaks vary widely, as in real data.
    weights = [rng.lognormal(0, 1.5, n) for n in (N_GENES, N_PEAKS)]
    bounds = [np.cumsum(rng.permuted(np.tile(w, (10, 1)), axis=1), axis=1) for w in weights]
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        filters = {"maxshape": (None,), "chunks": (2**18,), "compression": "lzf"}
        data = group.create_dataset("data", (0,), "int32", **filters)
        indices = group.create_dataset("indices", (0,), "int64", **filters)
        indptr = [0]
        for _ in range(0, n_cells, CELLS_AT_ONCE):
            rows = []
            for kind in rng.integers(0, 10, CELLS_AT_ONCE):
                drawn = [
                    np.unique(np.searchsorted(b[kind], rng.random(int(n * 1.3)) * b[kind][-1]))
                    for b, n in zip(bounds, (GENES_OF_CELL, PEAKS_OF_CELL), strict=True)
                ]
                rows.append(np.concatenate([drawn[0], drawn[1] + N_GENES]))
            part = np.concatenate(rows)
            indptr.extend(indptr[-1] + np.cumsum([len(row) for row in rows]))
            for dataset, values in ((data, rng.geometric(0.6, len(part))), (indices, part)):
                dataset.resize(indptr[-1], axis=0)
                dataset[-len(part) :] = values
        group["indptr"] = np.array(indptr, dtype=np.int64)
        group["shape"] = np.array([n_features, n_cells], dtype=np.int32)
        names = [f"{i:016d}-{i // CELLS_OF_LIBRARY + 1}" for i in range(n_cells)]
        group["barcodes"] = np.array(names, dtype="S")
        places = name_peaks()
        group["features/id"] = np.array([*genes["gene_id"], *places], dtype="S")
        group["features/name"] = np.array([*genes["symbol"], *places], dtype="S")
        kinds = ["Gene Expression"] * N_GENES + ["Peaks"] * N_PEAKS
        group["features/feature_type"] = np.array(kinds, dtype="S")
        group["features/genome"] = np.array(["generated"] * n_features, dtype="S")
