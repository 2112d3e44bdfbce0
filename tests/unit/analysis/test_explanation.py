"""Scores of genes from attributions, regulons against chance, rankings side by side, figures."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scdyn.data.corpus import Corpus
from scdyn.errors import InputError
from scdyn.explain import attribution_tables as scores
from scdyn.explain import drivers, gene_sets, matching
from scdyn.plotting import explain as figures_explain
from scdyn.tasks.rankings import read_compared_cells

GENES = pd.DataFrame({"gene_id": ["a", "b"], "symbol": ["A", "B"], "is_tf": [True, False]})


def whole(cells):
    return {(name, scores.ALL_OTHERS): np.array([values]) for name, values in cells.items()}


def test_specificity_is_against_the_largest_or_the_median_other_class():
    values = np.array([[5.0, 1.0], [3.0, 4.0], [1.0, 2.0]])
    contrasts = values[:, None] - values[None]
    contrasts[np.arange(3), np.arange(3)] = np.nan
    contrasts = contrasts[:, :, None]
    found = scores.compute_specificity(contrasts)[:, 0]
    np.testing.assert_allclose(found, [[2, -3], [-2, 2], [-4, -2]])
    found = scores.compute_specificity(contrasts, "median")[:, 0]
    np.testing.assert_allclose(found, [[3, -2], [0, 2.5], [-3, -0.5]])


def test_scores_of_genes_on_which_cells_agree_are_those_of_float64():
    rng = np.random.default_rng(0)
    values = (1 + 1e-3 * rng.standard_normal((40, 2, 5))).astype(np.float32)
    values[:, 0, 0] = 0.1  # varies in no cell, so nothing is attributed
    contrasts = scores.compute_contrasts([{("x", "y"): values, ("y", "x"): values}], ["x", "y"])[0]
    exact = values.astype(np.float64)
    exact[:, 0, 0] = [-1, 1] * 20  # whose mean is zero
    expected = exact.mean(0) / exact.std(0, ddof=1)
    np.testing.assert_allclose(contrasts[0, 1, :2], expected, rtol=1e-3)


def test_table_orders_by_specificity_and_gives_the_spread():
    runs = [
        whole({"x": [[0.2, 0.5], [0.0, 0.3]], "y": [[0.4, 0.1], [0.5, 0.0]]}),
        whole({"x": [[0.4, 0.5], [0.0, 0.1]], "y": [[0.4, 0.1], [0.5, 0.0]]}),
    ]
    table = scores.attribution_table(runs, GENES)
    both = table[(table["class"] == "x") & (table["modality"] == "both")]
    assert both["symbol"].tolist() == ["B", "A"]
    assert both["mean"].tolist() == pytest.approx([0.7, 0.3])
    assert both["specificity"].tolist() == pytest.approx([0.6, -0.6], abs=1e-6)
    assert both["spread"].tolist() == pytest.approx([0.1, 0.1])


def pairwise_runs(rng, n_cells=40, n_runs=3):
    """Three classes; gene 0 parts x from both others, gene 1 from y alone, the rest is noise."""
    runs = []
    for _ in range(n_runs):
        run = {}
        for pair in [(a, b) for a in "xyz" for b in "xyz" if a != b]:
            values = rng.normal(size=(n_cells, 2, 30))
            values[:, 0, 0] += 2 * (pair[0] == "x")
            values[:, 0, 1] += 2 * (pair == ("x", "y"))
            run[pair] = values
        runs.append(run)
    return runs


def test_contrasts_are_standardised_and_need_every_other_class():
    runs = pairwise_runs(np.random.default_rng(0))
    contrasts = scores.compute_contrasts(runs, list("xyz"))[0]
    assert np.isnan(contrasts[np.arange(3), np.arange(3)]).all()
    np.testing.assert_allclose(contrasts[0, 1:, 0, 0], 2, atol=0.4)
    against_all, against_median = scores.compute_specificity(contrasts), scores.compute_specificity(
        contrasts, "median"
    )  # fmt: skip
    assert against_all[0, 0].argmax() == 0 and against_all[0, 0, 1] < 0.5
    assert against_median[0, 0, 1] == pytest.approx(1, abs=0.3)
    np.testing.assert_allclose(against_all[0, 0, 0], 2, atol=0.4)
    # A gene's attributions in another unit are the same evidence.
    scaled = [{pair: 7 * values for pair, values in run.items()} for run in runs]
    np.testing.assert_allclose(
        scores.compute_contrasts(scaled, list("xyz"))[0], contrasts, rtol=1e-4
    )


def test_intervals_cover_and_narrow_with_cells():
    covered, widths = [], []
    for n_cells in (10, 160):
        for seed in range(6):
            runs = pairwise_runs(np.random.default_rng(seed), n_cells)
            low, high = scores.bootstrap_interval(runs, list("xyz"), 200, seed)
            covered.append(low[0, 0, 0] <= 2 <= high[0, 0, 0])
            widths.append((n_cells, high[0, 0, 0] - low[0, 0, 0]))
    assert np.mean(covered) >= 0.5
    widths = pd.DataFrame(widths).groupby(0)[1].mean()
    assert 2 < widths[10] / widths[160] < 8  # the root of 16, about


def test_silent_genes_do_not_make_models_agree():
    rng = np.random.default_rng(0)
    seen = np.arange(400) < 40
    a, b = (whole({name: rng.normal(size=(2, 400)) * seen for name in "xy"}) for _ in range(2))
    assert abs(scores.rank_correlation(a, b)["x"]) < 0.3
    assert scores.rank_correlation(a, a)["y"] == pytest.approx(1)
    assert scores.top_overlap(a, a)["x"] == 1


def test_stability_parts_seeds_from_folds():
    runs = pairwise_runs(np.random.default_rng(0))
    described = [{"fold": "0", "seed": 1}, {"fold": "1", "seed": 1}, {"fold": "1", "seed": 2}]
    found = scores.measure_stability(runs, described)["spearman"]
    assert set(found) == {"folds", "seeds", "seeds and folds"}
    assert set(found["folds"]) == set("xyz")


def test_matched_genes_are_near_others_and_not_twice():
    expression = np.arange(200.0)
    chosen = np.arange(50, 70)
    drawn = matching.draw_matched_genes(expression, chosen, np.random.default_rng(0), 10)
    assert len(set(drawn)) == 20 and not set(drawn) & set(chosen)
    assert np.abs(expression[drawn] - expression[chosen]).max() < 40
    values = matching.permute_within_bins(expression, expression, np.random.default_rng(0), 10)
    assert sorted(values) == expression.tolist()
    assert np.abs(values - expression).max() < 20 and (values != expression).any()


@pytest.fixture
def attributions():
    """Genes 0 to 9 speak for x; attributions grow with expression, which is the gene's number."""
    rng = np.random.default_rng(0)
    tables = []
    for name in "xy":
        mean = np.arange(200) / 200 + rng.normal(0, 0.05, 200)
        mean[:10] += 0.3 * (name == "x")
        table = pd.DataFrame({"gene_id": [f"g{i:03}" for i in range(200)], "mean": mean})
        table["symbol"] = table["gene_id"].str.upper()
        table["is_tf"] = table.index < 20
        table = table.assign(**{"class": name, "modality": "both"}, specificity=mean, spread=0.1)
        for column in ("specificity_low", "specificity_high", "specificity_median"):
            table[column] = mean
        table = table.sort_values("specificity", ascending=False)
        tables.append(table)
        tables += [table.assign(modality=modality) for modality in ("rna", "promoter")]
    return pd.concat(tables)


def symbols(numbers):
    return {f"G{i:03}" for i in numbers}


def test_a_regulon_counts_against_genes_expressed_alike(attributions):
    expression = pd.Series(np.arange(200.0), index=[f"g{i:03}" for i in range(200)])
    sets = {"own": symbols(range(8)), "high": symbols(range(185, 199)), "tiny": symbols([1])}
    table = gene_sets.regulon_attribution(attributions, sets, expression, 500)
    table = table.set_index(["class", "regulon"])
    assert table.loc[("x", "own"), "q"] < 0.01
    assert table.loc[("y", "own"), "p"] > 0.05
    # Larger attributions in all, but no larger than their like.
    assert table.loc[("x", "high"), "attribution"] > table.loc[("x", "own"), "attribution"]
    assert table.loc[("x", "high"), "p"] > 0.05
    assert "tiny" not in table.index.get_level_values("regulon")


def test_gene_sets_of_a_gmt_file_are_sought_in_the_ranking(attributions, tmp_path):
    path = tmp_path / "sets.gmt"
    rows = {"top": symbols(range(190, 200)), "bottom": symbols(range(20, 30))}
    lines = ["\t".join([name, "about it", *members]) for name, members in rows.items()]
    path.write_text("\n".join(lines) + "\n")
    table = gene_sets.gene_set_enrichment(attributions, gene_sets.read_gmt(path)).set_index(
        ["class", "set"]
    )
    assert table.loc[("y", "top"), "auroc"] > 0.95 and table.loc[("y", "top"), "q"] < 0.001
    assert table.loc[("y", "bottom"), "auroc"] < 0.2
    path.write_text("top about it\n")
    with pytest.raises(InputError, match="line 1"):
        gene_sets.read_gmt(path)
    with pytest.raises(InputError, match="no set has 3 genes"):
        gene_sets.gene_set_enrichment(attributions, {"mouse": {"g1", "g2", "g3"}})
    assert gene_sets.gene_set_enrichment(attributions, {}).empty


def write_corpus_of_two_classes(folder):
    """Sixty cells of x and y by turns; of 200 genes the sixth is x's own."""
    rng = np.random.default_rng(0)
    label = pd.Series(["x", "y"] * 30, index=[f"c{i}" for i in range(60)])
    values = rng.poisson(1.0, (60, 200))
    values[label.to_numpy() == "x", 5] += 4
    obs = pd.DataFrame({"sample": "s", "barcode": label.index, "promoter_source": "none"})
    genes = pd.DataFrame({"gene_id": [f"g{i:03}" for i in range(200)]})
    genes["symbol"] = genes["gene_id"].str.upper()
    genes = genes.assign(is_tf=np.arange(200) < 20, length=1000, n_tss=1)
    cells = ad.AnnData(
        sparse.csr_matrix(values.astype(np.int32)),
        obs=obs.set_index(label.index),
        var=genes.set_index("gene_id"),
        layers={"promoter": sparse.csr_matrix(values.shape, dtype=np.int32)},
    )
    return Corpus.write(folder, [cells]), label


def test_drivers_have_other_rankings_and_regulons_beside_them(attributions, tmp_path):
    corpus, label = write_corpus_of_two_classes(tmp_path)
    cells = read_compared_cells(corpus, label, 1)
    weights = pd.DataFrame({"gene_id": cells.var_names, "class": "x", "promoter": 0.0})
    weights["rna"] = np.where(weights["gene_id"] == "g007", 1.0, 0.0)
    rankings = drivers.rankings_table(attributions, weights, cells)
    assert len(rankings) == 400 and rankings["wilcoxon"].notna().all()
    regulons = pd.DataFrame({"regulon": "G005(+)", "tf": "G005", "target": ["G196", "G197"]})
    of_regulons = pd.DataFrame({"class": ["x"], "regulon": ["G005(+)"], "q": [0.01]})
    table = drivers.drivers_table(attributions, rankings, regulons, of_regulons, n_genes=200)
    table = table[table["class"] == "x"].set_index("symbol")
    assert table.loc["G005", "wilcoxon_rank"] == 1
    assert table.loc["G007", "logistic_regression_rank"] == 1
    assert table["rank"].tolist() == sorted(table["rank"])
    assert table.loc["G005", ["own_regulons", "own_regulon_q"]].tolist() == ["G005(+)", 0.01]
    assert table.loc["G196", "in_regulons"] == "G005(+)" and table.loc["G005", "in_regulons"] == ""
    figure = figures_explain.plot_drivers(table.reset_index())
    shown = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(shown) == 20 and shown[-1].startswith(table.index[0])


def test_the_drivers_of_a_task_are_ranked_over_the_cells_of_its_folds(attributions, tmp_path):
    corpus, label = write_corpus_of_two_classes(tmp_path)
    splits = pd.DataFrame({"cell": label.index, "label": label.to_numpy(), "fold": "0"})
    # The last cells are only predicted, and one has a class that is not explained.
    splits.loc[40:, "fold"] = "predict"
    splits.loc[0, "label"] = "z"
    weights = corpus.genes[["gene_id"]].assign(**{"class": "x"}, promoter=0.0, rna=0.5)
    compared = read_compared_cells(corpus, label.iloc[1:40], 1)
    expected = drivers.rankings_table(attributions, weights.assign(rna=1.0), compared)
    of_x = expected[expected["class"] == "x"].sort_values("attribution")
    first = of_x["symbol"].iloc[-1]
    targets = [f"G{i:03}" for i in range(190, 199)]
    regulons = pd.DataFrame({"regulon": "R(+)", "tf": first, "target": targets})
    sets = {"low": symbols(range(20, 30))}
    given = attributions, [weights, weights.assign(rna=1.5)]
    found = drivers.rank_drivers(*given, regulons, sets, corpus, splits, seed=1)
    pd.testing.assert_frame_equal(found["rankings"], expected)
    assert set(found["regulons"]["regulon"]) == {"R(+)"}
    assert set(found["gene_sets"]["set"]) == {"low"}
    best = found["drivers"].set_index(["class", "symbol"])
    assert best.loc[("x", first), "own_regulons"] == "R(+)"
    assert drivers.rank_drivers(*given, regulons, {}, corpus, splits, seed=1)["gene_sets"].empty
    splits.loc[3, "cell"] = "another"
    with pytest.raises(InputError, match="not in the corpus, such as another"):
        drivers.rank_drivers(*given, regulons, {}, corpus, splits, seed=1)


def test_figures_of_checks_and_perturbations_show_all_there_is():
    checks = {
        "n_paths": 10,
        "completeness": {"median": 0.01, "percentile_95": 0.02},
        "cascade_correlation": [{"down_to": "head", "correlation": {"x": 0.1, "y": 0.0}}],
        "label_correlation": {"x": 0.0, "y": 0.1},
        "stability": {"spearman": {"folds": {"x": 0.5}}, "top50_jaccard": {}},
    }
    curves = pd.DataFrame(
        [
            (ranking, what, n, 0.5)
            for ranking in figures_explain.RANKINGS
            for what in ("deletion", "insertion")
            for n in (0, 1)
        ],
        columns=["ranking", "what", "n_genes", "probability"],
    )
    figure = figures_explain.plot_checks(checks, curves)
    assert [len(axis.lines) for axis in figure.axes[2:]] == [5, 5]
    effects = pd.DataFrame({"perturbation": ["A", "B"], "raised": [True, False], "class": "x"})
    effects = effects.assign(shift=[-1.0, 0.1], random_shift=0.0, shift_p=[0.04, 0.5])
    measured = pd.DataFrame({"method": ["measured", "silenced", "random genes", "no change"]})
    measured["embedding_correlation"] = [1.0, 0.5, 0.0, np.nan]
    measured = measured.assign(shift_x=[0.1, 0.05, 0.0, 0.0], shift_y=[-0.1, -0.05, 0.0, 0.0])
    knockout = pd.DataFrame({"symbol": ["A", "B", "C", "D"], "edited": [True, *[False] * 3]})
    knockout = knockout.assign(
        measured=[-9.0, 1, 2, 3], silenced=[-1, 1.0, 3.0, 2.0], mean_shift=[0, 1.0, 2.0, 3.0],
        n_perturbed=50, **{"class": "y"},
    )  # fmt: skip
    figure = figures_explain.plot_in_silico(effects, measured, knockout)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[0] == "x cells" and "r = 0.50, random genes 0.00" in titles[1]
    assert titles[2] == "y cells\nr = 0.50, mean shift 1.00"
    assert [text.get_text() for text in figure.axes[2].texts] == ["D", "C", "B"]
    knockout = pd.concat([knockout, knockout.assign(silenced=0.0, **{"class": "z"})])
    assert len(figures_explain.plot_in_silico(effects, measured, knockout).axes) == 3
    assert figure.axes[2].lines[0].get_xdata().tolist() == [1, 2, 3]
    alone = figures_explain.plot_in_silico(effects, measured[:0], knockout[:0])
    assert len(alone.axes) == 1
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == ["B", "A raised"]
