"""Fates of progenitors from their clone's differentiated cells, for config/real/larry.yaml."""

import sys
from pathlib import Path

import anndata as ad
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def clonal_fates(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])
    import clonal_fates

    return clonal_fates


def make_cells(rows):
    """Make cells of (name, day, state, clone)."""
    table = pd.DataFrame(rows, columns=["cell", "time_info", "state_info", "clone"])
    return table.set_index("cell").astype("category")


def test_a_progenitor_has_the_commonest_state_of_its_differentiated_sisters(clonal_fates):
    cells = make_cells(
        [
            ("early", "2", "undiff", "1"),
            ("a", "4", "Baso", "1"),
            ("b", "6", "Baso", "1"),
            ("c", "6", "Mast", "1"),
            ("d", "6", "undiff", "1"),
            ("other", "6", "Mast", "2"),
        ]
    )
    found = clonal_fates.find_fates(cells)
    assert found.loc["early"].tolist() == ["Baso", "progenitor"]
    assert found.loc[["a", "b", "c"], "role"].eq("sister").all()
    assert found.loc["c", "fate"] == "Mast"
    assert found.loc["other"].tolist() == ["Mast", "mature"]
    # The last day has no fate to come.
    assert pd.isna(found.loc["d", "fate"]) and found.loc["d", "role"] == "undifferentiated"


def test_without_a_majority_or_a_later_sister_a_fate_is_not_known(clonal_fates):
    cells = make_cells(
        [
            ("tied", "2", "undiff", "1"),
            ("a", "6", "Baso", "1"),
            ("b", "6", "Mast", "1"),
            ("after", "4", "undiff", "2"),
            ("before", "2", "Baso", "2"),
            ("alone", "2", "undiff", "3"),
        ]
    )
    found = clonal_fates.find_fates(cells)
    unknown = found.loc[["tied", "after", "alone"]]
    assert unknown["fate"].isna().all() and unknown["role"].eq("undifferentiated").all()
    assert found.loc[["a", "b", "before"], "role"].eq("mature").all()


def test_no_training_clone_is_a_progenitors_clone_and_the_table_has_all_cells(
    clonal_fates, tmp_path, monkeypatch
):
    states = ["undiff", "Baso", "Mast"]
    rows = [
        (str(i), str(2 + 2 * (i % 3)), states[i * 7 % 5 % 3], str(i * 3 % 17)) for i in range(120)
    ]
    cells = make_cells(rows)
    ad.AnnData(obs=cells).write_h5ad(tmp_path / "cells.h5ad")
    output = tmp_path / "new" / "fates.tsv"
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "cells.h5ad"), str(output)])
    clonal_fates.main()
    found = pd.read_csv(output, sep="\t", dtype=str).set_index("barcode")
    assert found.index.equals(pd.Index(cells.index, name="barcode"))
    clones = cells["clone"].groupby(found["role"]).agg(set)
    assert clones["progenitor"] and not clones["progenitor"] & clones["mature"]
    assert clones["sister"] <= clones["progenitor"]
