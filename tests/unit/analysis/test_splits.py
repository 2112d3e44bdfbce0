"""Splits that do not leak: units whole, classes balanced, validation cells apart."""

import numpy as np
import pandas as pd
import pytest

from scdyn import splits
from scdyn.errors import InputError


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
    cells = obs()
    asked = np.arange(120) >= 100
    options = {"label": "type", "split_by": "donor", "n_folds": 3, "seed": 1} | changes
    return splits.make_splits(cells, ~asked, asked, **options)


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


def test_parts_share_no_cell():
    table = split().astype(str)
    learned, validation, called = splits.parts(table, "1")
    assert not set(learned["cell"]) & set(called["cell"])
    assert not set(validation["cell"]) & (set(called["cell"]) | set(learned["cell"]))
    assert set(learned["fold"]) | set(validation["fold"]) == {"0", "2"}
    assert 0.05 < len(validation) / (len(learned) + len(validation)) < 0.15


def test_a_share_of_the_labels_is_drawn_within_classes_and_by_the_seed():
    table = split(split_by=None).astype(str)
    whole = pd.concat(splits.parts(table, "0")[:2])
    few, validation, called = splits.parts(table, "0", labels=0.2, seed=1)
    drawn = pd.concat([few, validation])
    assert set(drawn["cell"]) < set(whole["cell"])
    expected = (whole["label"].value_counts() * 0.2).round()
    pd.testing.assert_series_equal(
        drawn["label"].value_counts().astype(float).sort_index(), expected.sort_index()
    )
    other = splits.parts(table, "0", labels=0.2, seed=2)[0]
    assert set(other["cell"]) != set(few["cell"])
    assert set(called["cell"]) == set(splits.parts(table, "0")[2]["cell"])


def test_a_class_left_out_is_neither_learned_nor_validated_but_called():
    learned, validation, called = splits.parts(split().astype(str), "0", without="x")
    assert set(learned["label"]) == set(validation["label"]) == {"y"}
    assert "x" in set(called["label"])


def test_predicted_cells_keep_their_own_label_and_are_never_validated_on():
    table = split()
    asked = table[table["fold"] == splits.PREDICTED]
    assert asked["label"].tolist() == obs()["type"].iloc[100:].tolist()
    assert not asked["validation"].any()


def test_a_split_of_cells_is_called_within_sample():
    assert splits.describe_split(split(split_by=None), None).startswith("within-sample: 3 folds")
    assert splits.describe_split(split(), "donor") == "by donor: 5 units, each in one of 3 folds"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label": "kind"}, "no column 'kind'"),
        ({"n_folds": 6}, "fewer than 6 folds"),
        ({"label": "donor", "split_by": None, "n_folds": 25}, "20 cells"),
    ],
)
def test_impossible_splits_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        split(**changes)


def test_cells_both_learned_and_predicted_are_refused():
    everyone = np.ones(120, dtype=bool)
    with pytest.raises(InputError, match="exclude each other"):
        splits.make_splits(obs(), everyone, everyone, "type", None, 2, 0)
