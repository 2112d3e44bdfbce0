"""Results compared with the truth of the simulation, on tables worked out by hand."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scdyn.data.corpus import Corpus
from scdyn.tasks import truth


def test_edge_recovery_on_a_network_worked_out_by_hand():
    genes = pd.DataFrame({"symbol": ["A", "B", "C", "D"], "is_tf": [True, True, False, False]})
    edges = pd.DataFrame({"tf": ["A", "B"], "target": ["C", "D"]})
    found = pd.DataFrame(
        {"tf": ["A", "A", "B"], "target": ["C", "B", "D"], "importance": [3.0, 2.0, 1.0]}
    )
    result = truth.score_edges(found, found[["tf", "target"]], edges, genes)
    assert result["grn.auprc_chance"] == pytest.approx(2 / 6)  # 2 TFs x 3 other genes
    assert result["grn.auprc"] == pytest.approx((1 + 2 / 3) / 2)
    assert result["grn.regulon_precision"] == pytest.approx(2 / 3)


def test_driver_recall_counts_the_best_twenty():
    genes = [f"g{i}" for i in range(40)]
    ranking = pd.DataFrame(
        {"class": "fate", "symbol": genes, "is_tf": [i % 2 == 0 for i in range(40)]}
    ).assign(score=np.arange(40, 0, -1))
    drivers = pd.DataFrame({"symbol": ["g0", "g30"], "fate": "fate"})
    result = truth.score_drivers({"": ranking}, drivers)
    assert result["drivers.recall20"] == 0.5
    assert result["drivers.tf_recall20"] == 1.0
    assert result["drivers.chance20"] == 0.5


def runs_and_predictions():
    predictions = pd.DataFrame(
        {"cell": ["a", "b", "c", "d"], "method": "scdynomics", "part": "predict"}
    )
    runs = [
        predictions.assign(seed=s, fold="0", predicted=c)
        for s, c in ((1, list("xyxy")), (2, list("xyyy")))
    ]
    return pd.concat(runs), predictions.assign(predicted=list("xyxy"))


def test_fates_are_scored_by_run_and_combined():
    runs, predictions = runs_and_predictions()
    fates = pd.Series(list("xyxy"), index=list("abcd"))
    found = truth.score_fates("fate", runs, predictions, fates)
    assert found["fate.combined_macro_f1"] == 1
    second = (2 / 3 + 4 / 5) / 2
    assert found["fate.macro_f1"] == pytest.approx((1 + second) / 2)
    assert "fate.macro_f1_low" not in found  # of a single fold
    other = runs.assign(fold=runs["seed"].astype(str), seed=1)
    of_two = truth.score_fates("fate", other, predictions, fates)
    assert of_two["fate.macro_f1"] == found["fate.macro_f1"]
    assert of_two["fate.macro_f1_low"] < of_two["fate.macro_f1"] < of_two["fate.macro_f1_high"]


def test_ectopic_cells_are_counted_over_all_runs():
    runs, _ = runs_and_predictions()
    found = truth.score_ectopic("ko", runs, pd.Index(["c", "d"]), "y")
    assert found == {"ko.ectopic_share": 0.75, "ko.n_ectopic": 2}


def write_two_samples(folder):
    """Four cells each of W and K; gene A is highest in the first two of each."""
    var = pd.DataFrame(
        {"symbol": ["A", "B", "C"], "is_tf": [True, True, False], "length": 1000, "n_tss": 1},
        index=["g1", "g2", "g3"],
    )
    counts = np.array([[9, 1, 5], [8, 2, 5], [1, 9, 5], [2, 8, 5]], dtype=np.int32)
    samples = []
    for name in "WK":
        obs = pd.DataFrame({"sample": name, "barcode": list("1234"), "promoter_source": "none"})
        obs.index = [f"{name}_{barcode}" for barcode in "1234"]
        cells = ad.AnnData(sparse.csr_matrix(counts), obs=obs, var=var)
        cells.layers["promoter"] = sparse.csr_matrix(counts.shape, dtype=np.int32)
        samples.append(cells)
    return Corpus.write(folder, samples)


def test_each_task_is_compared_with_the_truth_that_it_asks_about(tmp_path):
    corpus = write_two_samples(tmp_path)
    rows = [
        ("W", "1", 0, "progenitor", "x", "x"),
        ("W", "2", 0, "progenitor", "y", "y"),
        ("K", "1", 0, "y", "y", "x"),  # the knockout turned it from x to y
        ("K", "2", 1, "y", "y", "x"),  # a doublet
    ]
    columns = ["sample", "barcode", "is_doublet", "state", "fate", "intended_fate"]
    tables = {
        "edges": pd.DataFrame({"tf": ["A"], "target": ["C"]}),
        "drivers": pd.DataFrame({"symbol": ["A"], "fate": ["x"]}),
        "cells": pd.DataFrame(rows, columns=columns),
    }
    adjacencies = pd.DataFrame({"tf": ["A", "B"], "target": ["C", "C"], "importance": [2.0, 1.0]})

    def predicted(*rows):
        return pd.DataFrame(rows, columns=["cell", "predicted"]).assign(
            method="scdynomics", seed=1, fold="0", part="predict"
        )

    of_task = {
        "fate": predicted(("W_1", "x"), ("W_2", "x")),
        "knockout": predicted(("K_1", "y"), ("K_2", "x")),
    }
    tested = pd.DataFrame({"cell": corpus.obs.index[:4], "label": list("xxyy"), "part": "test"})
    of_task["fate"] = pd.concat([of_task["fate"], tested.assign(method="scdynomics")])
    attributions = pd.DataFrame(
        {"class": "x", "symbol": ["A", "B", "C"], "is_tf": [True, True, False], "modality": "both"}
    ).assign(gene_id=["g1", "g2", "g3"], specificity=[1.0, 2.0, 0.0])
    weights = pd.DataFrame({"class": "x", "gene_id": ["g1", "g2", "g3"], "rna": [0.0, 1, 2]})
    found = truth.score_truth(
        tables,
        adjacencies,
        adjacencies.iloc[:1],
        corpus,
        of_task,
        of_task,
        {"fate": attributions},
        {"fate": [weights.assign(promoter=0.0)]},
        seed=1,
    )
    # Of 4 pairs of a TF and another gene one is true, and it is the strongest.
    assert found["grn.auprc"] == 1 and found["grn.auprc_chance"] == 0.25
    assert found["grn.regulon_precision"] == found["grn.regulon_recall"] == 1
    assert found["fate.accuracy"] == 0.5 and found["fate.n_cells"] == 2
    assert found["knockout.ectopic_share"] == 1 and found["knockout.n_ectopic"] == 1
    # A drives x, as the test over cells finds; weights prefer B, and attribution would, too, were
    # B not lower in x.
    assert found["drivers.wilcoxon_tf_auroc"] == found["drivers.tf_auroc"] == 1
    assert found["drivers.lr_tf_auroc"] == 0
    assert "barcode" in tables["cells"] and list(tables["cells"].index) == [0, 1, 2, 3]
