"""Generated samples on disk, as ingestion writes them, of any number of cells."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from scdyn.io.shards import write_shard
from scdyn.pp.counts import describe_sizes
from scdyn.pp.obs_columns import METRICS

N_GENES, N_TFS, N_TYPES = 22_000, 1_500, 10
# Mean numbers of genes with RNA and of open promoters per cell.
PER_CELL = {"rna": 2_500, "promoter": 3_000}
CELLS_OF_SAMPLE = 25_000
CELLS_AT_ONCE = 500


def make_genes(n_genes: int = N_GENES) -> pd.DataFrame:
    """Make a vocabulary."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "gene_id": [f"ENSG{i:011d}" for i in range(n_genes)],
            "symbol": [f"Gene{i}" for i in range(n_genes)],
            "chrom": "chr1",
            "strand": "+",
            "length": rng.integers(500, 9_000, n_genes),
            "n_tss": rng.integers(1, 5, n_genes),
            "tss": "1000",
            "is_tf": np.arange(n_genes) < N_TFS,
            "is_mt": False,
        }
    )


def draw_counts(
    types: np.ndarray, per_cell: int, rng: np.random.Generator, n_genes: int = N_GENES
) -> sparse.csr_matrix:
    """Draw counts (cells, genes) of cells of some types; genes differ widely in their frequency."""
    parts = []
    weights = rng.lognormal(0, 1.2, n_genes) * rng.lognormal(0, 0.7, (N_TYPES, n_genes))
    scale = np.full((N_TYPES, 1), per_cell / n_genes)
    for _ in range(30):  # so that the mean number of genes is as asked for
        chance = np.minimum(scale * weights, 0.95)
        scale *= per_cell / chance.sum(1, keepdims=True)
    for start in range(0, len(types), CELLS_AT_ONCE):
        here = types[start : start + CELLS_AT_ONCE]
        found = sparse.csr_matrix(rng.random((len(here), n_genes), np.float32) < chance[here])
        found = found.astype(np.int32)
        found.data = rng.geometric(0.6, found.nnz).astype(np.int32)
        parts.append(found)
    counts = sparse.vstack(parts, format="csr")
    # One gene of high counts, as in real cells, needs two bytes.
    counts.data[:: len(counts.data) // len(types)] += 300
    return counts


def make_sample(name: str, n_cells: int, seed: int = 0) -> ad.AnnData:
    """Make a sample after quality control; ``obs["kind"]`` has the types of its cells."""
    rng = np.random.default_rng(seed)
    types = rng.integers(0, N_TYPES, n_cells)
    layers = {name: draw_counts(types, n, rng) for name, n in PER_CELL.items()}
    cells = ad.AnnData(layers["rna"], obs=make_obs(name, n_cells, rng).assign(kind=types))
    cells.layers["promoter"] = layers["promoter"]
    cells.var = make_genes().set_index("gene_id")
    return cells


def make_obs(name: str, n_cells: int, rng: np.random.Generator) -> pd.DataFrame:
    """Make a sample's table of cells, with all metrics."""
    barcodes = [f"{name[1:]:>04}{i:012d}-1" for i in range(n_cells)]
    obs = pd.DataFrame({"sample": name, "barcode": barcodes, "promoter_source": "peaks"})
    obs.index = pd.Index([f"{name}_{barcode}" for barcode in barcodes])
    for metric in METRICS:
        whole = metric.endswith(("counts", "genes", "fragments"))
        obs[metric] = rng.integers(0, 9_000, n_cells) if whole else rng.random(n_cells)
    return obs


def write_samples(folder: Path, n_samples: int, n_cells: int = CELLS_OF_SAMPLE) -> pd.Series:
    """Write samples ``s0``, ``s1``...: the same counts in other orders; return each cell's type."""
    first, types = make_sample("s0", n_cells), []
    for i in range(n_samples):
        rng = np.random.default_rng(i)
        order = rng.permutation(n_cells)
        obs = make_obs(f"s{i}", n_cells, rng)
        types.append(pd.Series(first.obs["kind"].to_numpy()[order], obs.index))
        path = folder / f"s{i}.zarr"
        if path.exists():
            continue
        cells = ad.AnnData(first.X[order], obs=obs, var=first.var)
        cells.layers["promoter"] = first.layers["promoter"][order]
        write_shard(path, describe_sizes(cells))
    return pd.concat(types)
