"""What the TF index and the anchored latents are worth: ``make ablations``.

Four variants of a study's model, each with several seeds, are pretrained, fine-tuned and, where
the truth is known, explained, all else being as the study's config has it. The study has been
run by the workflow before: its tokens, GRN and splits are used. What is done is kept, so that
a stopped run goes on. It needs 3 to 10 minutes of two cores a variant and seed.

In the variants whose TF index is not true, as many genes that are no TFs stand where the TFs
stood: the model's TF layers read these. They are drawn at random, or one for each TF with the
nearest degree, which is a gene's sum of absolute correlations with all genes over the cells.
"""

import argparse
import json
import logging
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from scdyn.data import tokens
from scdyn.explain import runs
from scdyn.io.files import write_json
from scdyn.pp import reference
from scdyn.settings import MAIN, ModelSettings, PretrainingSettings, TaskSettings
from scdyn.tasks import evaluation, finetuning, metrics, rankings, splits
from scdyn.tasks.truth import score_drivers
from scdyn.training import pretraining

# Name: (TF index, start of the Full layers' projection).
VARIANTS = {
    "true index, regulon projection": ("true", "regulon"),
    "true index, random projection": ("true", "random"),
    "random index, random projection": ("random", "random"),
    "degree-matched index, random projection": ("degree", "random"),
}


class ReorderedStore(tokens.TokenStore):
    """Tokens whose genes come in another order."""

    def __init__(self, folder, order):
        super().__init__(folder)
        self.order = order

    def read(self, rows=None):
        return tuple(bins[:, self.order] for bins in super().read(rows))


def degrees(store):
    """Sum of a gene's absolute correlations with all genes, RNA and promoter bins added."""
    rna, promoter = store.read()
    values = (rna.astype(np.float32) + promoter.astype(np.float32)).toarray()
    values -= values.mean(0)
    norms = np.linalg.norm(values, axis=0)
    values /= np.where(norms > 0, norms, 1)
    return np.abs(values.T @ values).sum(0)


def gene_order(index, store, seed):
    """Order of the genes in which those that the TF layers are to read come first."""
    n_genes, n_tfs = store.meta["n_genes"], store.meta["n_tfs"]
    if index == "true":
        return np.arange(n_genes)
    rng = np.random.default_rng(seed)
    free = np.arange(n_tfs, n_genes)
    if index == "random":
        chosen = rng.choice(free, n_tfs, replace=False)
    else:
        degree, chosen = degrees(store), []
        for tf in rng.permutation(n_tfs):
            nearest = np.abs(degree[free] - degree[tf]).argmin()
            chosen.append(free[nearest])
            free = np.delete(free, nearest)
    return np.concatenate([chosen, np.setdiff1d(np.arange(n_genes), chosen)])


def read_study(results):
    """Config of a study that was run, its first model and the first task of that model."""
    content = json.loads((results / "provenance.json").read_text())["config"]
    model = next(iter(content["models"]))
    task = next(name for name, task in content["tasks"].items() if task["model"] == model)
    return content, model, task


def description(results, study, n_folds):
    """What decides the scores besides variant and seed, to be kept with them."""
    content, model, task = study
    tokens_of = results / "tokens" / content["models"][model]["corpus"]
    return {
        "model": content["models"][model],
        "task": content["tasks"][task],
        "folds": n_folds,
        "tokens": json.loads((tokens_of / "meta.json").read_text()),
    }


def read_runs(path, described):
    """Runs done before, of the same study; those of another are not gone on with."""
    if not path.exists():
        return []
    content = json.loads(path.read_text())
    if content.get("study") != described:
        sys.exit(f"{path} holds runs of another study or other settings: remove it to start anew.")
    return content["runs"]


def run(results, study, variant, seed, n_folds, folder):
    """Pretrain, fine-tune and explain one variant with one seed; return its scores."""
    content, model_name, task_name = study
    index, projection = VARIANTS[variant]
    changed = {"seed": seed, "projection_init": projection}
    settings = ModelSettings(**content["models"][model_name] | changed)
    task = TaskSettings(**content["tasks"][task_name] | {"seeds": [seed]})
    corpus = settings.corpus
    plain = tokens.TokenStore(results / "tokens" / corpus)
    order = gene_order(index, plain, seed)
    store = ReorderedStore(results / "tokens" / corpus, order)
    genes = reference.read_vocabulary(results / "tokens" / corpus / "vocabulary.tsv")
    table = pd.read_csv(results / "grn" / corpus / "regulons.tsv", sep="\t")
    split = splits.read_splits(results / "finetune" / task_name / "splits.tsv")
    rows = store.find_rows(learnable(results, corpus, settings))
    if not (folder / "model" / "config.json").exists():
        pretraining.pretrain(
            store, rows, tokens.regulon_weights(genes, table).iloc[:, order],
            genes.iloc[order].reset_index(drop=True), settings.part(PretrainingSettings),
            folder / "model",
            folder / "checkpoints",
        )  # fmt: skip
    pretrained = json.loads((folder / "model" / "scores.json").read_text())
    found = {"masked_loss": pretrained["masked_loss"]}
    main = task.all_variants()[MAIN]
    folds = [str(fold) for fold in range(min(n_folds, task.folds))]
    for fold in folds:
        if not (folder / fold).exists():
            finetuning.finetune_run(
                store, split, MAIN, seed, fold, main, folder / "model",
                folder / fold, folder / "checkpoints",
            )  # fmt: skip
    tables = [evaluation.read_predictions(folder / fold / "predictions.tsv") for fold in folds]
    calls = evaluation.combine(pd.concat(tables))
    tested = calls[calls["part"] == "test"]
    found["macro_f1"] = metrics.score(tested["label"], tested["predicted"])["macro_f1"]
    truth = results / "simulation" / "truth"
    if truth.exists():
        found["fate_macro_f1"] = fate_score(calls, truth)
        found |= driver_scores(store, genes.iloc[order], folder, folds, task, truth)
    return found


def fate_score(calls, truth):
    """Macro-F1 of the progenitors' calls against the fates they reach."""
    cells = pd.read_csv(truth / "cells.tsv", sep="\t")
    cells.index = cells["sample"] + "_" + cells["barcode"]
    cells = cells[(cells["is_doublet"] == 0) & (cells["state"] == "progenitor")]
    called = calls[calls["part"] == "predict"].set_index("cell")["predicted"]
    called = called[called.index.isin(cells.index)]
    return metrics.score(cells.loc[called.index, "fate"], called)["macro_f1"]


def learnable(results, corpus, settings):
    """Names of the cells that the model learns from."""
    from scdyn.pp.metadata import read_cells_table
    from scdyn.pp.selection import select

    obs = read_cells_table(results / "corpus" / f"{corpus}.cells.tsv")
    return obs.index[select(obs, settings.cells, "cells")]


def driver_scores(store, genes, folder, folds, task, truth):
    """Rank the true drivers by the attributions of the folds' models."""
    table, _ = runs.explain_task(
        store,
        genes.reset_index(drop=True),
        [folder / fold for fold in folds],
        folder / "model",
        task,
    )
    drivers = pd.read_csv(truth / "drivers.tsv", sep="\t")
    drivers = drivers[drivers["fate"].isin(table["class"])]
    ranks = score_drivers({"": rankings.attribution_ranking(table)}, drivers)
    return {name: ranks[f"drivers.{name}"] for name in ("recall20", "tf_auroc")}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="results of a study that has been run")
    parser.add_argument("--seeds", type=int, default=3, help="seeds a variant (3)")
    parser.add_argument("--folds", type=int, default=2, help="folds fine-tuned and scored (2)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, required=True, help="JSON of all scores")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    study = read_study(options.results)
    described = description(options.results, study, options.folds)
    done = read_runs(options.output, described)
    for seed in range(1, options.seeds + 1):
        for variant in VARIANTS:
            if any((r["variant"], r["seed"]) == (variant, seed) for r in done):
                continue
            folder = options.results / "ablations" / variant.replace(" ", "_") / str(seed)
            folder.mkdir(parents=True, exist_ok=True)
            found = run(options.results, study, variant, seed, options.folds, folder)
            done.append({"variant": variant, "seed": seed, **found})
            write_json(options.output, {"study": described, "runs": done})
            print(done[-1], flush=True)


if __name__ == "__main__":
    main()
