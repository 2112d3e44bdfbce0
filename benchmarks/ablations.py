"""Ablation of objectives, TF index, regulon projection and fine-tuning: ``make ablations``.

Variants of a study's model, with several seeds each, are pretrained, fine-tuned and, if the truth
is known, explained, with all other settings as in the study's config. The workflow must have run
the study before: its tokens, GRN and splits are used. Finished runs are saved, so that a stopped
benchmark continues. On one core a variant and seed takes one to three minutes with 2,000 cells and
five epochs, and a fine-tuned one ten.

In the variants without the true TF index, the same number of other genes takes the place of the
TFs in the model's TF layers. They are drawn at random, or matched to each TF by degree, which is
the sum of a gene's absolute correlations with all genes over the cells.
"""

import argparse
import hashlib
import json
import logging
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from scdyn.data.corpus import Corpus
from scdyn.data.tokens import TokenStore
from scdyn.explain import runs
from scdyn.io.artefacts import make_stamp
from scdyn.io.files import write_json
from scdyn.pp.metadata import read_cells_table
from scdyn.pp.selection import select
from scdyn.settings import MAIN, ModelSettings, PretrainingSettings, TaskSettings
from scdyn.tasks import (
    embeddings,
    encoding,
    finetuning,
    metrics,
    predictions,
    rankings,
    splits,
)
from scdyn.tasks.truth import score_drivers
from scdyn.training import pretraining

DEFAULT, BATCH_GIVEN = "default", "batch given to the decoder"
# Name to TF index and settings of pretraining that differ from the study's.
VARIANTS = {
    DEFAULT: ("true", {}),
    "without consistency": ("true", {"consistency": 0.0}),
    "without noise of the cell vector": ("true", {"cell_noise": 0.0}),
    "hidden values, too": ("true", {"hidden_values": 1.0}),
    "hidden values alone": (
        "true", {"hidden_values": 1.0, "whole_cell": 0.0, "consistency": 0.0},
    ),
    # The batch is the column of the task's split_by; left out if it has none.
    BATCH_GIVEN: ("true", {}),
    "random projection": ("true", {"projection_init": "random"}),
    "random projection and index": ("random", {"projection_init": "random"}),
    "random projection, degree-matched index": ("degree", {"projection_init": "random"}),
}  # fmt: skip
# The default's pretrained model, fine-tuned in another way.
FINE_TUNED = {"default, LoRA": {"adapter": "lora"}, "default, all parameters": {"adapter": "full"}}


class ReorderedStore(TokenStore):
    """Cells with the genes in another order."""

    def __init__(self, folder, corpus, order):
        super().__init__(folder, corpus)
        self.place = np.argsort(order).astype(np.uint16)
        self.vocabulary = self.vocabulary.iloc[order].reset_index(drop=True)

    def read_cells(self, rows, buffers=None):
        cells = super().read_cells(rows, buffers)
        for values in cells.values.values():
            values.indices[:] = self.place[values.indices]
        return cells


def compute_degrees(store):
    """Sum each gene's absolute correlations with all genes, on log-normalised RNA and promoters."""
    layers = store.corpus.to_memory(layers=["rna_log", "promoter_log"]).layers
    values = (layers["rna_log"] + layers["promoter_log"]).toarray()
    values -= values.mean(0)
    norms = np.linalg.norm(values, axis=0)
    values /= np.where(norms > 0, norms, 1)
    return np.abs(values.T @ values).sum(0)


def order_genes(index, store, seed):
    """Order the genes so that those of the TF layers come first."""
    n_genes, n_tfs = store.meta["n_genes"], store.meta["n_tfs"]
    if index == "true":
        return np.arange(n_genes)
    rng = np.random.default_rng(seed)
    free = np.arange(n_tfs, n_genes)
    if index == "random":
        chosen = rng.choice(free, n_tfs, replace=False)
    else:
        degree, chosen = compute_degrees(store), []
        for tf in rng.permutation(n_tfs):
            nearest = np.abs(degree[free] - degree[tf]).argmin()
            chosen.append(free[nearest])
            free = np.delete(free, nearest)
    return np.concatenate([chosen, np.setdiff1d(np.arange(n_genes), chosen)])


def read_study(results):
    """Read the config of a finished study, its first model and the first task of that model."""
    content = json.loads((results / "provenance.json").read_text())["config"]
    model = next(iter(content["models"]))
    task = next(name for name, task in content["tasks"].items() if task["model"] == model)
    return content, model, task


def describe_study(results, study, options):
    """Describe the settings that decide the scores, besides variant and seed."""
    content, model, task = study
    tokens_of = results / "tokens" / content["models"][model]["corpus"]
    return {
        "model": content["models"][model],
        "task": content["tasks"][task],
        "folds": options.folds,
        "cells": options.cells,
        "epochs": options.epochs,
        "code": make_stamp()["version"],
        "tokens": json.loads((tokens_of / "meta.json").read_text()),
    }


def read_runs(path, described):
    """Read the finished runs of the same study, and refuse those of another."""
    if not path.exists():
        return []
    content = json.loads(path.read_text())
    if content.get("study") != described:
        sys.exit(f"{path} has runs of another study or other settings: remove it to start again.")
    return content["runs"]


def select_cells(split, n_cells):
    """Select labelled cells of a split at random, the same for all variants and seeds.

    Classes keep their shares, and at least ten cells.
    """
    labelled = split[split["fold"] != splits.PREDICTED]
    share = min(1.0, n_cells / len(labelled))
    parts = [
        cells.sample(min(len(cells), max(10, round(share * len(cells)))), random_state=0)
        for _, cells in labelled.groupby("label", observed=True)
    ]
    return pd.concat(parts).sort_index().reset_index(drop=True)


def run(results, study, variant, seed, options, folder, model_folder):
    """Pretrain, fine-tune and explain one variant with one seed; return its scores.

    The pretrained model is not made again if it is there.
    """
    content, model_name, task_name = study
    index, changes = VARIANTS[DEFAULT if variant in FINE_TUNED else variant]
    model = dict(content["models"][model_name])
    if options.epochs:
        model["training"] = model["training"] | {"epochs": options.epochs}
    task = TaskSettings(**content["tasks"][task_name] | {"seeds": [seed]})
    if variant == BATCH_GIVEN:
        changes = {"batch_key": task.split_by}
    settings = ModelSettings(**model | {"seed": seed} | changes)
    corpus = settings.corpus
    tokens, cells = results / "tokens" / corpus, Corpus(results / "corpus" / corpus)
    order = order_genes(index, TokenStore(tokens, cells), seed)
    store = ReorderedStore(tokens, cells, order)
    split = splits.read_splits(results / "finetune" / task_name / "splits.tsv")
    obs = read_cells_table(results / "corpus" / corpus / "cells.parquet")
    obs = obs[select(obs, settings.cells, "cells")]
    if options.cells is not None:
        split = select_cells(split, options.cells)
        obs = obs[obs.index.isin(split["cell"])]
    if not (model_folder / "config.json").exists():
        key = settings.batch_key
        pretraining.pretrain(
            store, store.find_rows(obs.index), settings.part(PretrainingSettings),
            model_folder,
            folder / "checkpoints",
            None if key is None else obs[key],
        )  # fmt: skip
    main = task.all_variants()[MAIN].model_copy(update=FINE_TUNED.get(variant, {}))
    encoded = encoding.encode_cells(store, split["cell"], main, model_folder)
    labelled = split[split["fold"] != splits.PREDICTED]
    found = score_vectors(store, encoded, labelled, settings)
    folds = [str(fold) for fold in range(min(options.folds, task.folds))]
    for fold in folds:
        if not (folder / fold).exists():
            finetuning.finetune_run(
                store, split, MAIN, seed, fold, main, model_folder,
                folder / fold, folder / "checkpoints", encoded,
            )  # fmt: skip
    classes = sorted(labelled["label"].unique())
    mean = predictions.MeanPredictions(split, classes)
    for fold in folds:
        mean.add(*predictions.read_run(folder / fold / "predictions.parquet", 0, split))
    predicted = mean.tabulate(MAIN).astype({"label": str, "predicted": str})
    tested = predicted[predicted["part"] == "test"]
    found["macro_f1"] = metrics.score(tested["label"], tested["predicted"])["macro_f1"]
    truth = results / "simulation" / "truth"
    if truth.exists():
        found["fate_macro_f1"] = score_fates(predicted, truth)
        found |= compute_driver_ranks(
            store, store.vocabulary, folder, model_folder, folds, task, truth, split
        )
    return found


def score_vectors(store, encoded, labelled, settings):
    """Score the cell vectors of labelled cells as an embedding."""
    vectors = encoded.read(labelled["cell"], 0)[:, : settings.cell_width]
    labels = labelled["label"].astype(str).to_numpy()
    depths = store.totals(store.find_rows(labelled["cell"]))[0]
    return {
        "neighbour_accuracy": embeddings.neighbour_accuracy(vectors, labels),
        "depth_r2_within": embeddings.library_size_r2_within(vectors, depths, labels),
    }


def score_fates(predictions, truth):
    """Compute the macro-F1 of the progenitors' predicted fates."""
    cells = pd.read_csv(truth / "cells.tsv", sep="\t")
    cells.index = cells["sample"] + "_" + cells["barcode"]
    cells = cells[(cells["is_doublet"] == 0) & (cells["state"] == "progenitor")]
    fates = predictions[predictions["part"] == "predict"].set_index("cell")["predicted"]
    fates = fates[fates.index.isin(cells.index)]
    return metrics.score(cells.loc[fates.index, "fate"], fates)["macro_f1"]


def compute_driver_ranks(store, genes, folder, model_folder, folds, task, truth, split):
    """Compute the ranks of the true drivers by the attributions of the folds' models."""
    table, _ = runs.explain_task(
        store,
        genes.reset_index(drop=True),
        [folder / fold for fold in folds],
        model_folder,
        task,
    )
    drivers = pd.read_csv(truth / "drivers.tsv", sep="\t")
    drivers = drivers[drivers["fate"].isin(table["class"])]
    label = split[split["fold"] != splits.PREDICTED].set_index("cell")["label"]
    cells = rankings.read_compared_cells(store.corpus, label, task.seed)
    ranks = score_drivers({"": rankings.attribution_ranking(table, cells)}, drivers)
    return {name: ranks[f"drivers.{name}"] for name in ("recall20", "tf_auroc")}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="results of a finished study")
    parser.add_argument("--seeds", type=int, default=3, help="seeds per variant (3)")
    parser.add_argument("--folds", type=int, default=2, help="folds fine-tuned and scored (2)")
    parser.add_argument(
        "--true-index", action="store_true", help="only the variants with the true TF index"
    )
    parser.add_argument("--cells", type=int, help="cells of the task, at random (all)")
    parser.add_argument("--epochs", type=int, help="epochs of pretraining (as in the config)")
    parser.add_argument(
        "--variants", nargs="+", choices=[*VARIANTS, *FINE_TUNED], help="all if not given"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, required=True, help="JSON of all scores")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    study = read_study(options.results)
    described = describe_study(options.results, study, options)
    done = read_runs(options.output, described)
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    folder_of_all = options.results / "ablations" / digest[:8]
    variants = options.variants or [
        name for name, (index, _) in VARIANTS.items() if index == "true" or not options.true_index
    ]
    variants += [] if options.variants else list(FINE_TUNED)
    if not described["task"]["split_by"]:
        logging.info("the cells of the task have no units, so '%s' is left out", BATCH_GIVEN)
        variants = [variant for variant in variants if variant != BATCH_GIVEN]
    for seed in range(1, options.seeds + 1):
        for variant in variants:
            if any((r["variant"], r["seed"]) == (variant, seed) for r in done):
                continue
            folder = folder_of_all / variant.replace(" ", "_") / str(seed)
            folder.mkdir(parents=True, exist_ok=True)
            of = DEFAULT if variant in FINE_TUNED else variant
            model_folder = folder_of_all / of.replace(" ", "_") / str(seed) / "model"
            found = run(options.results, study, variant, seed, options, folder, model_folder)
            done.append({"variant": variant, "seed": seed, **found})
            write_json(options.output, {"study": described, "runs": done})
            print(done[-1], flush=True)


if __name__ == "__main__":
    main()
