"""Which files the simulated study has, by sample; read before they are made."""

from __future__ import annotations

# In the order of the sheet; the knockout's sequencing core hands over a folder of text files.
SAMPLES = ("wildtype_1", "wildtype_2", "knockout_1")
# Of the study, not of a sample.
STUDY_FILES = (
    "genes.gtf.gz", "tfs.txt", "motifs.genes_vs_motifs.rankings.feather", "motifs.annotation.tbl",
    "cell_metadata.tsv", "truth/parameters.json",
)  # fmt: skip


def choose_layout(sample: str) -> str:
    """How a sample's matrix is written: ``mtx`` or ``h5``."""
    return "mtx" if sample.startswith("knockout") else "h5"


def list_files(sample: str) -> list[str]:
    """List a sample's files, below the folder of the simulation."""
    matrix = {
        "h5": ["filtered_feature_bc_matrix.h5"],
        "mtx": [
            f"filtered_feature_bc_matrix/{name}.gz"
            for name in ("matrix.mtx", "barcodes.tsv", "features.tsv")
        ],
    }[choose_layout(sample)]
    others = ["atac_fragments.tsv.gz", "per_barcode_metrics.csv"]
    return [f"{sample}/{name}" for name in (*matrix, *others)]
