"""What the studies compute, on small data with a known answer."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from small_corpus import make_genes

from scdyn.data.corpus import Corpus
from scdyn.data.pca import N_COMPONENTS, open_pca
from scdyn.errors import InputError
from scdyn.grn.activity import COMPARED
from scdyn.plotting import style, views
from scdyn.plotting.studies import assign_label_colours
from scdyn.pp import wilcoxon
from scdyn.pp.metadata import write_cells
from scdyn.studies import common
from scdyn.studies import development as studies_development
from scdyn.studies import spatial as studies_spatial
from scdyn.tasks.baselines import MAX_FOR_TREES, MAX_TRAINING_CELLS
from scdyn.tasks.embeddings import MAX_COMPARED


def prediction_table(names, method, predicted, part="predict", classes=("x", "y")):
    p = {f"p_{c}": np.where(np.array(predicted) == c, 0.9, 0.1) for c in classes}
    plain = {"cell": names, "fold": "mean", "part": part, "label": "", "method": method}
    return pd.DataFrame(plain | {"predicted": predicted} | p)


def branching(n=150, seed=0):
    """A stem of progenitors that parts into two arms of mature cells; time runs along it."""
    rng = np.random.default_rng(seed)
    time = np.concatenate([rng.uniform(0, 1, n), rng.uniform(1, 2, 2 * n)])
    arm = np.concatenate([rng.choice([-1, 1], n), np.repeat([-1, 1], n)])
    values = np.zeros((3 * n, 10))
    values[:, 0] = 10 * time
    values[:, 1] = 10 * arm * np.maximum(time - 1, 0)
    values += rng.normal(0, 0.2, values.shape)
    return time, arm, values


def test_weighted_means_of_bins_are_their_means_and_the_interval_holds_the_truth():
    rng = np.random.default_rng(0)
    values = rng.normal(np.repeat([0.0, 5.0], 200), 1.0)
    weights = np.repeat(np.eye(2), 200, axis=1)
    mean, low, high = common.estimate_means(values, weights, 1)
    assert mean == pytest.approx([values[:200].mean(), values[200:].mean()])
    # The width of the bootstrap's interval is that of the normal one.
    normal = 2 * 1.96 * values.reshape(2, 200).std(1) / np.sqrt(200)
    assert high - low == pytest.approx(normal, rel=0.15)
    same = common.estimate_means(np.full(400, 0.7), weights, 1)
    assert np.allclose(same, 0.7)


def test_new_cells_are_selected_or_else_held_out_ones():
    predicted = prediction_table(["a"], "scdynomics", ["x"])
    tested = prediction_table(["b"], "scdynomics", ["y"], part="test")
    assert list(common.select_predicted(pd.concat([predicted, tested]), "scdynomics").index) == [
        "a"
    ]
    assert list(common.select_predicted(tested, "scdynomics").index) == ["b"]
    with pytest.raises(
        InputError, match="no predictions by 'xgboost'; add it to the task's baselines"
    ):
        common.select_predicted(tested, "xgboost")


def test_every_one_of_many_classes_has_a_colour_of_its_own():
    labels = pd.Series([f"type {i}" for i in range(25) for _ in range(25 - i)])
    palette = assign_label_colours(labels, pd.DataFrame({"predicted": ["type 3", "type 24"]}))
    assert len(palette) == 25 and len(set(palette.values())) == 25
    assert palette["type 0"] == style.PALETTE[0]  # the commonest


def test_tiled_sections_lie_flat_and_cover_none_other():
    positions = np.array([[0.0, 0], [1, 9], [0, 0], [9, 1], [np.nan, np.nan]])
    section = pd.Series(["a", "a", "b", "b", "b"])
    laid = common.tile_sections(positions, section)
    assert np.isnan(laid[4]).all()
    a, b = laid[:2], laid[2:4]
    assert np.ptp(a, axis=0).tolist() == np.ptp(b, axis=0).tolist() == [9, 1]
    apart = (a.min(0) > b.max(0)) | (b.min(0) > a.max(0))
    assert apart.any()


def test_pseudotime_starts_in_the_stem_and_follows_it_into_both_arms():
    time, arm, values = branching()
    progenitors = time < 1
    root = studies_development.find_furthest_cells(values, arm, progenitors)
    assert root.sum() == round(0.05 * progenitors.sum())
    assert progenitors[root].all() and time[root].max() < 0.2
    found = studies_development.compute_diffusion_pseudotime(values, root, 1)
    assert found.min() == 0 and found.max() == 1
    assert stats.spearmanr(found, time).statistic > 0.95


def test_cells_that_no_path_joins_to_the_root_have_no_pseudotime():
    time, _, values = branching()
    values = np.concatenate([values, np.random.default_rng(1).normal(500, 1, (40, 10))])
    root = np.arange(len(values)) == time.argmin()
    found = studies_development.compute_diffusion_pseudotime(values, root, 1)
    assert np.isnan(found[-40:]).all() and np.isfinite(found[:-40]).all()


def make_obs():
    """The table of the cells of :func:`branching`."""
    time, arm, _ = branching()
    kind = np.where(time < 1, "stem", np.where(arm < 0, "x", "y"))
    obs = {"sample": "s", "kind": kind, "time": time, "named": "early"}
    return pd.DataFrame(obs, index=[f"c{i}" for i in range(len(time))])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The cells of :func:`branching`: g00 rises with time, g01 in the arm of y alone."""
    obs = make_obs()[["sample"]].assign(barcode="b", promoter_source="none")
    counts = sparse.csr_matrix((10 * np.maximum(branching()[2], 0) + 50).astype(np.int32))
    var = make_genes(10).assign(length=1000).set_index("gene_id")
    cells = ad.AnnData(counts, obs=obs, var=var)
    cells.layers["promoter"] = sparse.csr_matrix(counts.shape, dtype=np.int32)
    return Corpus.write(tmp_path_factory.mktemp("corpus"), [cells])


def fates(obs, wrong_before=None):
    """Calls of each method; ``wrong_before`` says until when a method errs."""
    fate = np.where(branching()[1] < 0, "x", "y")
    other = np.where(fate == "x", "y", "x")
    part = np.where(obs["kind"] == "stem", "predict", "test")
    until = {"scdynomics": 0, "logistic_regression": 0} | (wrong_before or {})
    return pd.concat(
        prediction_table(obs.index, name, np.where(obs["time"] < end, other, fate), part)
        for name, end in until.items()
    )


def tabulate(obs, predictions, single_modality, *, root=None, pseudotime="time", seed=1):
    shown = studies_development.choose_shown_cells(obs, predictions, "kind", root, seed)
    components = branching()[2][obs.index.get_indexer(shown["cell"])]
    return studies_development.development_table(
        shown, obs, components, predictions, single_modality, root=root, pseudotime=pseudotime,
        seed=seed,
    )  # fmt: skip


SETTINGS = {"root": None, "pseudotime": "time", "seed": 1}
ALONE = {"rna": "scdynomics_rna", "promoter": "scdynomics_promoter"}


def test_the_modality_that_knows_first_is_seen_to_know_first():
    obs = make_obs()
    predictions = fates(obs, {"scdynomics_rna": 0.8, "scdynomics_promoter": 0.4})
    table = tabulate(obs, predictions, ALONE)
    progenitors = studies_development.select_progenitors(table, predictions)
    assert set(progenitors["label"]) == {"stem"} and len(progenitors) == 150
    found = studies_development.measure_agreement(progenitors, list(ALONE), 1).set_index("of")
    assert set(found["measure"]) == {"agreement with the prediction from both modalities"}
    for name, end in (("rna", 0.8), ("promoter", 0.4)):
        part = found.loc[name]
        # The bin on the border holds both right and wrong predictions.
        clear = (part["pseudotime"] - end).abs() > 0.1
        right = part["pseudotime"] > end
        assert (part["value"] == right)[clear].all()
        assert part["n_cells"].sum() == 150
    difference = found.loc["rna - promoter"]
    between = difference["pseudotime"].between(0.5, 0.7)
    assert between.any() and (difference.loc[between, "high"] < 0).all()


def test_predictions_are_compared_with_the_labels_or_the_prediction_from_both():
    table = pd.DataFrame({"label": ["x", "y"], "predicted": ["y", "y"], "p_x": 0.1, "p_y": 0.9})
    own, what = studies_development.choose_reference(table)
    assert list(own) == ["x", "y"] and what == "the label"
    own, what = studies_development.choose_reference(table.assign(label=["x", ""]))
    assert list(own) == ["y", "y"] and what == "the prediction from both modalities"


def test_chance_agreement_is_that_of_independent_predictions():
    a, b = pd.Series(["x", "x", "y", "y"]), pd.Series(["x", "y", "y", "y"])
    assert studies_development.chance_agreement(a, b) == pytest.approx(0.5 * 0.25 + 0.5 * 0.75)
    assert studies_development.chance_agreement(a, pd.Series(["z"] * 4)) == 0


def test_fate_trends_follow_a_line_and_are_of_the_predicted_fate():
    time = np.linspace(0, 1, 400)
    predicted = np.where(np.arange(400) % 2 == 0, "x", "y")
    table = pd.DataFrame({"pseudotime": time, "predicted": predicted, "p_x": time, "p_y": 0.6})
    found = studies_development.fate_trends(table, ["x", "y"], 1)
    x = found[(found["of"] == "x") & found["pseudotime"].between(0.2, 0.8)]
    assert x["value"].to_numpy() == pytest.approx(x["pseudotime"].to_numpy(), abs=0.01)
    assert (x["low"] < x["pseudotime"]).all() and (x["pseudotime"] < x["high"]).all()
    assert found.loc[found["of"] == "y", "value"].to_numpy() == pytest.approx(0.6)


def test_driver_trends_rise_where_the_fate_is_taken(corpus):
    obs = make_obs()
    table = tabulate(obs, fates(obs), {})
    drivers = pd.DataFrame({"gene_id": ["g01", "g01"], "symbol": "Tf", "class": ["y", "x"]})
    points, genes, shown, trends = studies_development.driver_trends(corpus, table, drivers, 4, 10)
    assert genes["gene_id"].tolist() == ["g01"] and set(shown) == {"x", "y"}
    late = points > 1.5
    assert np.nanmin(trends["y"][0, late]) > np.nanmax(trends["x"][0, late])
    both = np.concatenate([trends["x"], trends["y"]], axis=1)
    assert np.nanmean(both) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"root": None, "pseudotime": "hours"}, "the cells have no column 'hours'"),
        ({"root": None, "pseudotime": "named"}, r"'named' has no numbers"),
        ({"root": {"kind": ["bulb"]}, "pseudotime": None}, "root: no cell has kind 'bulb'"),
    ],
)
def test_a_pseudotime_that_cannot_be_had_is_refused(settings, words):
    obs = make_obs()
    with pytest.raises(InputError, match=words):
        tabulate(obs, fates(obs), {}, **settings)


def test_a_task_without_predicted_cells_needs_a_root():
    obs = make_obs()
    predictions = fates(obs).assign(part="test")
    with pytest.raises(InputError, match="set root or pseudotime of the study"):
        tabulate(obs, predictions, {}, pseudotime=None)
    table = tabulate(obs, predictions, {}, root={"kind": ["stem"]}, pseudotime=None)
    assert len(studies_development.select_progenitors(table, predictions)) == len(obs)


def test_of_many_cells_some_of_each_part_and_fate_and_of_the_root_are_shown(monkeypatch):
    monkeypatch.setattr(studies_development, "MAX_SHOWN", 90)
    obs = make_obs()
    obs["stage"] = ["E6"] * 9 + [np.nan] * 441
    predictions = fates(obs)
    shown = studies_development.choose_shown_cells(obs, predictions, "kind", None, 1)
    # A part and a fate of each: of 75, 75, 150 and 150 cells or about so many.
    assert len(shown) == 90
    strata = (predictions["method"] == "scdynomics") & predictions["cell"].isin(shown["cell"])
    sizes = predictions[strata].groupby(["part", "predicted"]).size()
    assert sizes.min() >= 10 and sizes["test", "x"] == 30
    shown = studies_development.choose_shown_cells(obs, predictions, "kind", {"stage": ["E6"]}, 1)
    assert obs.loc[shown["cell"], "stage"].eq("E6").sum() == 9
    table = tabulate(obs, predictions, {}, root={"stage": ["E6"]}, pseudotime=None)
    assert len(table) == 90 and table["pseudotime"].min() == 0


def test_a_study_reads_the_columns_that_it_names_or_all_if_one_is_missing(tmp_path):
    table = make_obs().assign(x=1.5, y=2.0)
    write_cells(tmp_path / "cells.parquet", table)
    read = common.read_study_cells(tmp_path / "cells.parquet", ["kind", "time"])
    assert list(read) == ["sample", "x", "y", "kind", "time"]
    assert read.loc["c3", "x"] == 1.5 and read.index.tolist() == table.index.tolist()
    with pytest.raises(InputError, match=r"no column 'slide' \(columns: sample, .*named"):
        common.get_sections(common.read_study_cells(tmp_path / "cells.parquet", ["slide"]), "slide")


def grid(side=20):
    return np.array([(i, j) for i in range(side) for j in range(side)], dtype=float)


def test_morans_i_tells_order_from_chance_and_holds_its_level():
    positions = grid()
    rng = np.random.default_rng(0)
    ordered = (positions[:, 0] > 9).astype(float)
    noise = {f"noise {i}": rng.random(400) for i in range(60)}
    values = pd.DataFrame({"ordered": ordered, "constant": 0.5, **noise})
    found = studies_spatial.measure_coherence(positions, values, 1)
    assert found.loc["ordered", "morans_i"] > 0.8
    assert found.loc["ordered", "p_value"] == 1 / 200
    assert found.loc["constant", ["morans_i", "p_value"]].isna().all()
    chance = found.filter(regex="noise", axis=0)
    # Noise: p-values are uniform, and the interval holds about 95%.
    assert stats.kstest(chance["p_value"], "uniform").pvalue > 0.01
    inside = chance["morans_i"].between(chance["null_low"], chance["null_high"])
    assert inside.mean() > 0.85
    # The mean of the null is -1 / (n - 1).
    assert chance[["null_low", "null_high"]].mean(axis=1).mean() == pytest.approx(0, abs=0.01)


def test_order_is_measured_section_by_section_over_cells_with_a_position():
    places = np.concatenate([grid(8), grid(8), grid(3)])
    names = [f"c{i}" for i in range(len(places))]
    positions = pd.DataFrame(places, index=names)
    positions.iloc[0] = np.nan
    section = pd.Series(["a"] * 64 + ["b"] * 64 + ["small"] * 9, index=names)
    predicted = np.where(places[:, 0] > 3, "x", "y")
    predicted[64:128] = np.random.default_rng(0).permutation(predicted[64:128])
    predictions = pd.concat(
        prediction_table(names, m, predicted) for m in ("scdynomics", "logistic_regression")
    )
    methods = ["scdynomics", "logistic_regression"]
    table = studies_spatial.coherence_table(positions, section, predictions, methods, 1)
    assert set(table["section"]) == {"a", "b"}  # nine cells say nothing of order
    rows = table.set_index(["section", "method", "class"])
    assert rows.loc[("a", "scdynomics", "x"), "n_cells"] == 63
    assert rows.loc[("a", "scdynomics", "x"), "n_predicted"] == 32
    assert rows.loc[("a", "scdynomics", "x"), "p_value"] < 0.01
    assert rows.loc[("b", "scdynomics", "x"), "p_value"] > 0.01


def test_sections_without_predictions_and_cells_without_positions_are_not_drawn():
    obs = make_obs()
    predictions = fates(obs)
    section = pd.Series(np.where(obs["kind"] == "y", "other", "s"), index=obs.index)
    positions = pd.DataFrame(branching()[2][:, :2], index=obs.index)
    positions.iloc[0] = np.nan
    table = studies_spatial.tabulate_placed_cells(obs, positions, section, predictions, "kind")
    assert set(table["section"]) == {"s"} and len(table) == 300 - 1
    assert table["predicted"].notna().sum() == 150 - 1
    assert table.loc[table["label"] == "x", "predicted"].isna().all()
    with pytest.raises(InputError, match="no positions"):
        common.get_positions(obs)
    with pytest.raises(InputError, match="section: the cells have no column 'slide'"):
        common.get_sections(obs, "slide")


def test_a_fate_keeps_its_best_drivers_though_another_lists_them_lower(corpus):
    table = tabulate(make_obs(), fates(make_obs()), {})
    drivers = pd.DataFrame({"gene_id": ["g01", "g02", "g02", "g01"], "symbol": "Tf"})
    drivers["class"] = ["x", "x", "y", "y"]
    _, genes, _, _ = studies_development.driver_trends(corpus, table, drivers, 4, 1)
    assert dict(zip(genes["class"], genes["gene_id"], strict=True)) == {"x": "g01", "y": "g02"}


def test_fates_without_drivers_are_not_drawn(corpus):
    table = tabulate(make_obs(), fates(make_obs()), {})
    drivers = pd.DataFrame({"gene_id": ["g01"], "symbol": "Tf", "class": ["z"]})
    _, genes, shown, trends = studies_development.driver_trends(corpus, table, drivers, 4, 10)
    assert genes.empty and not shown and not trends


def test_a_study_of_development_has_every_cell_in_its_tables_and_in_its_layout(corpus):
    obs = make_obs()
    predictions = fates(obs, {"scdynomics_rna": 0.8})
    predictions = predictions[predictions["cell"] != "c449"]  # of which there is no prediction
    single_modality = {"rna": "scdynomics_rna"}
    given = corpus, open_pca(corpus), obs, predictions
    found = studies_development.study_development(
        *given, label="kind", single_modality=single_modality, **SETTINGS
    )
    assert found.cells["cell"].tolist() == [f"c{i}" for i in range(449)]
    assert found.layout.shape == (449, 2)
    assert found.is_progenitor.tolist() == (obs["kind"] == "stem").tolist()[:449]
    assert set(found.trends["of"]) == {"x", "y"} and set(found.agreement["of"]) == {"rna"}
    table = found.along_pseudotime
    assert len(table) == len(found.trends) + len(found.agreement)
    assert table["chance"].isna().sum() == len(found.trends)
    settings = SETTINGS | {"pseudotime": None}
    found = studies_development.study_development(
        *given, label="kind", single_modality={}, **settings
    )
    # On the components of the corpus, pseudotime follows the true time.
    time = obs["time"][:449]
    assert stats.spearmanr(found.cells["pseudotime"], time).statistic > 0.8
    assert found.agreement is None and found.along_pseudotime["chance"].isna().all()


def test_a_study_of_sections_shows_the_cells_that_have_a_place():
    obs = make_obs()
    obs[["x", "y"]] = branching()[2][:, :2]
    obs.iloc[0, obs.columns.get_indexer(["x", "y"])] = np.nan
    obs["slide"] = np.where(np.arange(450) % 2, "odd", "even")
    found = studies_spatial.study_sections(obs, fates(obs), label="kind", section="slide", seed=1)
    assert set(found.coherence["method"]) == {"scdynomics", "logistic_regression"}
    assert list(found.cells.index) == list(obs.index[1:])
    np.testing.assert_array_equal(found.positions, obs[["x", "y"]].to_numpy()[1:])
    odd = (found.cells["section"] == "odd").to_numpy()
    a, b = found.layout[~odd], found.layout[odd]
    # Side by side, though their cells' places are mixed.
    assert ((a.min(0) > b.max(0)) | (b.min(0) > a.max(0))).any()


@pytest.mark.parametrize(
    ("caption", "parameters"),
    [
        ("coherence", ["ten nearest", f"{studies_spatial.N_PERMUTATIONS} random permutations"]),
        (
            "development_maps",
            [
                f"the {studies_development.ROOT_SHARE:.0%} of the predicted cells",
                f"{N_COMPONENTS} principal components",
                f"more than {common.MAX_SHOWN:,} predicted cells",
            ],
        ),
        *(
            (name, [f"there are more than {common.MAX_SHOWN:,} "])
            for name in ("perturbation_maps", "view", "pseudotime", "driver_trends")
        ),
        ("regulons", [f"or over {COMPARED:,} of them"]),
        ("specificity", [f"or over {COMPARED:,} of them"]),
        ("embedding", [f"at most {MAX_COMPARED:,} cells"]),
        ("scores", [f"if there are more than {MAX_TRAINING_CELLS:,}"]),
        ("changed_genes", [f"at most {wilcoxon.MAX_PER_GROUP:,} cells per group"]),
        ("drivers", [f"at most {wilcoxon.MAX_PER_GROUP:,} cells per class"]),
        ("regulon_attribution", [f"at most {wilcoxon.MAX_PER_GROUP:,} labelled cells per class"]),
        ("task", [f"at most {MAX_TRAINING_CELLS:,} training cells, XGBoost to {MAX_FOR_TREES:,}"]),
        (
            "pseudotime",
            [
                "the eight commonest",
                f"deviation {studies_development.KERNEL_WIDTH:.0%} of the range",
            ],
        ),
        (
            "driver_trends",
            [
                "ten of each of the four commonest",
                f"deviation {studies_development.KERNEL_WIDTH:.0%} of the range",
            ],
        ),
    ],
)
def test_captions_state_the_parameters_in_use(caption, parameters):
    text = (Path(__file__).parents[3] / f"workflow/report/{caption}.rst").read_text()
    for parameter in parameters:
        assert parameter in text
    assert views.MOST_CELLS == common.MAX_SHOWN
    assert studies_spatial.NEIGHBOURS_ON_SECTION == 10 and studies_development.MIN_WEIGHT == 5
    followed = studies_development.MAX_DRIVER_FATES, studies_development.MAX_DRIVERS
    assert (*followed, studies_development.MAX_FATES) == (4, 10, 8)
