"""Whether attributions tell of the model: randomisation, deletion and insertion of genes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from scdyn.data.loader import MemoryStore, densify
from scdyn.data.tokens import NOT_MEASURED, TokenStore
from scdyn.explain.attribution_tables import rank_correlation
from scdyn.explain.matching import matched_genes
from scdyn.explain.runs import Store, correct_cells, explain_run, read_run, rows_by_class
from scdyn.io.files import Json
from scdyn.log import logger
from scdyn.model.classifier import Classifier, run_classifier
from scdyn.model.pretrained import load_model
from scdyn.settings import CheckSettings
from scdyn.tasks.finetuning import fit_classifier
from scdyn.tasks.splits import parts
from scdyn.training.devices import choose_device
from scdyn.training.loop import TrainingConfig

# How many of the best genes are deleted or kept.
NUMBERS_OF_GENES = (1, 2, 5, 10, 20, 50, 100, 200)
# Draws of random genes that the curves are compared with.
N_RANDOM = 3
# Cells a class that a model learns permuted labels of.
MEMORISED_CELLS = 50
# Most classes that are checked, the commonest: the work would grow with their square.
CHECKED_CLASSES = 6


def cascade(
    classifier: Classifier, seed: int, n_groups: int = 3
) -> Iterator[tuple[str, Classifier]]:
    """Draw a classifier's parameters anew from the top down, step by step (Adebayo et al. 2018).

    Parameters
    ----------
    classifier
        Merged; left as it is.
    seed
        Of the new parameters.
    n_groups
        Into how many groups the layers are parted.

    Yields
    ------
    name : str
        What was randomised last; all before it stays so.
    classifier : Classifier
    """
    torch.manual_seed(seed)
    fresh = deepcopy(classifier)
    with torch.no_grad():
        fresh.encoder.initialise()
        for module in fresh.head.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
    n_layers = len(classifier.encoder.layers)
    groups = [part.tolist() for part in np.array_split(np.arange(n_layers)[::-1], n_groups)]
    steps = {"head": ["head."]}
    for group in filter(None, groups):
        name = f"layer {group[0] + 1}" + (f" to {group[-1] + 1}" if len(group) > 1 else "")
        steps[name] = [f"encoder.layers.{i}." for i in group]
    steps["embeddings"] = [""]  # whatever is left
    copy = deepcopy(classifier)
    weights, drawn = copy.state_dict(), fresh.state_dict()
    for name, prefixes in steps.items():
        weights |= {key: value for key, value in drawn.items() if key.startswith(tuple(prefixes))}
        copy.load_state_dict(weights)
        yield name, copy.eval()


def model_of_permuted_labels(
    store: Store,
    learned: pd.DataFrame,
    rows: np.ndarray,
    settings: CheckSettings,
    model_folder: str | Path,
) -> tuple[Classifier, float]:
    """Fine-tune a model on labels exchanged at random among a few cells.

    Parameters
    ----------
    store
        Tokens.
    learned, rows
        Training cells with their ``label``, and where they stand in the store.
    settings
        How an explanation is checked.
    model_folder
        The pretrained model.

    Returns
    -------
    classifier : Classifier
        Merged.
    accuracy : float
        On the cells that it has learned: how far it knows the permuted labels by heart.
    """
    seed = settings.seed
    places = pd.Series(np.arange(len(rows))).groupby(learned["label"].to_numpy())
    few = np.concatenate(
        [part.sample(min(MEMORISED_CELLS, len(part)), random_state=seed) for _, part in places]
    )
    labels = np.random.default_rng(seed).permutation(learned["label"].to_numpy()[few])
    config = TrainingConfig(seed=seed, **settings.training.model_dump())
    model = load_model(model_folder).to(choose_device())
    classifier, _ = fit_classifier(model, store, rows[few], labels, settings, config)
    classifier = classifier.merge().eval()
    p, _ = run_classifier(classifier, store, rows[few])
    called = np.array(classifier.classes)[p.argmax(1)]
    return classifier, float((called == labels).mean())


def randomisation(
    classifier: Classifier,
    permuted: Classifier,
    store: Store,
    rows: Mapping[str, np.ndarray],
    settings: CheckSettings,
) -> Json:
    """Correlate a model's attributions with those of models that have not learned the labels.

    Parameters
    ----------
    classifier, permuted
        The model, and one of :func:`model_of_permuted_labels`.
    store, rows
        Tokens, and class to the cells to explain.
    settings
        How an explanation is checked.

    Returns
    -------
    dict
        ``cascade``: in order, ``down_to`` (what was randomised last) and ``correlation`` (by
        class); ``labels``: the correlation by class. About 0 is good.
    """
    own, _ = explain_run(classifier, store, rows, settings, refine=False)
    survived = []
    for name, randomised in cascade(classifier, settings.seed):
        run, _ = explain_run(randomised, store, rows, settings, refine=False)
        survived.append({"down_to": name, "correlation": rank_correlation(own, run)})
        logger.info("randomised from the head down to %s: correlation %s", *survived[-1].values())
    run, _ = explain_run(permuted, store, rows, settings, refine=False)
    return {"cascade": survived, "labels": rank_correlation(own, run)}


def silence(bins: Tensor, genes: np.ndarray) -> Tensor:
    """Set genes' bins (cells, G) to zero where they were measured, in a copy."""
    bins = bins.clone()
    part = bins[:, genes]
    bins[:, genes] = torch.where(part == NOT_MEASURED, part, torch.zeros_like(part))
    return bins


def mean_bins(store: Store, rows: np.ndarray) -> np.ndarray:
    """Mean RNA bin plus mean promoter bin of each gene over some cells: (genes,)."""
    rna, promoter = store.read(rows)
    return np.asarray(rna.mean(0) + promoter.mean(0)).ravel()


def deletion_curves(
    classifier: Classifier,
    store: Store,
    rows: Mapping[str, np.ndarray],
    rankings: Mapping[str, Mapping[str, np.ndarray]],
    seed: int,
) -> pd.DataFrame:
    """Probability of the class as its best genes are silenced, or all others.

    Deletion and insertion curves (Petsiuk et al. 2018) with the zero bin as what is left.

    Parameters
    ----------
    classifier
        Merged.
    store, rows
        Tokens, and class to its cells.
    rankings
        Ranking to class to all genes, best first. "attribution" is matched by expression.
    seed
        Of the random genes.

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
        expression = mean_bins(store, chosen)
        orders = {ranking: [of_class[name]] for ranking, of_class in rankings.items()}
        n_genes = len(expression)
        sizes = [0, *(n for n in NUMBERS_OF_GENES if n <= n_genes // 2)]
        best = rankings["attribution"][name][: sizes[-1]]
        orders["random"] = [rng.permutation(n_genes) for _ in range(N_RANDOM)]
        orders["matched"] = [matched_genes(expression, best, rng) for _ in range(N_RANDOM)]
        target = classifier.classes.index(name)
        for ranking, draws in orders.items():
            for size in sizes:
                top = [order[:size] for order in draws]
                rest = [np.setdiff1d(np.arange(n_genes), genes) for genes in top]
                for what, silenced in (("deletion", top), ("insertion", rest)):
                    p = [
                        run_classifier(
                            classifier,
                            MemoryStore.from_bins(silence(rna, genes), silence(promoter, genes)),
                            np.arange(len(chosen)),
                        )[0]
                        for genes in silenced
                    ]
                    mean = float(np.mean([part[:, target].mean() for part in p]))
                    result.append((name, ranking, what, size, mean, len(chosen)))
    columns = ["class", "ranking", "what", "n_genes", "probability", "n_cells"]
    return pd.DataFrame(result, columns=columns)


def gene_orders(rankings: pd.DataFrame, genes: pd.Index) -> dict[str, dict[str, np.ndarray]]:
    """Ranking to class to positions of all genes, best first; genes without a score last.

    Parameters
    ----------
    rankings
        ``class``, ``gene_id`` and a column of scores a ranking.
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


def mean_over_runs(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Average several runs' curves, each cell counting alike."""
    keys = ["class", "ranking", "what", "n_genes"]
    table = pd.concat(tables)
    table["probability"] *= table["n_cells"]
    table = table.groupby(keys, sort=False).sum().reset_index()
    table["probability"] /= table["n_cells"]
    return table


def areas(curves: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Mean probability over the numbers of genes, and the classes: what to ranking to value."""
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
    """Check a task's attributions: randomisation by the first run, deletion by all of them.

    In cells of the six commonest classes.

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
        How an explanation is checked.

    Returns
    -------
    checks : dict
        ``cascade_correlation``, ``label_correlation``, ``label_fit`` (see
        :func:`randomisation` and :func:`model_of_permuted_labels`),
        ``randomised_correlation`` (the cascade's last, by class) and ``areas``.
    curves : DataFrame
        As :func:`deletion_curves`.
    """
    seed = settings.seed
    per_run = int(np.ceil(settings.checked_cells / len(folders)))
    orders = gene_orders(rankings, pd.Index(genes["gene_id"]))
    checks: Json = {}
    curves = []
    for folder in folders:
        classifier, calls, description = read_run(folder, model_folder, store)
        common = calls.loc[calls["part"] == "test", "label"].value_counts().index
        common = common[common.isin(rankings["class"])][:CHECKED_CLASSES]
        cells = correct_cells(calls[calls["label"].isin(common)], settings.checked_cells, seed)
        rows = rows_by_class(store, cells)
        if len(rows) < 2:
            continue
        if not checks:
            learned, _, _ = parts(splits, str(description["fold"]))
            permuted, fit = model_of_permuted_labels(
                store, learned, store.find_rows(learned["cell"]), settings, model_folder
            )
            found = randomisation(classifier, permuted, store, rows, settings)
            checks = {
                "cascade_correlation": found["cascade"],
                "label_correlation": found["labels"],
                "label_fit": fit,
                "randomised_correlation": found["cascade"][-1]["correlation"],
            }
        few = {name: part[:per_run] for name, part in rows.items()}
        curves.append(deletion_curves(classifier, store, few, orders, seed))
    table = mean_over_runs(curves)
    return checks | {"areas": areas(table)}, table
