"""Splits that do not leak, scores, and what is held against the truth."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scdyn import evaluation, scores
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
    return evaluation.make_splits(cells, ~asked, asked, **options)


def test_a_donor_is_in_one_fold_and_every_cell_is_tested_once():
    table = split()
    tested = table[table["fold"] != evaluation.PREDICTED]
    assert (tested.groupby("unit")["fold"].nunique() == 1).all()
    assert tested["cell"].is_unique and len(tested) == 100
    assert sorted(tested["fold"].unique()) == [0, 1, 2]
    assert (table["fold"] == evaluation.PREDICTED).sum() == 20


def test_splits_follow_the_seed():
    pd.testing.assert_frame_equal(split(), split())
    assert not split(split_by=None).equals(split(split_by=None, seed=2))


def test_parts_share_no_cell():
    table = split().astype(str)
    learned, called = evaluation.parts(table, "1")
    assert not set(learned["cell"]) & set(called["cell"])
    assert set(learned["fold"]) == {"0", "2"}


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
        evaluation.make_splits(obs(), everyone, everyone, "type", None, 2, 0)


def test_scores_as_worked_out_by_hand():
    result = evaluation.score(np.array(list("aaab")), np.array(list("aacb")))
    assert result["accuracy"] == 0.75
    assert result["macro_f1"] == pytest.approx(
        (0.8 + 1.0) / 2
    )  # the class called in vain has no row


def test_folds_are_combined_by_mean_probability():
    called = pd.DataFrame({"cell": ["t", "q"], "label": ["a", ""], "fold": ["0", "predict"]})
    first = evaluation.predictions(called, "0", "m", ["a", "b"], np.array([[0.9, 0.1], [0.4, 0.6]]))
    called = pd.DataFrame({"cell": ["u", "q"], "label": ["b", ""], "fold": ["1", "predict"]})
    second = evaluation.predictions(
        called, "1", "m", ["a", "b"], np.array([[0.7, 0.3], [0.8, 0.2]])
    )
    table = evaluation.combine([first, second]).set_index("cell")
    assert table.loc["q", "p_a"] == pytest.approx(0.6)
    assert table["called"].to_dict() == {"t": "a", "u": "a", "q": "a"}
    assert evaluation.summarise(table.reset_index())["m"]["accuracy"] == 0.5


def test_neighbours_vote():
    values = np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
    assert evaluation.neighbour_accuracy(values, np.array(list("aaabbb")), 2) == 1.0
    assert evaluation.neighbour_accuracy(values, np.array(list("aabbbb")), 2) == pytest.approx(
        5 / 6
    )


def test_logistic_regression_finds_what_is_there():
    rng = np.random.default_rng(0)
    labels = np.repeat(["x", "y"], 100)
    values = rng.random((200, 5)) + 3 * (labels == "y")[:, None] * [1, 0, 0, 0, 0]
    classes, p, weights = evaluation.logistic_regression(
        sparse.csr_matrix(values), labels, sparse.csr_matrix(values)
    )
    assert (classes[p.argmax(1)] == labels).mean() > 0.98
    assert weights.shape == (2, 5)
    assert weights[1].argmax() == 0
    np.testing.assert_allclose(weights[0], -weights[1])


def test_edge_recovery_on_a_network_worked_out_by_hand():
    genes = pd.DataFrame({"symbol": ["A", "B", "C", "D"], "is_tf": [True, True, False, False]})
    edges = pd.DataFrame({"tf": ["A", "B"], "target": ["C", "D"]})
    found = pd.DataFrame(
        {"tf": ["A", "A", "B"], "target": ["C", "B", "D"], "importance": [3.0, 2.0, 1.0]}
    )
    result = scores.edge_recovery(found, found[["tf", "target"]], edges, genes)
    assert result["grn.auprc_chance"] == pytest.approx(2 / 6)  # 2 TFs x 3 other genes
    assert result["grn.auprc"] == pytest.approx((1 + 2 / 3) / 2)
    assert result["grn.regulon_precision"] == pytest.approx(2 / 3)


def test_driver_recall_counts_the_best_twenty():
    genes = [f"g{i}" for i in range(40)]
    ranking = pd.DataFrame(
        {"class": "fate", "symbol": genes, "is_tf": [i % 2 == 0 for i in range(40)]}
    ).assign(score=np.arange(40, 0, -1))
    drivers = pd.DataFrame({"symbol": ["g0", "g30"], "fate": "fate"})
    result = scores.driver_ranks({"": ranking}, drivers)
    assert result["drivers.recall20"] == 0.5
    assert result["drivers.tf_recall20"] == 1.0
    assert result["drivers.chance20"] == 0.5


def test_scores_page_escapes_what_it_shows():
    page = scores.score_page({"<b>x</b>.accuracy": 0.5, "<b>x</b>.lr_accuracy": 0.4})
    assert "<b>x</b>" not in page and "&lt;b&gt;" in page


def test_runs_of_other_seeds_and_of_fewer_cells_are_scored_apart():
    rows = [("1", "2", 0.6), ("1", "left_out", 0.9), ("2", "left_out", 0.5)]
    table = pd.DataFrame(rows, columns=["run_a", "run_b", "jaccard"]).assign(what="strongest edges")
    found = scores.stability_scores("grn", table)
    assert found == {"grn.seed_jaccard": 0.6, "grn.left_out_jaccard": 0.9}
    assert scores.stability_scores("grn", table.iloc[:0]) == {}
