"""What docs/tutorial.md says is what the demo came to, as make docs-figures last found it."""

import json
import re
from pathlib import Path

import notebook
import pytest
import tutorial

ROOT = Path(__file__).parents[3]
FIGURES = ROOT / "docs/figures"
PAGE = (ROOT / "docs/tutorial.md").read_text()
NUMBERS = json.loads((FIGURES / "numbers.json").read_text())
SCORES = NUMBERS["scores"]


def test_tables_and_printed_output_are_those_that_were_found():
    outputs = json.loads((FIGURES / "outputs.json").read_text())
    assert tutorial.fill(PAGE, tutorial.blocks(NUMBERS)) == PAGE, "run make docs-figures"
    assert {code for code, _ in notebook.CELL.findall(PAGE)} == set(outputs)
    assert notebook.filled(PAGE, outputs) == PAGE, "run make docs-figures"
    assert all(f"<!-- {name} -->" in PAGE for name in tutorial.blocks(NUMBERS))


def test_no_number_of_a_result_is_typed_by_hand():
    words = re.sub(r"<!-- (\w+) -->.*?<!-- end -->|```.*?```|`.*?`", "", PAGE, flags=re.S)
    settings = {"0.05", "0.8", "3.5"}  # of what passes, an example, and a key to change
    assert set(re.findall(r"\d+[.,]\d+", words)) <= settings


def ranking(score, among=tutorial.METHODS):
    """Methods by falling score, by what their scores begin with."""
    found = {name: SCORES.get(score.format(name)) for name in among}
    return sorted((name for name in found if found[name] is not None), key=lambda n: -found[n])


def composition(name):
    (row,) = (
        r for r in NUMBERS["composition"] if (r["method"], r["class"]) == ("scdynomics", name)
    )
    return row["change"]


SAYINGS = {
    "Nearest neighbours predict the fates better": lambda: (
        SCORES["fate.knn_macro_f1"] > SCORES["fate.macro_f1"]
    ),
    "all methods predict fates better than chance": lambda: (
        ranking("fate.{}macro_f1")[-1] == "majority_" and SCORES["fate.macro_f1"] > 0.5
    ),
    "nearly all ectopic cells are found, by every method but the commonest class": lambda: (
        all(SCORES[f"knockout.{n}ectopic_share"] > 0.9 for n in ["", "lr_", "knn_", "xgboost_"])
        and SCORES["knockout.majority_ectopic_share"] == 0
    ),
    "Wilcoxon's test finds every driver here": lambda: SCORES["drivers.wilcoxon_recall20"] == 1,
    "the drivers are found above chance": lambda: (
        SCORES["drivers.recall20"] > 2 * SCORES["drivers.chance20"]
    ),
    "Many of the regulons' edges are wrong even here, and most true ones are missing": lambda: (
        SCORES["grn.regulon_precision"] < 0.75 and SCORES["grn.regulon_recall"] < 0.5
    ),
    "edges are found far above chance": lambda: (
        SCORES["grn.auprc"] > 5 * SCORES["grn.auprc_chance"]
    ),
    "PCA keeps more of the cell types, and every embedding holds depth": lambda: (
        SCORES["embed.hybrid.cell_type.pca_neighbour_accuracy"]
        > SCORES["embed.hybrid.cell_type.neighbour_accuracy"]
        and min(v for k, v in SCORES.items() if k.endswith("library_size_r2")) > 0.8
    ),
    "Silencing `Som1` changes next to nothing, the knockout changed the embryo": lambda: (
        abs(float(NUMBERS["measured"][1]["shift_somite"])) < 0.02
        and abs(float(NUMBERS["measured"][0]["shift_somite"])) > 0.2
    ),
    "agreement of two runs. It is low": lambda: min(NUMBERS["stability"]["seeds"].values()) < 0.6,
    "In the knockout, cells where somites should be are predicted as neural tube": lambda: (
        composition("somite") == "vanished" and composition("neural_tube") == "more"
    ),
    "Logistic regression's predictions are ordered, too": lambda: all(
        float(row["morans_i"]) > float(row["null_high"]) for row in NUMBERS["coherence"]
    ),
}


@pytest.mark.parametrize("saying", SAYINGS)
def test_what_the_words_say_holds(saying):
    assert saying in " ".join(PAGE.split())
    assert SAYINGS[saying]()


def test_figures_are_there_and_small():
    named = re.findall(r"!\[.+?\]\(figures/(\w+\.png)\)", PAGE)
    sizes = {path.name: path.stat().st_size for path in FIGURES.glob("*.png")}
    assert set(named) == set(sizes)
    assert max(sizes.values()) < 150_000 and sum(sizes.values()) < 1_500_000
