"""What is held against the truth, and how it is shown."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scdyn.plotting import scores as scores_page
from scdyn.tasks import scores

ROOT = Path(__file__).parents[3]


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
    page = scores_page.score_page({"<b>x</b>.accuracy": 0.5, "<b>x</b>.lr_accuracy": 0.4})
    assert "<b>x</b>" not in page and "&lt;b&gt;" in page


def test_runs_of_other_seeds_and_of_fewer_cells_are_scored_apart():
    rows = [("1", "2", 0.6), ("1", "left_out", 0.9), ("2", "left_out", 0.5)]
    table = pd.DataFrame(rows, columns=["run_a", "run_b", "jaccard"]).assign(what="strongest edges")
    found = scores.stability_scores("grn", table)
    assert found == {"grn.seed_jaccard": 0.6, "grn.left_out_jaccard": 0.9}
    assert scores.stability_scores("grn", table.iloc[:0]) == {}


def runs_and_calls():
    calls = pd.DataFrame({"cell": ["a", "b", "c", "d"], "method": "scdynomics", "part": "predict"})
    runs = [
        calls.assign(seed=s, fold="0", called=c) for s, c in ((1, list("xyxy")), (2, list("xyyy")))
    ]
    return pd.concat(runs), calls.assign(called=list("xyxy"))


def test_fates_are_scored_by_run_and_combined():
    runs, calls = runs_and_calls()
    fates = pd.Series(list("xyxy"), index=list("abcd"))
    found = scores.fate_scores("fate", runs, calls, fates)
    assert found["fate.combined_macro_f1"] == 1
    second = (2 / 3 + 4 / 5) / 2
    assert found["fate.macro_f1"] == pytest.approx((1 + second) / 2)
    assert found["fate.macro_f1_low"] < found["fate.macro_f1"] < found["fate.macro_f1_high"]


def test_ectopic_cells_are_counted_over_all_runs():
    runs, _ = runs_and_calls()
    found = scores.ectopic_shares("ko", runs, pd.Index(["c", "d"]), "y")
    assert found == {"ko.ectopic_share": 0.75, "ko.n_ectopic": 2}


def test_bounds_stand_beside_their_score_and_variants_in_columns_of_their_own():
    flat = {"t.macro_f1": 0.5, "t.macro_f1_low": 0.41, "t.macro_f1_high": 0.59}
    page = scores_page.score_page(flat | {"t.rna_macro_f1": 0.25}, {"t": ["scdynomics_rna"]})
    assert "0.410-0.590" in page and "macro_f1_low" not in page
    assert "scDynOmics, rna" in page and "0.25" in page


def test_a_variants_name_begins_no_score_of_another_part():
    flat = {"t.held_out.rna_ece": 0.25, "pretrain.rna_masked_loss": 1.5, "u.rna_ece": 0.5}
    page = scores_page.score_page(flat, {"t": ["scdynomics_rna"]})
    own, pretraining, other = page.split("<h2>")[1:]
    assert "scDynOmics, rna" in own
    assert "scDynOmics, rna" not in pretraining + other
    assert ">rna_masked_loss<" in pretraining


def test_every_score_of_the_demo_says_what_it_means():
    numbers = json.loads((ROOT / "docs/figures/numbers.json").read_text())
    variants = {"fate": ["scdynomics_rna", "scdynomics_promoter", "scdynomics_random_start"]}
    for key in numbers["scores"]:
        part, name = key.rsplit(".", 1)
        _, measure = scores_page.split_method(name, scores_page.columns_of(part, variants))
        assert measure.removesuffix("_low").removesuffix("_high") in scores_page.MEANINGS, key
