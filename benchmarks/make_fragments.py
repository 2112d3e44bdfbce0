"""Write a fragments file like Cell Ranger's: sorted, block-gzipped, with background barcodes."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

N_CELLS, N_BACKGROUND = 10_000, 200_000
# Share of the fragments from cells.
OF_CELLS = 0.6
# Share of the fragments in promoters, as in a good library.
IN_PROMOTERS = 0.2
CHROMOSOMES = {f"chr{i}": 200_000_000 - 6_000_000 * i for i in range(1, 23)}
LINES_AT_ONCE = 1_000_000


def draw_barcodes(rng: np.random.Generator) -> np.ndarray:
    """Draw barcodes in Cell Ranger's format, first those of cells."""
    letters = rng.choice(list("ACGT"), (N_CELLS + N_BACKGROUND, 16))
    return np.array(["".join(row) + "-1" for row in letters])


def genes(n_genes: int = 36_000, seed: int = 0) -> pd.DataFrame:
    """Make a vocabulary of genes with one to six TSSs on all chromosomes."""
    rng = np.random.default_rng(seed)
    chrom = rng.choice(list(CHROMOSOMES), n_genes)
    first = rng.integers(10_000, 60_000_000, n_genes)
    tss = [
        ",".join(map(str, sorted(start + rng.integers(0, 30_000, n))))
        for start, n in zip(first, rng.integers(1, 7, n_genes), strict=True)
    ]
    strand = rng.choice(["+", "-"], n_genes)
    ids = [f"ENSG{i:011d}" for i in range(n_genes)]
    return pd.DataFrame({"gene_id": ids, "chrom": chrom, "strand": strand, "tss": tss})


def write(path: Path, windows: pd.DataFrame, n_lines: int, seed: int = 0) -> np.ndarray:
    """Write ``n_lines`` fragments; return the cells' barcodes."""
    rng = np.random.default_rng(seed)
    names = pl.Series(draw_barcodes(rng))
    sizes = np.array(list(CHROMOSOMES.values()), dtype=float)
    of_chrom = rng.multinomial(n_lines, sizes / sizes.sum())
    with path.open("wb") as file:
        file.write(gzip.compress(b"# id=generated\n"))
        for (chrom, size), n in zip(CHROMOSOMES.items(), of_chrom, strict=True):
            near = windows.loc[windows["chrom"] == chrom, "start"].to_numpy()
            start = rng.integers(0, size, n)
            at_promoter = rng.random(n) < IN_PROMOTERS
            n_near = at_promoter.sum()
            start[at_promoter] = rng.choice(near, n_near) + rng.integers(0, 2000, n_near)
            start.sort()
            cell = rng.random(n) < OF_CELLS
            row = np.where(
                cell, rng.integers(0, N_CELLS, n), N_CELLS + rng.integers(0, N_BACKGROUND, n)
            )
            table = pl.DataFrame(
                {
                    "chrom": np.full(n, chrom),
                    "start": start,
                    "end": start + rng.integers(30, 600, n),
                    "barcode": names.gather(row),
                    "reads": rng.integers(1, 4, n),
                }
            )
            for part in table.iter_slices(LINES_AT_ONCE):
                text = part.write_csv(include_header=False, separator="\t").encode()
                file.write(gzip.compress(text, 1))
    return names[:N_CELLS].to_numpy()
