"""The scores of all parts gathered, and how they are shown."""

import json
from pathlib import Path

import pandas as pd

from scdyn.plotting import scores as scores_page
from scdyn.tasks import scores

ROOT = Path(__file__).parents[3]


def test_scores_page_escapes_what_it_shows():
    page = scores_page.render_scores({"<b>x</b>.accuracy": 0.5, "<b>x</b>.lr_accuracy": 0.4})
    assert "<b>x</b>" not in page and "&lt;b&gt;" in page


def test_runs_of_other_seeds_and_of_fewer_cells_are_scored_apart():
    rows = [("1", "2", 0.6), ("1", "left_out", 0.9), ("2", "left_out", 0.5)]
    table = pd.DataFrame(rows, columns=["run_a", "run_b", "jaccard"]).assign(what="strongest edges")
    found = scores.stability_scores("grn", table)
    assert found == {"grn.seed_jaccard": 0.6, "grn.left_out_jaccard": 0.9}
    assert scores.stability_scores("grn", table.iloc[:0]) == {}


TABLE = pd.DataFrame({"what": "strongest edges", "run_a": ["1"], "run_b": ["2"], "jaccard": [0.5]})
CHECKS = {"randomised_correlation": {"head": -0.25, "all": 0.75}, "completeness": {"median": 0.01}}
PARTS = {
    "test": {"scdynomics": {"macro_f1": 0.75}, "scdynomics_rna": {"macro_f1": 0.5, "nll": 1.0}},
    "predict": {"scdynomics_promoter": {"accuracy": 0.25}, "majority": {"accuracy": 0.125}},
    "split": "by donor: 4 units",
    "n_predicted": 3,
}


def collect(corpora, models):
    return scores.collect_scores(
        stability=dict.fromkeys(corpora, TABLE),
        pretraining={model: {"masked_loss": 1.5} for model in models},
        embeddings={model: {"library_size_r2": 0.25} for model in models},
        metrics={
            "fate": PARTS,
            "type": {"test": {"logistic_regression": {"ece": 0.5}}, "n_predicted": 0},
        },
        explanations={"fate": CHECKS},
    )


def test_scores_of_all_parts_are_named_by_their_part():
    assert collect(["embryo"], ["small"]) == {
        "grn.seed_jaccard": 0.5,
        "pretrain.masked_loss": 1.5,
        "embed.small.library_size_r2": 0.25,
        "fate.held_out.macro_f1": 0.75,
        "fate.held_out.rna_macro_f1": 0.5,
        "fate.predicted.promoter_accuracy": 0.25,
        "fate.predicted.majority_accuracy": 0.125,
        "type.lr_ece": 0.5,
        "explain.fate.completeness": 0.01,
        "explain.fate.randomised_correlation": 0.5,
    }


def test_several_corpora_and_models_are_told_apart():
    found = collect(["embryo", "adult"], ["small", "large"])
    assert {name for name in found if name.startswith(("grn", "pretrain"))} == {
        "grn.embryo.seed_jaccard", "grn.adult.seed_jaccard",
        "pretrain.small.masked_loss", "pretrain.large.masked_loss",
    }  # fmt: skip


def test_variants_of_a_task_are_those_of_either_part():
    metrics = {"fate": PARTS, "type": {"test": {"scdynomics": {}, "majority": {}}}}
    assert scores.model_variants(metrics) == {
        "fate": ["scdynomics_promoter", "scdynomics_rna"], "type": []
    }  # fmt: skip


def test_an_ensemble_has_a_column_of_its_own():
    methods = ["scdynomics", "scdynomics_ensemble", "mlp", "mlp_ensemble"]
    parts = {"test": {m: {"macro_f1": i / 8} for i, m in enumerate(methods)}, "n_predicted": 0}
    columns = scores.model_variants({"t": parts})
    assert columns == {"t": ["mlp_ensemble", "scdynomics_ensemble"]}
    flat = scores.task_scores("t", parts["test"])
    assert flat == {
        "t.macro_f1": 0, "t.ensemble_macro_f1": 0.125, "t.mlp_macro_f1": 0.25,
        "t.mlp_ensemble_macro_f1": 0.375,
    }  # fmt: skip
    page = scores_page.render_scores(flat, columns)
    assert "scDynOmics, ensemble" in page and "MLP, ensemble" in page
    assert "ensemble_macro_f1" not in page


def test_bounds_stand_beside_their_score_and_variants_in_columns_of_their_own():
    flat = {"t.macro_f1": 0.5, "t.macro_f1_low": 0.41, "t.macro_f1_high": 0.59}
    page = scores_page.render_scores(flat | {"t.rna_macro_f1": 0.25}, {"t": ["scdynomics_rna"]})
    assert "0.410-0.590" in page and "macro_f1_low" not in page
    assert "scDynOmics, rna" in page and "0.25" in page


def test_a_variants_name_begins_no_score_of_another_part():
    flat = {"t.held_out.rna_ece": 0.25, "pretrain.rna_masked_loss": 1.5, "u.rna_ece": 0.5}
    page = scores_page.render_scores(flat, {"t": ["scdynomics_rna"]})
    own, pretraining, other = page.split("<h2>")[1:]
    assert "scDynOmics, rna" in own
    assert "scDynOmics, rna" not in pretraining + other
    assert ">rna_masked_loss<" in pretraining


def test_every_score_of_the_demo_says_what_it_means():
    numbers = json.loads((ROOT / "docs/figures/numbers.json").read_text())
    names = [f"scdynomics{variant}" for variant in ("", "_rna", "_promoter", "_random_start")]
    ensembles = [f"{name}_ensemble" for name in (*names, "mlp")]
    variants = {"fate": names[1:] + ensembles, "knockout": ensembles}
    for key in numbers["scores"]:
        part, name = key.rsplit(".", 1)
        _, measure = scores_page.split_method(name, scores_page.list_columns(part, variants))
        assert measure.removesuffix("_low").removesuffix("_high") in scores_page.MEANINGS, key
