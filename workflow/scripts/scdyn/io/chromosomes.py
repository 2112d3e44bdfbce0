"""Names of chromosomes, so that files of different origin can be compared."""

from __future__ import annotations

import re

import pandas as pd

# RefSeq's accessions of the chromosomes of human and mouse, without version, by UCSC's names.
REFSEQ = {
    **{f"NC_{i:06d}": f"chr{i}" for i in range(1, 23)},
    "NC_000023": "chrX",
    "NC_000024": "chrY",
    "NC_012920": "chrM",
    **{f"NC_{66 + i:06d}": f"chr{i}" for i in range(1, 20)},
    "NC_000086": "chrX",
    "NC_000087": "chrY",
    "NC_005089": "chrM",
}
MITOCHONDRIAL = "chrM"
# Ensembl's names of it: of vertebrates, worm, fly, yeast and plants.
OF_MITOCHONDRIA = ("MT", "M", "chrMT", "MtDNA", "mitochondrion_genome", "Mito", "Mt")


def chromosome_name(name: str) -> str:
    """Name a chromosome as UCSC does, so that files of different origin can be compared.

    Ensembl's ``1`` and RefSeq's ``NC_000001.11`` (of human and mouse) become ``chr1``, ``MT`` and
    its other names ``chrM``; other names, such as those of scaffolds, are left.
    """
    name = str(name)
    if name in OF_MITOCHONDRIA:
        return MITOCHONDRIAL
    if re.fullmatch(r"\d{1,2}[LR]?|[WXYZ]|[IVX]+", name):
        return f"chr{name}"
    return REFSEQ.get(name.split(".")[0], name)


def chromosome_names(names: pd.Series) -> pd.Series:
    """Name chromosomes as :func:`chromosome_name` does."""
    return names.map({name: chromosome_name(name) for name in names.unique()})
