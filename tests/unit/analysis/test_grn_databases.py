"""Motif databases: read, counted, and refused where they do not fit."""

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import feather

from scdyn.errors import InputError
from scdyn.grn.databases import check_databases

GENES = pd.DataFrame(
    {"symbol": ["Tf1", "Tf2", "G1", "G2", "G3"], "is_tf": [True, True, False, False, False]}
)


@pytest.fixture
def files(tmp_path):
    """Write a database of the given genes, and an annotation of its motifs."""

    def write(genes, tfs=("Tf1", "Tf2"), column="motifs"):
        database = tmp_path / "db.genes_vs_motifs.rankings.feather"
        table = {gene: pa.array([0, 1], pa.int16()) for gene in genes}
        feather.write_feather(pa.table({**table, column: ["m1", "m2"]}), database)
        annotations = tmp_path / "motifs.tbl"
        pd.DataFrame(
            {
                "#motif_id": ["m1", "m2"], "gene_name": tfs, "motif_similarity_qvalue": 0.0,
                "orthologous_identity": 1.0, "description": "gene is directly annotated",
            }
        ).to_csv(annotations, sep="\t", index=False)  # fmt: skip
        return [database], annotations

    return write


def test_overlap_is_counted(files):
    table = check_databases(*files(["Tf1", "Tf2", "G1", "G2", "X"]), GENES, 0.5)
    row = table.iloc[0]
    assert (row["n_genes"], row["n_found"], row["share"]) == (5, 4, 0.8)
    assert (row["n_tfs"], row["n_tfs_with_motif"]) == (2, 2)


def test_a_database_of_another_species_is_refused(files):
    with pytest.raises(InputError, match=r"0%.*such as TF1, G1.*another species"):
        check_databases(*files(["TF1", "G1", "G2X"]), GENES, 0.5)


def test_annotations_of_another_species_are_refused(files):
    with pytest.raises(InputError, match="0 of 2 TFs"):
        check_databases(*files(["Tf1", "Tf2", "G1"], tfs=("TF1", "TF2")), GENES, 0.5)


def test_what_is_no_database_is_said(files, tmp_path):
    rankings, annotations = files(["Tf1", "G1", "G2"], column="features")
    with pytest.raises(InputError, match="no column motifs or tracks"):
        check_databases(rankings, annotations, GENES, 0.5)
    rankings[0].write_text("tf\tgene\n")
    with pytest.raises(InputError, match="cannot be read as a cisTarget ranking database"):
        check_databases(rankings, annotations, GENES, 0.5)
    with pytest.raises(InputError, match="not a motif annotation table"):
        check_databases(rankings, rankings[0], GENES, 0.5)
