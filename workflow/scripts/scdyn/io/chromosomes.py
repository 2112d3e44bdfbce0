"""Chromosome names in one style, so that files from different sources can be compared."""

from __future__ import annotations

import re

import pandas as pd

# UCSC name of each RefSeq accession (without version) of the human and mouse chromosomes.
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
# Ensembl's names of the mitochondrial chromosome in vertebrates, worm, fly, yeast and plants.
MITOCHONDRIAL_SYNONYMS = ("MT", "M", "chrMT", "MtDNA", "mitochondrion_genome", "Mito", "Mt")


def to_ucsc_name(name: str) -> str:
    """Convert a chromosome's name to UCSC style.

    Ensembl's ``1`` and RefSeq's ``NC_000001.11`` (human and mouse) become ``chr1``; ``MT`` and its
    synonyms become ``chrM``. Other names, such as those of scaffolds, are not changed.
    """
    name = str(name)
    if name in MITOCHONDRIAL_SYNONYMS:
        return MITOCHONDRIAL
    if re.fullmatch(r"\d{1,2}[LR]?|[WXYZ]|[IVX]+", name):
        return f"chr{name}"
    return REFSEQ.get(name.split(".")[0], name)


def to_ucsc_names(names: pd.Series) -> pd.Series:
    """Convert chromosome names to UCSC style; see :func:`to_ucsc_name`."""
    return names.map({name: to_ucsc_name(name) for name in names.unique()})
