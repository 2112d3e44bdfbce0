"""Runs of one fold averaged as one model: calibration, folds, order and classes."""

import numpy as np
import pandas as pd
import pytest

from scdyn.errors import InputError
from scdyn.io.artefacts import write_parquet
from scdyn.io.files import write_json
from scdyn.tasks import ensemble, metrics, predictions
from scdyn.tasks.familiarity import fit_familiarity

CLASSES = ["a", "b", "c"]
COLUMNS = [f"p_{name}" for name in CLASSES]
SPLIT = pd.DataFrame(
    {
        "cell": [f"c{i}" for i in range(62)],
        "label": [*"abc" * 20, "", ""],
        "fold": [*"01" * 30, "predict", "predict"],
    }
)
RUNS = [(1, "0"), (2, "0"), (10, "0"), (1, "1"), (2, "1")]


def draw_probabilities(labels, classes, rng):
    """Probabilities of runs that are wrong in one cell of five, and always sure."""
    true = np.array([classes.index(label) if label in classes else 0 for label in labels])
    wrong = rng.random(len(true)) > 0.8
    p = np.full((len(true), len(classes)), 0.01)
    p[np.arange(len(true)), np.where(wrong, (true + 1) % len(classes), true)] = 1
    p *= 0.5 + rng.random(p.shape)
    return p / p.sum(1, keepdims=True)


def write_validation(folder, seed, numbers=range(90), classes=CLASSES):
    rng = np.random.default_rng(seed)
    labels = [CLASSES[i % 3] for i in numbers]
    p = draw_probabilities(labels, classes, rng)
    table = pd.DataFrame({"cell": [f"v{i}" for i in numbers], "label": labels})
    table["energy"] = rng.normal(size=len(table))
    table = table.assign(**{f"p_{name}": p[:, j] for j, name in enumerate(classes)})
    write_parquet(folder / "validation.parquet", table)


def write_run(folder, seed, fold, classes=CLASSES):
    """A run's folder, as fine-tuning writes it, without its weights."""
    folder.mkdir()
    write_json(folder / "task.json", {"seed": seed, "fold": fold})
    write_validation(folder, [seed, int(fold)], classes=classes)
    rng = np.random.default_rng([seed, int(fold), 1])
    cells = SPLIT[SPLIT["fold"].isin([fold, "predict"])]
    p = draw_probabilities(cells["label"], classes, rng)
    run = {"method": "scdynomics", "variant": "scdynomics", "seed": seed, "fold": fold}
    table = predictions.tabulate_calibrated_predictions(cells, run, classes, p, 1.0)
    energies = rng.normal(size=len(cells))
    predictions.insert_familiarity(table, np.sort(rng.normal(size=50)), energies)
    write_parquet(folder / "predictions.parquet", table)
    return table


@pytest.fixture
def folders(tmp_path):
    """Folders of the runs, by seed and fold."""
    found = {run: tmp_path / f"seed{run[0]}_fold{run[1]}" for run in RUNS}
    for run, folder in found.items():
        write_run(folder, *run)
    return found


def average(folders):
    """The ensemble of each fold."""
    runs = predictions.list_runs([folder / "predictions.parquet" for folder in folders])
    tables = [table for _, table in ensemble.iter_ensembles(runs, SPLIT, CLASSES)]
    return {table["fold"].iloc[0]: table for table in tables}


def read(folder, name):
    return pd.read_parquet(folder / f"{name}.parquet")


def test_an_ensemble_is_the_mean_of_the_runs_at_the_temperature_of_the_validation_cells(folders):
    found = average(folders.values())
    assert list(found) == ["0", "1"]
    table, own = found["0"], [folders[run] for run in RUNS[:3]]
    validated = [read(folder, "validation") for folder in own]
    mean = np.mean([one[COLUMNS].to_numpy() for one in validated], axis=0)
    temperature = metrics.fit_temperature(validated[0]["label"].to_numpy(), CLASSES, mean)
    assert abs(np.log(temperature)) > 0.1
    runs = [read(folder, "predictions") for folder in own]
    p = np.mean([one[COLUMNS].to_numpy(float) for one in runs], axis=0)
    expected = metrics.apply_temperature(p, temperature)
    np.testing.assert_allclose(table[COLUMNS], expected, atol=1e-6)
    np.testing.assert_allclose(table["confidence_raw"], p.max(1), atol=1e-6)
    known = fit_familiarity(np.mean([one["energy"] for one in validated], axis=0))
    energies = np.mean([one["energy"] for one in runs], axis=0).astype(np.float32)
    higher = (known[None] >= energies[:, None]).sum(1)
    np.testing.assert_allclose(table["familiarity"], (1 + higher) / 91, rtol=1e-6)
    assert set(table["method"]) == {"scdynomics_ensemble"} and set(table["seed"]) == {1}


def test_labels_of_test_cells_change_no_probability(folders):
    before = average(folders.values())
    for folder in folders.values():
        table = read(folder, "predictions")
        write_parquet(folder / "predictions.parquet", table.assign(label="a"))
    after = average(folders.values())
    for fold, table in before.items():
        columns = [*COLUMNS, "familiarity"]
        pd.testing.assert_frame_equal(after[fold][columns], table[columns])


def test_the_order_of_the_runs_changes_nothing(folders):
    found, turned = average(folders.values()), average(list(folders.values())[::-1])
    for fold, table in found.items():
        pd.testing.assert_frame_equal(turned[fold], table, check_exact=True)


def test_a_fold_is_not_calibrated_on_the_cells_of_another(folders):
    """Validation cells of a fold are training cells of the others."""
    before = average(folders.values())
    for seed in (1, 2):
        write_validation(folders[seed, "1"], seed, range(300))
    after = average(folders.values())
    pd.testing.assert_frame_equal(after["0"], before["0"])
    assert not np.allclose(after["1"]["p_a"], before["1"]["p_a"])


def test_a_class_that_a_run_does_not_know_has_probability_zero_there(tmp_path):
    one = write_run(tmp_path / "one", 1, "0")
    other = write_run(tmp_path / "other", 2, "0", ["a", "b"])
    calibration = ensemble.calibrate_ensemble([tmp_path / "one", tmp_path / "other"], CLASSES)
    mean = ensemble.RunMean(len(one), CLASSES)
    for table in (one, other):
        mean.add(table)
    np.testing.assert_allclose(mean.p[:, 2], one["p_c"] / 2, rtol=1e-6)
    np.testing.assert_allclose(mean.p[:, 0], (one["p_a"] + other["p_a"]) / 2, rtol=1e-6)
    p, familiarity = calibration.apply(mean)
    np.testing.assert_allclose(p.sum(1), 1)
    assert ((familiarity > 0) & (familiarity <= 1)).all()


def test_only_cells_that_are_validation_cells_of_all_runs_are_used(tmp_path):
    """A validation cell of one run can be a training cell of another with other labels."""
    folders = [tmp_path / name for name in "ab"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        write_validation(folder, seed, range(60 * seed, 60 * seed + 90))
    assert len(ensemble.calibrate_ensemble(folders, CLASSES).familiar) == 30
    write_validation(folders[1], 1, range(500, 509))
    with pytest.raises(InputError, match="/a: has no validation cell in common.*MODEL"):
        ensemble.calibrate_ensemble(folders, CLASSES)


def test_a_model_of_an_earlier_version_is_named_with_what_to_do(folders):
    (folders[2, "0"] / "validation.parquet").unlink()
    words = "seed2_fold0: .*validation.parquet.*remove it and run the workflow again"
    with pytest.raises(InputError, match=words):
        average(folders.values())


def test_a_method_has_an_ensemble_if_every_fold_has_several_seeds():
    runs = pd.DataFrame({"seed": [1, 2, 1, 2], "fold": [*"0011"]})
    assert ensemble.has_ensemble(runs)
    assert not ensemble.has_ensemble(runs.iloc[:3])
    assert not ensemble.has_ensemble(runs.iloc[:0])
