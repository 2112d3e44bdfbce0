"""The file names of the simulated study, known before it is simulated."""

from __future__ import annotations

# In the order of the sample sheet. The knockout's matrix is a folder of text files.
SAMPLES = ("wildtype_1", "wildtype_2", "knockout_1")
# Files of the whole study.
STUDY_FILES = (
    "genes.gtf.gz", "tfs.txt", "motifs.genes_vs_motifs.rankings.feather", "motifs.annotation.tbl",
    "cell_metadata.tsv", "truth/parameters.json",
)  # fmt: skip


def choose_layout(sample: str) -> str:
    """Choose the format of a sample's matrix: ``mtx`` or ``h5``."""
    return "mtx" if sample.startswith("knockout") else "h5"


def list_files(sample: str) -> list[str]:
    """List a sample's files, relative to the folder of the simulation."""
    matrix = {
        "h5": ["filtered_feature_bc_matrix.h5"],
        "mtx": [
            f"filtered_feature_bc_matrix/{name}.gz"
            for name in ("matrix.mtx", "barcodes.tsv", "features.tsv")
        ],
    }[choose_layout(sample)]
    others = ["atac_fragments.tsv.gz", "per_barcode_metrics.csv"]
    return [f"{sample}/{name}" for name in (*matrix, *others)]
