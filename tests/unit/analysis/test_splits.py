"""Splits that do not leak: units whole, classes balanced, validation cells apart."""

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from scdyn.errors import InputError
from scdyn.io.files import write_table
from scdyn.tasks import splits


def obs():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "type": rng.choice(["x", "y"], 120),
            "donor": np.repeat([f"d{i}" for i in range(6)], 20),
        },
        index=[f"c{i}" for i in range(120)],
    )


def split(**changes):
    return split_and_left_out(**changes)[0]


def split_and_left_out(cells=None, **changes):
    cells = obs() if cells is None else cells
    queries = np.arange(120) >= 100
    options = {"label": "type", "split_by": "donor", "n_folds": 3, "seed": 1} | changes
    return splits.make_splits(cells, ~queries, queries, **options)


def test_a_donor_is_in_one_fold_and_every_cell_is_tested_once():
    table = split()
    tested = table[table["fold"] != splits.PREDICTED]
    assert (tested.groupby("unit")["fold"].nunique() == 1).all()
    assert tested["cell"].is_unique and len(tested) == 100
    assert sorted(tested["fold"].unique()) == [0, 1, 2]
    assert (table["fold"] == splits.PREDICTED).sum() == 20


def test_splits_follow_the_seed():
    pd.testing.assert_frame_equal(split(), split())
    assert not split(split_by=None).equals(split(split_by=None, seed=2))


@pytest.mark.parametrize(
    ("split_by", "kind"), [("donor", StratifiedGroupKFold), (None, StratifiedKFold)]
)
def test_where_no_class_is_rare_the_folds_are_those_of_one_draw(split_by, kind):
    chosen = obs().iloc[:100]
    splitter = kind(3, shuffle=True, random_state=1)
    drawn = splitter.split(chosen, chosen["type"], chosen["donor"])
    fold_of = {cell: i for i, (_, test) in enumerate(drawn) for cell in chosen.index[test]}
    table = split(split_by=split_by)
    tested = table[table["fold"] != splits.PREDICTED]
    assert tested.set_index("cell")["fold"].to_dict() == fold_of


def test_a_left_out_class_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="no training cell has the label 'Purple'"):
        splits.split_cells(split().astype(str), "0", without="Purple")


def test_a_class_is_left_out_only_if_two_others_remain():
    training, _, _ = splits.split_cells(split().astype(str), "0", without="x")
    with pytest.raises(InputError, match="left_out: without 'x' the training set has one class"):
        splits.require_other_classes(training, "x")


def test_parts_share_no_cell():
    table = split().astype(str)
    training, validation, predicted = splits.split_cells(table, "1")
    assert not set(training["cell"]) & set(predicted["cell"])
    assert not set(validation["cell"]) & (set(predicted["cell"]) | set(training["cell"]))
    assert set(training["fold"]) | set(validation["fold"]) == {"0", "2"}
    assert 0.05 < len(validation) / (len(training) + len(validation)) < 0.15


def test_a_share_of_the_labels_is_drawn_within_classes_and_by_the_seed():
    table = split(split_by=None).astype(str)
    whole = pd.concat(splits.split_cells(table, "0")[:2])
    few, validation, predicted = splits.split_cells(table, "0", labels=0.2, seed=1)
    drawn = pd.concat([few, validation])
    assert set(drawn["cell"]) < set(whole["cell"])
    expected = (whole["label"].value_counts() * 0.2).round()
    pd.testing.assert_series_equal(
        drawn["label"].value_counts().astype(float).sort_index(), expected.sort_index()
    )
    other = splits.split_cells(table, "0", labels=0.2, seed=2)[0]
    assert set(other["cell"]) != set(few["cell"])
    assert set(predicted["cell"]) == set(splits.split_cells(table, "0")[2]["cell"])


def test_a_class_left_out_is_neither_trained_on_nor_validated_but_predicted():
    training, validation, predicted = splits.split_cells(split().astype(str), "0", without="x")
    assert set(training["label"]) == set(validation["label"]) == {"y"}
    assert "x" in set(predicted["label"])


def test_predicted_cells_keep_their_own_label_and_are_never_validated_on():
    table = split()
    queries = table[table["fold"] == splits.PREDICTED]
    assert queries["label"].tolist() == obs()["type"].iloc[100:].tolist()
    assert not queries["validation"].any()


def test_a_split_of_cells_is_called_within_sample():
    assert splits.describe_split(split(split_by=None), None).startswith("within-sample: 3 folds")
    assert splits.describe_split(split(), "donor") == "by donor: 5 units, each in one of 3 folds"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label": "kind"}, "no column 'kind'"),
        (
            {"n_folds": 6},
            "6 folds need as many values of donor .* there are 5; set .* folds to 5 at most",
        ),
        ({"label": "donor", "split_by": None, "n_folds": 25}, "cells per class, but there are 20"),
        ({"min_cells": 51}, "1 of 2 classes have.* .left out: '[xy]' fewer than 51 cells"),
        ({"label": "donor"}, "0 of 5 classes have.*'d0' in fewer than 2 of donor .min_units."),
    ],
)
def test_impossible_splits_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        split(**changes)


def test_a_single_unit_is_refused_with_the_remedy():
    cells = obs().assign(donor="d0")
    with pytest.raises(InputError, match=r"there are 1; .*split_by: null"):
        split_and_left_out(cells)


def test_cells_of_an_unknown_unit_are_in_no_fold(caplog):
    cells = obs()
    cells.loc[cells.index[:20], "donor"] = np.nan
    table, left_out = split_and_left_out(cells)
    assert set(table["unit"]) == {"", "d1", "d2", "d3", "d4"} and left_out.empty
    assert not table["cell"].isin(cells.index[:20]).any()
    assert "20 of 100 labelled cells have no value of donor and are left out" in caplog.text
    with pytest.raises(InputError, match="5 folds need as many .* there are 4"):
        split_and_left_out(cells, n_folds=5)
    with pytest.raises(InputError, match="none of the 100 labelled cells has a value of donor"):
        split_and_left_out(cells.assign(donor=np.nan))
    assert len(split_and_left_out(cells, split_by=None)[0]) == 120


def donors(counts):
    """A table of cells by a mapping of (donor, type) to how many."""
    rows = [key for key, n in counts.items() for _ in range(n)]
    table = pd.DataFrame(rows, columns=["donor", "type"])
    return table.set_index(pd.Index([f"c{i}" for i in range(len(rows))]))


THREE_DONORS = {
    **{(donor, kind): 20 for donor in "ABC" for kind in ("B cell", "T cell")},
    ("A", "HSC"): 2, ("B", "HSC"): 0,  # of one donor
    ("A", "pDC"): 6, ("B", "pDC"): 5,  # of two
    ("A", "NA"): 1, ("B", "NA"): 1,  # two cells
}  # fmt: skip


def test_rare_classes_are_left_out_and_the_others_are_split():
    """Three donors, three folds, two stem cells of one donor: the task goes on without them."""
    cells = donors(THREE_DONORS)
    everyone = np.ones(len(cells), dtype=bool)
    table, left_out = splits.make_splits(cells, everyone, ~everyone, "type", "donor", 3, 1)
    assert left_out["class"].tolist() == ["HSC", "NA"]
    assert left_out["n_cells"].tolist() == [2, 2] and left_out["n_units"].tolist() == [1, 2]
    assert set(table["label"]) == {"B cell", "T cell", "pDC"}
    assert len(table) == len(cells) - 4
    table, left_out = splits.make_splits(
        cells, everyone, ~everyone, "type", "donor", 3, 1, min_cells=2, min_units=3
    )
    assert left_out["class"].tolist() == ["HSC", "NA", "pDC"]
    assert set(left_out["reason"]) == {"in fewer than 3 of donor (min_units)"}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("by", "n_folds"), [("donor", 2), ("donor", 3), (None, 2), (None, 5)])
def test_what_is_tested_in_a_fold_is_trained_on_in_another(seed, by, n_folds):
    rng = np.random.default_rng(seed)
    counts = {(d, k): rng.integers(0, 4) for d in "ABCDE" for k in ("u", "v", "w")}
    counts |= {(d, k): 9 for d in "ABCDE" for k in ("x", "y")}
    cells = donors(counts)
    everyone = np.ones(len(cells), dtype=bool)
    table, left_out = splits.make_splits(
        cells, everyone, ~everyone, "type", by, n_folds, seed, min_cells=2
    )
    assert (table.groupby("label")["fold"].nunique() >= 2).all()
    assert set(table["label"]) | set(left_out["class"]) == set(cells["type"])
    assert table["fold"].nunique() == n_folds
    for fold in range(n_folds):
        training, _, predicted = splits.split_cells(table.astype(str), str(fold))
        assert set(predicted["label"]) <= set(training["label"])


def test_a_class_whose_units_no_draw_can_part_is_left_out():
    # Of two donors each, in two folds: a draw of folds that parts both pairs must be found.
    pairs = {(d, k): 5 for k, ds in {"u": "AB", "v": "CD"}.items() for d in ds}
    cells = donors(pairs | {(d, "x"): 9 for d in "ABCD"})
    everyone = np.ones(len(cells), dtype=bool)
    for seed in range(10):
        table, left_out = splits.make_splits(cells, everyone, ~everyone, "type", "donor", 2, seed)
        assert left_out.empty and set(table["label"]) == {"u", "v", "x"}
    # Of three donors, two pairs that share none of them but all three: one must stay together.
    pairs = {(d, k): 5 for k, ds in {"u": "AB", "v": "BC", "w": "AC"}.items() for d in ds}
    cells = donors(pairs | {(d, k): 9 for d in "ABC" for k in "xy"})
    everyone = np.ones(len(cells), dtype=bool)
    table, left_out = splits.make_splits(cells, everyone, ~everyone, "type", "donor", 2, 1)
    assert left_out["reason"].tolist() == ["all in one fold of 2"]
    assert len(set(table["label"])) == 4


def test_predicted_cells_of_a_left_out_class_keep_their_label():
    cells = donors(THREE_DONORS)
    queries = (cells["donor"] == "A").to_numpy()
    table, left_out = splits.make_splits(cells, ~queries, queries, "type", "donor", 2, 1)
    assert left_out["class"].tolist() == ["NA", "pDC"]
    predicted = table[table["fold"] == splits.PREDICTED]
    assert set(predicted["label"]) == {"B cell", "T cell", "HSC", "pDC", "NA"}


def test_cells_both_learned_and_predicted_are_refused():
    everyone = np.ones(120, dtype=bool)
    with pytest.raises(InputError, match="exclude each other"):
        splits.make_splits(obs(), everyone, everyone, "type", None, 2, 0)


def test_a_tasks_cells_are_chosen_by_its_selections(caplog):
    cells = obs()
    cells["stage"] = np.where(np.arange(120) < 100, "early", "late")
    cells.loc["c0", "type"] = "rare"
    options = {
        "label": "type", "split_by": "donor", "folds": 3, "seed": 1, "validation_share": 0.1,
        "min_cells_per_class": 2, "min_units": 2, "where": "tasks.t",
    }  # fmt: skip
    early, late = {"stage": ["early"]}, {"stage": ["late"]}
    with caplog.at_level("INFO"):
        table, left_out = splits.split_task(cells, train=early, predict=late, **options)
    assert set(table.loc[table["fold"] == splits.PREDICTED, "cell"]) == set(cells.index[100:])
    assert set(table.loc[table["fold"] != splits.PREDICTED, "cell"]) == set(cells.index[1:100])
    assert left_out["class"].tolist() == ["rare"]
    assert "class 'rare' (1 cells) is left out: fewer than 2 cells" in caplog.text
    assert "by donor: 5 units, each in one of 3 folds" in caplog.text
    table, _ = splits.split_task(cells, train=early, predict=None, **options)
    assert splits.PREDICTED not in set(table["fold"])
    with pytest.raises(InputError, match="tasks.t.train: the cells have no column 'age'"):
        splits.split_task(cells, train={"age": ["1"]}, predict=None, **options)


def test_a_split_that_is_read_gives_the_cells_of_one_that_was_made(tmp_path):
    cells = donors(THREE_DONORS)
    queries = (cells["donor"] == "A").to_numpy()
    made, _ = splits.make_splits(cells, ~queries, queries, "type", "donor", 2, 1)
    write_table(tmp_path / "splits.tsv", made)
    found = splits.read_splits(tmp_path / "splits.tsv")
    assert found["label"].dtype == "category" and "NA" in set(found["label"])
    assert found["unit"].isin(["B", "C", ""]).all() and found["unit"].notna().all()
    for options in ({}, {"labels": 0.3, "seed": 5}, {"without": "T cell"}):
        parts = zip(
            splits.split_cells(made.astype(str), "0", **options),
            splits.split_cells(found, "0", **options),
            strict=True,
        )
        for expected, part in parts:
            assert part["cell"].tolist() == expected["cell"].tolist()
            assert part["label"].tolist() == expected["label"].tolist()
