"""Changes of composition and of genes, on small data with a known answer."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from small_corpus import make_genes

from scdyn.data.corpus import Corpus
from scdyn.data.pca import open_pca
from scdyn.errors import InputError
from scdyn.pp import wilcoxon
from scdyn.studies import genes as studies_genes
from scdyn.studies import perturbation

SELECTIONS = {"control": {"genotype": ["wt"]}, "perturbed": {"genotype": ["ko"]}}


def counts(control, perturbed, classes=("lost", "same", "new")):
    rows = {("control", f"c{i}"): row for i, row in enumerate(control)}
    rows |= {("perturbed", f"p{i}"): row for i, row in enumerate(perturbed)}
    index = pd.MultiIndex.from_tuples(rows, names=["group", "sample"])
    return pd.DataFrame(list(rows.values()), index, pd.Index(classes, name="class"))


def test_what_vanishes_and_appears_is_named_over_cells():
    table = perturbation.compare_composition(counts([[300, 700, 0]], [[0, 690, 310]]), 1)
    assert table["class"].tolist() == ["lost", "same", "new"]
    assert table["change"].tolist() == ["vanished", "", "appeared"]
    assert set(table["interval"]) == {"cells"}
    rows = table.set_index("class")
    assert rows.loc["same", "log2_ratio"] == pytest.approx(np.log2(690.5 / 700.5))
    # Of none in a thousand, up to three in a thousand are possible.
    assert rows.loc["lost", "low_perturbed"] == 0
    assert rows.loc["lost", "high_perturbed"] == pytest.approx(0.0025, rel=0.1)
    assert rows.loc["lost", "share_control"] == 0.3
    assert rows.loc["lost", "low_control"] == pytest.approx(0.3 - 1.96 * 0.0145, abs=0.002)


def test_intervals_over_cells_hold_the_true_ratio_about_95_times_in_100():
    rng = np.random.default_rng(0)
    control, perturbed = [0.3, 0.5, 0.2], [0.15, 0.5, 0.35]
    truth = np.log2(np.array(perturbed) / control)
    held = []
    for seed in range(150):
        drawn = counts([rng.multinomial(500, control)], [rng.multinomial(400, perturbed)])
        found = perturbation.change_over_cells(drawn, seed, 1000)
        held.append((found["low"] < truth) & (truth < found["high"]))
    assert 0.91 < np.mean(held) < 0.985


def test_intervals_over_samples_hold_the_true_ratio_where_samples_differ():
    rng = np.random.default_rng(0)
    spread = 0.3  # of a sample's share, natural log
    held, over_cells = [], []
    for seed in range(150):
        shares = np.array([0.2] * 6) * np.exp(rng.normal(0, spread, 6))
        drawn = [[int(x), 1000 - int(x)] for x in rng.binomial(1000, shares)]
        table = counts(drawn[:3], drawn[3:], ("x", "rest"))
        for result, found in (
            (held, perturbation.change_over_samples(table)),
            (over_cells, perturbation.change_over_cells(table, seed, 500)),
        ):
            result.append(found.loc["x", "low"] < 0 < found.loc["x", "high"])
    assert np.mean(held) > 0.91
    # Cells are no replicates: their intervals are far too narrow.
    assert np.mean(over_cells) < 0.7


def test_a_t_interval_over_samples_is_the_textbooks():
    table = counts([[100, 900], [200, 800]], [[400, 600], [800, 200]], ("x", "rest"))
    row = perturbation.change_over_samples(table).loc["x"]
    logs = np.log2((np.array([100, 200, 400, 800]) + 0.5) / 1001)
    difference = logs[2:].mean() - logs[:2].mean()
    pooled = (logs[:2].var(ddof=1) + logs[2:].var(ddof=1)) / 2
    error = 4.302653 * np.sqrt(pooled * (1 / 2 + 1 / 2))  # t of 2 degrees of freedom
    assert row["log2_ratio"] == pytest.approx(difference)
    assert row["high"] - row["log2_ratio"] == pytest.approx(error, rel=1e-5)


def test_samples_that_agree_by_chance_claim_nothing():
    table = counts([[1, 999], [1, 999]], [[0, 1000], [0, 1000]], ("rare", "rest"))
    result = perturbation.compare_composition(table, 1)
    assert set(result["interval"]) == {"samples"} and set(result["change"]) == {""}


def make_predictions(names, predicted):
    return pd.DataFrame({"predicted": predicted}, index=names)


def test_groups_are_of_predicted_cells_and_exclude_each_other():
    obs = pd.DataFrame(
        {"sample": ["a", "a", "b", "b"], "genotype": ["wt", "wt", "ko", "ko"]},
        index=["c0", "c1", "c2", "c3"],
    )
    predictions = make_predictions(["c0", "c2", "c3"], ["x", "x", "y"])
    table = perturbation.select_groups(obs, predictions, **SELECTIONS)
    assert table["group"].to_dict() == {"c0": "control", "c2": "perturbed", "c3": "perturbed"}
    with pytest.raises(InputError, match="no predictions for perturbed cells"):
        perturbation.select_groups(obs, predictions.loc[["c0"]], **SELECTIONS)
    both = {"control": {}, "perturbed": {"genotype": ["ko"]}}
    with pytest.raises(InputError, match="2 cells are both control and perturbed"):
        perturbation.select_groups(obs, predictions, **both)
    pooled = perturbation.select_groups(
        obs.assign(embryo="e1"), predictions, replicate="embryo", **SELECTIONS
    )
    assert set(pooled["sample"]) == {"e1"}
    with pytest.raises(InputError, match="no column 'embryo'"):
        perturbation.select_groups(obs, predictions, replicate="embryo", **SELECTIONS)


def test_tables_are_by_method_and_by_sample():
    names = [f"c{i}" for i in range(8)]
    obs = pd.DataFrame({"sample": list("aabbccdd"), "genotype": ["wt"] * 4 + ["ko"] * 4}, names)
    groups = {
        method: perturbation.select_groups(obs, make_predictions(names, predicted), **SELECTIONS)
        for method, predicted in (("scdynomics", list("xyxyxyxx")), ("logistic_regression", "x"))
    }
    change, by_sample = perturbation.perturbation_tables(groups, list("xyz"), 1)
    rows = change.set_index(["method", "class"])
    assert rows.loc[("scdynomics", "x"), ["cells_control", "cells_perturbed"]].tolist() == [2, 3]
    assert rows.loc[("logistic_regression", "y"), "cells_perturbed"] == 0
    assert rows.loc[("scdynomics", "z"), "share_control"] == 0  # never predicted, but in the table
    shares = by_sample.set_index(["method", "sample", "class"])["share"]
    assert shares["scdynomics", "d", "x"] == 1 and shares["scdynomics", "a", "x"] == 0.5


def simulate(folder, n_samples, changed=(0, 1, 2), n_cells=40, n_genes=60, seed=0):
    """A corpus of two genotypes, its table of cells and their groups.

    The changed genes are eightfold in the knockout.
    """
    rng = np.random.default_rng(seed)
    base = rng.gamma(5, 1, n_genes)
    rows, obs = [], []
    for genotype in ("wt", "ko"):
        for sample in range(n_samples):
            level = base * np.exp(rng.normal(0, 0.1, n_genes))
            if genotype == "ko":
                level[list(changed)] *= 8
            rows.append(rng.poisson(level, (n_cells, n_genes)))
            obs += [{"sample": f"{genotype}{sample}", "genotype": genotype}] * n_cells
    obs = pd.DataFrame(obs, [f"c{i}" for i in range(len(obs))])
    cells = ad.AnnData(
        sparse.csr_matrix(np.concatenate(rows).astype(np.int32)),
        obs=obs[["sample"]].assign(barcode=obs.index, promoter_source="none"),
        var=make_genes(n_genes).assign(length=1000).set_index("gene_id"),
    )
    cells.layers["promoter"] = sparse.csr_matrix(cells.shape, dtype=np.int32)
    predictions = make_predictions(obs.index, ["x"] * len(obs))
    groups = perturbation.select_groups(obs, predictions, **SELECTIONS)
    samples = [cells[cells.obs["sample"] == name].copy() for name in obs["sample"].unique()]
    return Corpus.write(folder, samples), obs, groups


def test_pseudobulks_are_sums_of_samples_with_enough_cells(tmp_path):
    corpus, _, predicted = simulate(tmp_path, 2)
    predicted = predicted.drop(
        predicted.index[predicted["sample"] == "wt1"][:35]
    )  # five cells are left
    predicted = predicted.sample(frac=1, random_state=0)  # in any order
    sums, group = studies_genes.sum_pseudobulk(corpus, predicted)
    assert sorted(sums.index) == ["control wt0", "perturbed ko0", "perturbed ko1"]
    for name, part in predicted.groupby("sample"):
        if name != "wt1":
            counts = corpus.to_memory(corpus.find_rows(part.index), ["rna"]).X
            row = sums.loc[f"{part['group'].iloc[0]} {name}"]
            np.testing.assert_array_equal(row, np.asarray(counts.sum(0, dtype=int)).ravel())
    assert group.to_dict() == {name: name.split()[0] for name in sums.index}
    assert sums.to_numpy().dtype.kind == "i"


@pytest.mark.parametrize(
    ("n_samples", "test", "replicates"),
    [(3, studies_genes.PSEUDOBULK, 3), (1, studies_genes.OVER_CELLS, 0)],
)
def test_changed_genes_are_found(n_samples, test, replicates, tmp_path):
    corpus, _, predicted = simulate(tmp_path, n_samples)
    found, facts = studies_genes.compare_genes(corpus, predicted, "x", "x", 1)
    assert facts["test"] == test and facts["samples_control"] == replicates
    assert facts["n_perturbed"] == 40 * n_samples
    changed = found.loc[["g00", "g01", "g02"]]
    assert (changed["adjusted"] < 1e-3).all()
    assert changed["log2_fold_change"].to_numpy() == pytest.approx(3, abs=0.7)
    if replicates:  # over cells, a sample's own deviation passes for a change
        assert (found.drop(index=changed.index)["adjusted"] > 0.05).mean() > 0.9


def test_over_cells_as_many_of_each_group_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(wilcoxon, "MAX_PER_GROUP", 25)
    corpus, _, predicted = simulate(tmp_path, 1)
    predicted = predicted.drop(predicted.index[predicted["group"] == "control"][:30])
    found, facts = studies_genes.compare_genes(corpus, predicted, "x", "x", 1)
    assert facts["n_control"] == 10 and facts["n_perturbed"] == 25
    assert found["p_value"].nsmallest(3).index.isin(["g00", "g01", "g02"]).all()


def test_the_gaining_class_is_held_against_the_class_that_lost():
    change = perturbation.compare_composition(counts([[300, 600, 100]], [[0, 580, 420]]), 1)
    pairs = studies_genes.choose_comparisons(change)
    assert pairs[0] == ("new", "lost")
    assert set(pairs[1:]) == {("new", "new"), ("same", "same")}  # of "lost" none are left
    nothing = perturbation.compare_composition(counts([[300, 600, 5]], [[290, 610, 5]]), 1)
    assert set(studies_genes.choose_comparisons(nothing)) == {("lost", "lost"), ("same", "same")}


def test_drivers_stand_in_the_table_whatever_their_p_value(monkeypatch, tmp_path):
    monkeypatch.setattr(studies_genes, "GENES_PER_COMPARISON", 3)
    corpus, _, predicted = simulate(tmp_path, 1)
    drivers = pd.DataFrame({"gene_id": ["g07", "g08"], "class": ["x", "y"], "specificity": 0.5})
    table = studies_genes.gene_table(corpus, predicted, [("x", "x")], drivers, 1)
    assert {"g00", "g01", "g02", "g07"} == set(table["gene_id"])
    rows = table.set_index("symbol")
    assert rows.loc["G07", "specificity"] == 0.5 and np.isnan(rows.loc["G00", "specificity"])
    assert studies_genes.gene_table(corpus, predicted, [], None, 1).empty


def test_groups_are_drawn_on_sections_where_both_have_positions():
    group = pd.Series(["control", "control", "perturbed"])
    obs = pd.DataFrame({"sample": ["a", "a", "b"]})
    assert not perturbation.are_on_sections(obs, group)
    assert perturbation.are_on_sections(obs.assign(x=1.0, y=[np.nan, 1.0, 1.0]), group)
    assert not perturbation.are_on_sections(obs.assign(x=[1.0, 1.0, np.nan], y=1.0), group)


def test_pseudobulks_of_few_counts_are_tested_too():
    """Every gene has a sample without a count, so that no gene gives size factors."""
    rng = np.random.default_rng(0)
    sums = pd.DataFrame(rng.poisson(4, (4, 40)), [f"r{i}" for i in range(4)]).add_prefix("g")
    for gene in range(40):
        sums.iloc[gene % 4, gene] = 0
    group = pd.Series(["control", "control", "perturbed", "perturbed"], sums.index)
    found = studies_genes.run_deseq(sums, group)
    assert np.isfinite(found["log2_fold_change"]).all() and (found["adjusted"] > 0.01).mean() > 0.9


def study_of(corpus, obs):
    """A study of the simulated cells, all of which both methods call x but for the first."""
    predicted = ["y", *["x"] * (len(obs) - 1)]
    predictions = pd.concat(
        pd.DataFrame(
            {"cell": obs.index, "method": method, "part": "test", "predicted": predicted}
        ).assign(p_x=0.75, p_y=0.25)
        for method in ("scdynomics", "logistic_regression")
    )
    return perturbation.study_perturbation(
        corpus, open_pca(corpus), obs, predictions, None, label="genotype", replicate="sample",
        section="sample", seed=1, **SELECTIONS,
    )  # fmt: skip


def test_a_study_of_a_perturbation_has_its_tables_and_a_place_for_every_cell(tmp_path):
    corpus, obs, _ = simulate(tmp_path, 1)
    obs.loc["c79", "genotype"] = "another"  # which is in neither group
    found = study_of(corpus, obs)
    rows = found.change.set_index(["method", "class"])
    assert rows.loc[("scdynomics", "x"), ["cells_control", "cells_perturbed"]].tolist() == [39, 39]
    assert set(found.by_sample["sample"]) == {"wt0", "ko0"}
    assert {"g00", "g01", "g02"} <= set(found.genes.loc[found.genes["adjusted"] < 1e-3, "gene_id"])
    assert list(found.cells.index) == [f"c{i}" for i in range(79)]
    assert list(found.layouts) == ["UMAP"] and not found.on_section
    layout = found.layouts["UMAP"]
    assert layout.shape == (79, 2)
    np.testing.assert_array_equal(found.of_group["control"], layout[:40])
    np.testing.assert_array_equal(found.of_group["perturbed"], layout[40:])


def test_of_many_cells_some_are_shown_and_all_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(perturbation, "MAX_SHOWN", 30)
    corpus, obs, _ = simulate(tmp_path, 1)
    found = study_of(corpus, obs)
    assert found.cells.groupby(["group", "predicted"]).size().to_dict() == {
        ("control", "x"): 14, ("control", "y"): 1, ("perturbed", "x"): 15
    }  # fmt: skip
    assert found.layouts["UMAP"].shape == (30, 2)
    counted = found.by_sample.groupby("method")["n_cells"].sum()
    assert counted.to_dict() == {"scdynomics": 80, "logistic_regression": 80}


def test_groups_with_positions_are_laid_out_on_their_sections(tmp_path):
    corpus, obs, _ = simulate(tmp_path, 1)
    positions = np.random.default_rng(0).uniform([0, 0], [9, 1], (80, 2))
    found = study_of(corpus, obs.assign(x=positions[:, 0], y=positions[:, 1]))
    assert found.on_section and list(found.layouts) == ["UMAP", "section"]
    # A section is only shifted where it is laid out: distances within it stay.
    laid, there = found.of_group["control"], positions[:40]
    np.testing.assert_allclose(laid - laid[0], there - there[0])
