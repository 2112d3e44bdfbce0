"""Sanity checks of attributions: randomisation of the model, deletion and insertion of genes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from scdyn.data.loader import MemoryStore, Store, densify
from scdyn.data.tokens import TokenStore
from scdyn.explain.attribution_tables import rank_correlation
from scdyn.explain.matching import draw_matched_genes
from scdyn.explain.runs import draw_correct_cells, explain_run, find_rows_by_class, read_run
from scdyn.io.files import Json
from scdyn.log import logger
from scdyn.model.adapters import reinitialise
from scdyn.model.classifier import Classifier, MarkerGenes, run_classifier
from scdyn.model.layers import Pool
from scdyn.model.pretrained import load_model
from scdyn.model.transformer import log_normalise
from scdyn.settings import CheckSettings
from scdyn.tasks.finetuning import configure_training, fit_classifier
from scdyn.tasks.splits import split_cells
from scdyn.training.devices import choose_device

# Numbers of top genes that are deleted or kept.
NUMBERS_OF_GENES = (1, 2, 5, 10, 20, 50, 100, 200)
# Number of draws of random genes for the baseline curves.
N_RANDOM = 3
# Training cells per class for the model of permuted labels.
MEMORISED_CELLS = 50
# Largest number of classes that are checked; the cost grows with its square.
CHECKED_CLASSES = 6


def randomise_cascade(
    classifier: Classifier, seed: int, n_groups: int = 3
) -> Iterator[tuple[str, Classifier]]:
    """Randomise a classifier's parameters layer by layer, from the head (Adebayo et al. 2018).

    Marker genes, which the labels have chosen, are replaced by random genes. Principal components,
    which are not trained, stay.

    Parameters
    ----------
    classifier
        Merged; not changed.
    seed
        Seed of the new parameters.
    n_groups
        Number of groups of layers.

    Yields
    ------
    name : str
        The part that was randomised last; earlier parts stay randomised.
    classifier : Classifier
    """
    torch.manual_seed(seed)
    randomised = deepcopy(classifier)
    with torch.no_grad():
        randomised.encoder.initialise()
        for module in randomised.head.modules():
            if isinstance(module, nn.Linear | Pool):
                module.reset_parameters()
            elif isinstance(module, MarkerGenes):
                module.randomise(classifier.encoder.config.n_genes)
    n_layers = len(classifier.encoder.layers)
    groups = [part.tolist() for part in np.array_split(np.arange(n_layers)[::-1], n_groups)]
    steps = {"head": ["head."]}
    for group in filter(None, groups):
        name = f"layer {group[0] + 1}" + (f" to {group[-1] + 1}" if len(group) > 1 else "")
        steps[name] = [f"encoder.layers.{i}." for i in group]
    steps["embeddings"] = [""]  # all remaining parameters
    copy = deepcopy(classifier)
    weights, random = copy.state_dict(), randomised.state_dict()
    for name, prefixes in steps.items():
        weights |= {key: value for key, value in random.items() if key.startswith(tuple(prefixes))}
        copy.load_state_dict(weights)
        yield name, copy.eval()


def fit_permuted_labels(
    store: Store,
    training: pd.DataFrame,
    rows: np.ndarray,
    settings: CheckSettings,
    model_folder: str | Path,
) -> tuple[Classifier, float]:
    """Fine-tune a model on randomly permuted labels of a few cells.

    Parameters
    ----------
    store
        Tokens.
    training, rows
        Training cells with their ``label``, and their rows in the store.
    settings
        Settings of the checks.
    model_folder
        The pretrained model.

    Returns
    -------
    classifier : Classifier
        Merged.
    accuracy : float
        On its training cells: how well it has memorised the permuted labels.
    """
    seed = settings.seed
    places = pd.Series(np.arange(len(rows))).groupby(training["label"].to_numpy())
    few = np.concatenate(
        [part.sample(min(MEMORISED_CELLS, len(part)), random_state=seed) for _, part in places]
    )
    labels = np.random.default_rng(seed).permutation(training["label"].to_numpy()[few])
    model = load_model(model_folder)
    if not settings.pretrained:
        model = reinitialise(model, seed)
    model.to(choose_device())
    config = configure_training(model, settings, seed)
    classifier, _ = fit_classifier(model, store, rows[few], labels, settings, config)
    classifier = classifier.merge().eval()
    p, _ = run_classifier(classifier, store, rows[few])
    predicted = np.array(classifier.classes)[p.argmax(1)]
    return classifier, float((predicted == labels).mean())


def check_randomisation(
    classifier: Classifier,
    permuted: Classifier,
    store: Store,
    rows: Mapping[str, np.ndarray],
    settings: CheckSettings,
) -> Json:
    """Correlate a model's attributions with those of randomised models.

    Parameters
    ----------
    classifier, permuted
        The model, and one of :func:`fit_permuted_labels`.
    store, rows
        Tokens, and class to the cells to explain.
    settings
        Settings of the checks.

    Returns
    -------
    dict
        ``cascade``: in order, ``down_to`` (the part randomised last) and ``correlation`` (by
        class); ``labels``: the correlation by class. Values near 0 are good.
    """
    own, _ = explain_run(classifier, store, rows, settings, refine=False)
    correlations = []
    for name, randomised in randomise_cascade(classifier, settings.seed):
        run, _ = explain_run(randomised, store, rows, settings, refine=False)
        correlations.append({"down_to": name, "correlation": rank_correlation(own, run)})
        logger.info("randomised from the head to %s: correlation %s", *correlations[-1].values())
    run, _ = explain_run(permuted, store, rows, settings, refine=False)
    return {"cascade": correlations, "labels": rank_correlation(own, run)}


def silence(counts: Tensor, genes: np.ndarray) -> Tensor:
    """Return a copy of counts (cells, G) with the measured counts of some genes set to zero."""
    counts = counts.clone()
    counts[:, genes] = counts[:, genes].clamp(max=0)
    return counts


def average_expression(rna: Tensor, promoter: Tensor) -> np.ndarray:
    """Average the log-normalised counts (cells, G) of both modalities and add them: (genes,)."""
    means = torch.zeros(rna.shape[1])
    for counts in (rna, promoter):
        known = counts.clamp(min=0).float()
        totals = known.sum(1)
        means += log_normalise(known, totals, totals.median()).mean(0)
    return means.numpy()


def compute_deletion_curves(
    classifier: Classifier,
    store: Store,
    rows: Mapping[str, np.ndarray],
    rankings: Mapping[str, Mapping[str, np.ndarray]],
    seed: int,
) -> pd.DataFrame:
    """Compute the class probability when its top genes, or all other genes, are silenced.

    Deletion and insertion curves (Petsiuk et al. 2018); counts of silenced genes are set to zero.

    Parameters
    ----------
    classifier
        Merged.
    store, rows
        Tokens, and class to its cells.
    rankings
        Ranking to class to all genes, best first. Random genes with expression matched to those of
        "attribution" are added as "matched".
    seed
        Seed of the random genes.

    Returns
    -------
    DataFrame
        ``class``, ``ranking`` (those given, "random", "matched"), ``what`` ("deletion",
        "insertion"), ``n_genes``, ``probability`` (mean over cells and draws), ``n_cells``.
    """
    rng = np.random.default_rng(seed)
    result = []
    for name, chosen in rows.items():
        rna, promoter = densify(store, chosen)
        expression = average_expression(rna, promoter)
        orders = {ranking: [of_class[name]] for ranking, of_class in rankings.items()}
        n_genes = len(expression)
        sizes = [0, *(n for n in NUMBERS_OF_GENES if n <= n_genes // 2)]
        best = rankings["attribution"][name][: sizes[-1]]
        orders["random"] = [rng.permutation(n_genes) for _ in range(N_RANDOM)]
        orders["matched"] = [draw_matched_genes(expression, best, rng) for _ in range(N_RANDOM)]
        target = classifier.classes.index(name)
        for ranking, draws in orders.items():
            for size in sizes:
                top = [order[:size] for order in draws]
                rest = [np.setdiff1d(np.arange(n_genes), genes) for genes in top]
                for what, silenced in (("deletion", top), ("insertion", rest)):
                    p = [
                        run_classifier(
                            classifier,
                            MemoryStore.from_dense(silence(rna, genes), silence(promoter, genes)),
                            np.arange(len(chosen)),
                        )[0]
                        for genes in silenced
                    ]
                    mean = float(np.mean([part[:, target].mean() for part in p]))
                    result.append((name, ranking, what, size, mean, len(chosen)))
    columns = ["class", "ranking", "what", "n_genes", "probability", "n_cells"]
    return pd.DataFrame(result, columns=columns)


def order_genes(rankings: pd.DataFrame, genes: pd.Index) -> dict[str, dict[str, np.ndarray]]:
    """Order genes by each ranking and class: positions, best first; without a score last.

    Parameters
    ----------
    rankings
        ``class``, ``gene_id`` and one column of scores per ranking.
    genes
        Gene ids of the vocabulary.
    """
    names = [name for name in rankings if name not in ("class", "gene_id", "symbol", "is_tf")]
    orders: dict[str, dict[str, np.ndarray]] = {name: {} for name in names}
    for label, part in rankings.groupby("class"):
        part = part.set_index("gene_id").reindex(genes)
        for name in names:
            scores = part[name].fillna(-np.inf).to_numpy()
            orders[name][str(label)] = np.argsort(-scores, kind="stable")
    return orders


def average_curves(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Average the curves of several runs, weighted by their numbers of cells."""
    keys = ["class", "ranking", "what", "n_genes"]
    table = pd.concat(tables)
    table["probability"] *= table["n_cells"]
    table = table.groupby(keys, sort=False).sum().reset_index()
    table["probability"] /= table["n_cells"]
    return table


def compute_areas(curves: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Average the probability over numbers of genes and classes: curve to ranking to value."""
    table = curves[curves["n_genes"] > 0].groupby(["what", "ranking"])["probability"].mean()
    return {what: table[what].to_dict() for what in ("deletion", "insertion")}


def check_task(
    store: TokenStore,
    genes: pd.DataFrame,
    splits: pd.DataFrame,
    rankings: pd.DataFrame,
    folders: Sequence[str | Path],
    model_folder: str | Path,
    settings: CheckSettings,
) -> tuple[Json, pd.DataFrame]:
    """Check a task's attributions: randomisation of the first run, deletion in all runs.

    Only the six most common classes are checked.

    Parameters
    ----------
    store, genes
        Tokens and vocabulary.
    splits
        The task's split.
    rankings
        As :func:`scdyn.explain.drivers.rankings_table`.
    folders, model_folder
        As :func:`scdyn.explain.runs.explain_task`.
    settings
        Settings of the checks.

    Returns
    -------
    checks : dict
        ``cascade_correlation``, ``label_correlation``, ``label_fit`` (see
        :func:`check_randomisation` and :func:`fit_permuted_labels`),
        ``randomised_correlation`` (the cascade's last, by class) and ``areas``.
    curves : DataFrame
        As :func:`compute_deletion_curves`.
    """
    seed = settings.seed
    per_run = int(np.ceil(settings.checked_cells / len(folders)))
    orders = order_genes(rankings, pd.Index(genes["gene_id"]))
    checks: Json = {}
    curves = []
    for folder in folders:
        classifier, predictions, description = read_run(folder, model_folder, store)
        common = predictions.loc[predictions["part"] == "test", "label"].value_counts().index
        common = common[common.isin(rankings["class"])][:CHECKED_CLASSES]
        cells = draw_correct_cells(
            predictions[predictions["label"].isin(common)], settings.checked_cells, seed
        )
        rows = find_rows_by_class(store, cells)
        if len(rows) < 2:
            continue
        if not checks:
            training, _, _ = split_cells(splits, str(description["fold"]))
            permuted, fit = fit_permuted_labels(
                store, training, store.find_rows(training["cell"]), settings, model_folder
            )
            found = check_randomisation(classifier, permuted, store, rows, settings)
            checks = {
                "cascade_correlation": found["cascade"],
                "label_correlation": found["labels"],
                "label_fit": fit,
                "randomised_correlation": found["cascade"][-1]["correlation"],
            }
        few = {name: part[:per_run] for name, part in rows.items()}
        curves.append(compute_deletion_curves(classifier, store, few, orders, seed))
    table = average_curves(curves)
    return checks | {"areas": compute_areas(table)}, table
