"""Gather how the model compares with baselines, one flat JSON: ``make collect-results``.

For each data set: macro-F1 and accuracy on held-out cells of the model, of the baseline with the
highest macro-F1, and of a random start; for each embedding: neighbour accuracy and the share of the
depth within labels that it explains, beside the better PCA's. Where there are several seeds, the
model and the random start are their ensembles, and a baseline can be one; ``single_`` scores are
the mean over runs of one seed, with which a random start of one seed is to be compared. With a
share of the labels there are no ensembles, since each seed draws other labels. Where only the fates
of a population are known: how far the shares of the predicted fates are from them. Data sets of
studies that are not given keep their scores, with the commit that made them.
"""

import argparse
import json
import re
from pathlib import Path

import pandas as pd
from bench import read_commit

from scdyn.io.files import write_json
from scdyn.settings import ENSEMBLE, MAIN, is_compared
from scdyn.tasks.methods import choose_model
from scdyn.tasks.predictions import read_predictions
from scdyn.tasks.scores import PREFIXES, method_prefix

# Study and task to the name of the data set.
TASKS = {
    ("cortex", "cortex"): "cortex",
    ("kang", "kang"): "kang",
    ("pbmc_facs", "pbmc_facs"): "pbmc_facs",
    ("pancreas", "pancreas"): "pancreas",
    ("spatial", "fate"): "seqfish",
    ("bone_marrow", "batch"): "bone_marrow",
    ("larry", "larry"): "larry",
    ("larry", "states"): "larry_states",
}
# Data sets that are compared on the cells of another part of the split than the held-out ones.
PREDICTED = {"bone_marrow", "larry"}
# Tasks whose predicted cells have no known fate, except as a population.
POPULATIONS = {("pancreas", "fates"): "pancreas_fates"}
RANDOM_START = f"{MAIN}_random_start"
FEW = 0.1
SCORES = ("macro_f1", "accuracy")


def describe(rows, name):
    """Describe the model, the best baseline and the random start.

    Parameters
    ----------
    rows
        ``method``, ``score``, ``mean``.
    name
        Of the data set.
    """
    wide = rows.pivot(index="method", columns="score", values="mean")
    baselines = wide[[not is_compared(method) for method in wide.index]]
    model = choose_model(wide.index)
    found = {f"{name}.{score}": wide.loc[model, score] for score in SCORES}
    found |= {f"{name}.single_{score}": wide.loc[MAIN, score] for score in SCORES}
    if len(baselines):
        best = baselines["macro_f1"].idxmax()
        found[f"{name}.best_baseline"] = best
        for score in SCORES:
            found[f"{name}.best_baseline_{score}"] = baselines.loc[best, score]
    for method in (f"{RANDOM_START}{ENSEMBLE}", RANDOM_START):
        if method in wide.index:
            found.setdefault(f"{name}.random_start_macro_f1", wide.loc[method, "macro_f1"])
    return found


def read_task(folder, name):
    """Read a task's scores, with all labels and with a tenth of them."""
    summary = pd.read_csv(folder / "summary.tsv", sep="\t")
    part = "predict" if name in PREDICTED else "test"
    found = describe(summary[summary["part"] == part], name)
    efficiency = pd.read_csv(folder / "label_efficiency.tsv", sep="\t")
    few = efficiency[efficiency["labels"] == FEW]
    return found | (describe(few, f"{name}_10") if len(few) else {})


def measure_shares(predictions, name):
    """Measure how far the shares of predicted fates are from those of the types that exist.

    The types accumulate over days, so that the progenitors of one day need not have their shares:
    a distance of 0 is no aim. A large one says that the predictions lean to few fates.

    Parameters
    ----------
    predictions
        A task's mean predictions; the labels of its predicted cells are stages of progenitors.
    name
        Of the data set.

    Returns
    -------
    dict
        For each stage the total variation distance (0 to 1) of the model, and of the baseline for
        which it is least.
    """
    is_predicted = predictions["part"] == "predict"
    existing = predictions.loc[~is_predicted & (predictions["method"] == MAIN), "label"]
    existing = existing.value_counts(normalize=True)
    found = {}
    for stage, of_stage in predictions[is_predicted].groupby("label"):
        shares = pd.crosstab(of_stage["method"], of_stage["predicted"], normalize="index")
        types = existing.index.union(shares.columns)
        shares = shares.reindex(columns=types, fill_value=0)
        distances = (shares - existing.reindex(types, fill_value=0)).abs().sum(axis=1) / 2
        baselines = distances[[not is_compared(method) for method in distances.index]]
        key = f"{name}.{re.sub('[^a-z0-9]+', '_', stage.lower())}"
        found[f"{key}.share_distance"] = distances[MAIN]
        if len(baselines):
            found[f"{key}.best_baseline"] = baselines.idxmin()
            found[f"{key}.best_baseline_share_distance"] = baselines.min()
    return found


def read_embedding(folder, task, name):
    """Read the scores of the embedding of a task's model, by the task's label.

    Each is compared with the PCA that is best by it: that with the most neighbours of the same
    label, and that which holds the least depth.
    """
    config = json.loads((folder / "provenance.json").read_text())["config"]
    settings = config["tasks"][task]
    corpus = config["models"][settings["model"]]["corpus"]
    path = folder / "embed" / settings["model"] / f"{corpus}.scores.json"
    prefix = f"{settings['label']}."
    scores = {k: v for k, v in json.loads(path.read_text()).items() if k.startswith(prefix)}
    measures = {
        "neighbour_accuracy": ("neighbour_accuracy", max),
        "library_size_r2_within": ("depth_r2_within", min),
    }
    found = {}
    for measure, (written, choose_best) in measures.items():
        values = {key.split(".", 1)[1]: v for key, v in scores.items() if key.endswith(measure)}
        of_pca = [value for key, value in values.items() if key.startswith("pca_")]
        if measure in values and of_pca:
            found[f"{name}.{written}"] = values[measure]
            found[f"{name}.best_pca_{written}"] = choose_best(of_pca)
    return found


def read_embedded(scores):
    """Read the scores of the embedded study, whose truth is known: fates and drivers."""
    methods = (*PREFIXES, RANDOM_START)
    names = {method: f"fate.{method_prefix(method)}" for method in methods}
    names |= {f"{m}{ENSEMBLE}": f"fate.{method_prefix(f'{m}{ENSEMBLE}')}" for m in methods}
    rows = [
        {"method": method, "score": score, "mean": scores[f"{prefix}{score}"]}
        for method, prefix in names.items()
        for score in SCORES
        if f"{prefix}{score}" in scores
    ]
    drivers = ("drivers.recall20", "drivers.lr_recall20")
    return describe(pd.DataFrame(rows), "fate") | {key: scores[key] for key in drivers}


def read_study(folder):
    """Read the scores of the data sets of a study: name to scores."""
    found = {}
    for (study, task), name in TASKS.items():
        if folder.name == study and (folder / "finetune" / task / "summary.tsv").exists():
            found[name] = read_task(folder / "finetune" / task, name)
            found[name] |= read_embedding(folder, task, name)
    for (study, task), name in POPULATIONS.items():
        path = folder / "finetune" / task / "predictions.parquet"
        if folder.name == study and path.exists():
            found[name] = measure_shares(read_predictions(path), name)
    if folder.name == "results":
        scores = read_embedded(json.loads((folder / "scores.json").read_text()))
        for key, value in scores.items():
            found.setdefault(key.split(".")[0], {})[key] = value
        found["fate"] |= read_embedding(folder, "fate", "fate")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="results folders of studies")
    parser.add_argument("--output", type=Path, required=True, help="JSON of all scores")
    options = parser.parse_args()
    found = json.loads(options.output.read_text()) if options.output.exists() else {}
    for folder in options.results:
        for name, scores in read_study(folder).items():
            found = {k: v for k, v in found.items() if k.split(".")[0] not in (name, f"{name}_10")}
            commit = json.loads((folder / "provenance.json").read_text())["commit"]
            found |= scores | {f"{name}.commit": commit}
    write_json(options.output, found | {"commit": read_commit()})
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
