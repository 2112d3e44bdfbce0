"""In-silico perturbation: genes silenced or raised in real cells, and what the model says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from scdyn.data.loader import MemoryStore, densify
from scdyn.data.tokens import NOT_MEASURED, TokenStore
from scdyn.errors import InputError
from scdyn.explain.checks import mean_bins, silence
from scdyn.explain.matching import matched_genes
from scdyn.explain.runs import Store, correct_cells, read_run, rows_by_class
from scdyn.model.classifier import Classifier, run_classifier
from scdyn.model.embedding import embed
from scdyn.pp.selection import select
from scdyn.settings import EditSettings, InSilicoSettings, MeasuredKnockout

# A raised gene gets this quantile of its own bins that are not zero.
HIGH_QUANTILE = 0.95
# Cells of a measured knockout, and of its control, that are compared.
MEASURED_CELLS = 50


@dataclass(frozen=True)
class Edit:
    """Genes that are set to a value together.

    Attributes
    ----------
    name
        A gene's symbol or a regulon's name.
    genes
        Positions in the vocabulary: the gene, or the regulon's TF and targets.
    raised
        To their high bin; else to their zero bin.
    only_in
        The class whose cells it is tried in; all if None.
    """

    name: str
    genes: tuple[int, ...]
    raised: bool = False
    only_in: str | None = None


def find_edit(
    name: str, raised: bool, genes: pd.DataFrame, regulons: Mapping[str, set[str]]
) -> Edit:
    """Find what a name of the config means: a regulon or a gene's symbol.

    Raises
    ------
    InputError
        If it is neither.
    """
    members = regulons.get(name, {name})
    places = np.flatnonzero(genes["symbol"].isin(members))
    if len(places) == 0:
        raise InputError(
            "EXPLAIN", f"in_silico: '{name}' is neither a gene's symbol nor a regulon."
        )
    return Edit(name, tuple(places.tolist()), raised)


def default_edits(rankings: pd.DataFrame, genes: pd.DataFrame, n_drivers: int) -> list[Edit]:
    """Silence the TFs of highest specificity of each class, in its cells."""
    tfs = rankings[rankings["is_tf"]].sort_values("attribution", ascending=False, kind="stable")
    best = tfs.groupby("class").head(n_drivers).sort_values("class", kind="stable")
    return [
        replace(find_edit(symbol, False, genes, {}), only_in=label)
        for symbol, label in zip(best["symbol"], best["class"], strict=True)
    ]


def edits_of(
    settings: EditSettings,
    rankings: pd.DataFrame,
    genes: pd.DataFrame,
    regulons: Mapping[str, set[str]],
) -> list[Edit]:
    """All that is edited: the drivers, and what the config's ``in_silico`` names."""
    edits = default_edits(rankings, genes, settings.n_drivers)
    names = [(name, False) for name in settings.silenced]
    names += [(name, True) for name in settings.raised]
    if settings.measured:
        names.append((settings.measured.silenced, False))
    named = [find_edit(name, raised, genes, regulons) for name, raised in names]
    tried = {(edit.genes, edit.raised) for edit in named}
    return [*(e for e in edits if (e.genes, e.raised) not in tried), *dict.fromkeys(named)]


def high_bins(bins: Tensor) -> Tensor:
    """A high value of each gene: a quantile of its bins that are not zero; (cells, G) to (G,)."""
    values = bins.numpy().astype(float)
    values[(values == 0) | (values == NOT_MEASURED)] = np.nan
    seen = ~np.isnan(values).all(0)
    high = np.ones(values.shape[1])
    high[seen] = np.nanquantile(values[:, seen], HIGH_QUANTILE, axis=0, method="nearest")
    return torch.from_numpy(high).to(bins.dtype)


def apply(edit: Edit, bins: Tensor, high: Tensor) -> Tensor:
    """Set an edit's genes in bins (cells, G), where these were measured."""
    genes = np.array(edit.genes)
    if not edit.raised:
        return silence(bins, genes)
    bins = bins.clone()
    part = bins[:, genes]
    bins[:, genes] = torch.where(part == NOT_MEASURED, part, high[genes].expand_as(part))
    return bins


class Cells:
    """Cells of which edits are tried: their bins, probabilities and embedding as they are.

    Parameters
    ----------
    classifier
        Merged.
    store, rows
        The cells.
    all_rows
        Cells of all classes, which tell what a high value is; ``rows`` if None.
    """

    def __init__(
        self,
        classifier: Classifier,
        store: Store,
        rows: np.ndarray,
        all_rows: np.ndarray | None = None,
    ) -> None:
        self.classifier = classifier
        self.bins = densify(store, rows)
        self.expression = mean_bins(store, rows)
        others = self.bins if all_rows is None else densify(store, all_rows)
        self.high = [high_bins(bins) for bins in others]
        self.p, self.embedding = self.read(*self.bins)

    def read(self, rna: Tensor, promoter: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (cells, classes) and embedding (cells, dimensions) of some bins."""
        model = self.classifier.encoder
        store, rows = MemoryStore.from_bins(rna, promoter), np.arange(len(rna))
        return run_classifier(self.classifier, store, rows)[0], embed(model, store, rows)

    def shift(self, edit: Edit) -> tuple[np.ndarray, np.ndarray]:
        """What an edit changes: of probabilities (cells, classes), of the embedding."""
        bins = (apply(edit, *pair) for pair in zip(self.bins, self.high, strict=True))
        p, embedding = self.read(*bins)
        return p - self.p, embedding - self.embedding

    def random_shifts(
        self, edit: Edit, n_random: int, rng: np.random.Generator
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """The same of random genes, as many and expressed alike."""
        genes = np.array(edit.genes)
        draws = [matched_genes(self.expression, genes, rng) for _ in range(n_random)]
        return [self.shift(Edit("", tuple(draw.tolist()), edit.raised)) for draw in draws]


def empirical_p(value: float, random: np.ndarray) -> float:
    """Share of random values that are as far from zero, the value itself counted among them."""
    return float((1 + (np.abs(random) >= abs(value)).sum()) / (1 + len(random)))


def log_odds_of(p: np.ndarray, target: int) -> np.ndarray:
    """Log-odds (cells,) of a class against all others; unlike probabilities, never saturated."""
    others = np.delete(p, target, axis=1).sum(1)
    return np.log(np.maximum(p[:, target], 1e-300)) - np.log(np.maximum(others, 1e-300))


def trial(
    cells: Cells, label: str, names: np.ndarray, edit: Edit, n_random: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Edit one class's cells, and the same cells by random genes.

    Returns
    -------
    per_cell : DataFrame
        ``perturbation``, ``raised``, ``n_genes``, ``class``, ``cell``, ``shift`` (of the class's
        log-odds), ``distance`` (length of the embedding's shift) and ``shift_<class>`` (of the
        probabilities).
    random : DataFrame
        A row a draw: ``perturbation``, ``raised``, ``class``, ``draw``, mean ``shift`` and
        ``distance`` over the cells.
    """
    classes = cells.classifier.classes
    target = classes.index(label)
    key = {"perturbation": edit.name, "raised": edit.raised, "class": label}
    before = log_odds_of(cells.p, target)
    rng = np.random.default_rng([seed, target, *edit.genes])
    p, embedding = cells.shift(edit)
    per_cell = pd.DataFrame({"cell": names}).assign(
        **key,
        n_genes=len(edit.genes),
        shift=log_odds_of(cells.p + p, target) - before,
        distance=np.linalg.norm(embedding, axis=1),
    )
    per_cell = per_cell.join(pd.DataFrame(p, columns=[f"shift_{name}" for name in classes]))
    drawn = [
        {
            "shift": (log_odds_of(cells.p + p, target) - before).mean(),
            "distance": np.linalg.norm(embedding, axis=1).mean(),
        }
        for p, embedding in cells.random_shifts(edit, n_random, rng)
    ]
    return per_cell, pd.DataFrame(drawn).assign(**key, draw=range(n_random))


def summarise_edits(per_cell: pd.DataFrame, random: pd.DataFrame) -> pd.DataFrame:
    """Lay out each edit's mean effect on each class beside that of random genes.

    Parameters
    ----------
    per_cell, random
        As :func:`trial`, of all runs; a draw is averaged over the runs.

    Returns
    -------
    DataFrame
        ``perturbation``, ``raised``, ``class``, ``n_genes``, ``n_cells``, ``shift`` (of the
        class's log-odds, mean over cells), ``shift_sd``, ``random_shift`` (mean over draws),
        ``shift_p`` (:func:`empirical_p`), ``probability_shift``, ``distance`` (of the embedding),
        ``random_distance`` and ``distance_p``.
    """
    keys = ["perturbation", "raised", "class"]
    draws = random.groupby([*keys, "draw"])[["shift", "distance"]].mean()
    rows = []
    for key, part in per_cell.groupby(keys, sort=False):
        shift, distance, drawn = part["shift"].mean(), part["distance"].mean(), draws.loc[key]
        rows.append(
            {
                **dict(zip(keys, key, strict=True)),
                "n_genes": part["n_genes"].iloc[0],
                "n_cells": len(part),
                "shift": shift,
                "shift_sd": part["shift"].std(),
                "random_shift": drawn["shift"].mean(),
                "shift_p": empirical_p(shift, drawn["shift"].to_numpy()),
                "probability_shift": part[f"shift_{key[-1]}"].mean(),
                "distance": distance,
                "random_distance": drawn["distance"].mean(),
                "distance_p": empirical_p(distance, drawn["distance"].to_numpy()),
            }
        )
    return pd.DataFrame(rows)


def compare_measured(
    control: Cells, perturbed: Cells, edit: Edit, n_random: int, seed: int
) -> pd.DataFrame:
    """Hold an edit of unperturbed cells against cells in which it was done for real.

    Parameters
    ----------
    control, perturbed
        Unperturbed and perturbed cells, of the same model.
    edit
        The perturbation.
    n_random, seed
        Of random genes.

    Returns
    -------
    DataFrame
        ``method`` ("measured", "silenced", "random genes", "no change"), the shift of each
        class's mean probability (``shift_<class>``), and against the measured one: ``rmse`` of
        these, ``embedding_error`` (length of the difference of the mean embedding's shifts, over
        the measured shift's: 1 for no change) and ``embedding_correlation`` (Pearson over
        dimensions).
    """
    classes = control.classifier.classes
    rng = np.random.default_rng(seed)
    random = [control.shift(edit), *control.random_shifts(edit, n_random, rng)]
    p = np.stack([part.mean(0) for part, _ in random])
    embedding = np.stack([part.mean(0) for _, part in random])
    true_p = perturbed.p.mean(0) - control.p.mean(0)
    true_embedding = perturbed.embedding.mean(0) - control.embedding.mean(0)
    shifts = {
        "measured": (true_p, true_embedding),
        "silenced": (p[0], embedding[0]),
        "random genes": (p[1:].mean(0), embedding[1:].mean(0)),
        "no change": (0 * true_p, 0 * true_embedding),
    }
    rows = []
    for method, (of_classes, of_embedding) in shifts.items():
        moves = np.ptp(of_embedding) > 0
        error = np.linalg.norm(of_embedding - true_embedding) / np.linalg.norm(true_embedding)
        rows.append(
            {
                "method": method,
                **{f"shift_{c}": x for c, x in zip(classes, of_classes, strict=True)},
                "rmse": float(np.sqrt(np.mean((of_classes - true_p) ** 2))),
                "embedding_error": float(error),
                "embedding_correlation": (
                    float(np.corrcoef(of_embedding, true_embedding)[0, 1]) if moves else np.nan
                ),
            }
        )
    return pd.DataFrame(rows)


def perturb_task(
    store: TokenStore,
    obs: pd.DataFrame,
    edits: Sequence[Edit],
    folders: Sequence[str | Path],
    model_folder: str | Path,
    settings: InSilicoSettings,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Try edits in correctly called held-out cells of each class, by all runs of a task.

    Parameters
    ----------
    store, obs
        Tokens, and the corpus's table of cells.
    edits
        As :func:`edits_of`.
    folders, model_folder
        As :func:`scdyn.explain.runs.explain_task`.
    settings
        Which edits are tried, in how many cells.

    Returns
    -------
    effects, per_cell : DataFrame
        As :func:`summarise_edits` and :func:`trial`, all runs' cells together.
    measured : DataFrame
        As :func:`compare_measured`, mean over runs; empty if no knockout is named.
    """
    seed, options = settings.seed, settings.in_silico
    per_run = int(np.ceil(settings.checked_cells / len(folders)))
    tables, draws, comparisons = [], [], []
    for folder in folders:
        classifier, calls, _ = read_run(folder, model_folder, store)
        cells = correct_cells(calls, per_run, seed)
        rows = rows_by_class(store, cells)
        for label, places in rows.items():
            chosen = Cells(classifier, store, places, np.concatenate(list(rows.values())))
            for edit in edits:
                if edit.only_in not in (None, label):
                    continue
                found = trial(chosen, label, cells[label], edit, options.n_random, seed)
                tables.append(found[0])
                draws.append(found[1])
        if options.measured:
            run = _measured(
                classifier, store, obs, calls, edits, options.n_random, options.measured, seed
            )
            comparisons.append(run)
    measured = pd.DataFrame(columns=["method", "rmse", "embedding_error", "embedding_correlation"])
    if comparisons:
        measured = pd.concat(comparisons).groupby("method", sort=False).mean().reset_index()
    per_cell = pd.concat(tables, ignore_index=True)
    return summarise_edits(per_cell, pd.concat(draws)), per_cell, measured


def _measured(
    classifier: Classifier,
    store: TokenStore,
    obs: pd.DataFrame,
    calls: pd.DataFrame,
    edits: Sequence[Edit],
    n_random: int,
    measured: MeasuredKnockout,
    seed: int,
) -> pd.DataFrame:
    """Compare one run's edit with the measured knockout, in cells it has not learned from."""
    edit = next(e for e in edits if e.name == measured.silenced and not e.raised)
    groups = {}
    for name, chosen in (("control", measured.control), ("perturbed", measured.perturbed)):
        cells = obs.index[select(obs, chosen, f"in_silico.measured.{name}")]
        unseen = cells[cells.isin(calls["cell"])]
        cells = unseen if len(unseen) else cells
        few = np.random.default_rng(seed).permutation(cells)[:MEASURED_CELLS]
        groups[name] = Cells(classifier, store, store.find_rows(few))
    return compare_measured(**groups, edit=edit, n_random=n_random, seed=seed)
