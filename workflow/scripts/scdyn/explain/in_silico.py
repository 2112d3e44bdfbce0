"""In-silico perturbation: predictions after silencing or raising genes in measured cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from scdyn.data.loader import MemoryStore, Store, densify
from scdyn.data.tokens import TokenStore
from scdyn.errors import InputError
from scdyn.explain.checks import average_expression, silence
from scdyn.explain.matching import draw_matched_genes
from scdyn.explain.runs import draw_correct_cells, find_rows_by_class, read_run
from scdyn.model.classifier import Classifier, run_classifier
from scdyn.model.embedding import embed
from scdyn.pp.selection import select
from scdyn.settings import EditSettings, InSilicoSettings, MeasuredKnockout

# A raised gene is set to this quantile of its share of the counts, of cells that express it.
HIGH_QUANTILE = 0.95
# Number of cells of a measured knockout, and of its control, that are compared.
MEASURED_CELLS = 50


@dataclass(frozen=True)
class Edit:
    """A set of genes that are silenced or raised together.

    Attributes
    ----------
    name
        A gene's symbol or a regulon's name.
    genes
        Positions in the vocabulary: the gene, or the regulon's TF and targets.
    raised
        Whether they are set to a high share of the counts; otherwise they are set to zero.
    only_in
        The class whose cells are edited; all if None.
    """

    name: str
    genes: tuple[int, ...]
    raised: bool = False
    only_in: str | None = None


def find_edit(
    name: str, raised: bool, genes: pd.DataFrame, regulons: Mapping[str, set[str]]
) -> Edit:
    """Look up a name of the config: a regulon or a gene symbol.

    Raises
    ------
    InputError
        If it is neither.
    """
    members = regulons.get(name, {name})
    places = np.flatnonzero(genes["symbol"].isin(members))
    if len(places) == 0:
        raise InputError(
            "EXPLAIN",
            f"in_silico: '{name}' is neither a gene symbol of the vocabulary nor a regulon; "
            "correct the name, or remove it.",
        )
    return Edit(name, tuple(places.tolist()), raised)


def list_default_edits(rankings: pd.DataFrame, genes: pd.DataFrame, n_drivers: int) -> list[Edit]:
    """List the default edits: silence the TFs of highest specificity in each class's cells."""
    tfs = rankings[rankings["is_tf"]].sort_values("attribution", ascending=False, kind="stable")
    best = tfs.groupby("class").head(n_drivers).sort_values("class", kind="stable")
    return [
        replace(find_edit(symbol, False, genes, {}), only_in=label)
        for symbol, label in zip(best["symbol"], best["class"], strict=True)
    ]


def list_edits(
    settings: EditSettings,
    rankings: pd.DataFrame,
    genes: pd.DataFrame,
    regulons: Mapping[str, set[str]],
) -> list[Edit]:
    """List all edits: the default ones, and those named in the config's ``in_silico``."""
    edits = list_default_edits(rankings, genes, settings.n_drivers)
    names = [(name, False) for name in settings.silenced]
    names += [(name, True) for name in settings.raised]
    if settings.measured:
        names.append((settings.measured.silenced, False))
    named = [find_edit(name, raised, genes, regulons) for name, raised in names]
    tried = {(edit.genes, edit.raised) for edit in named}
    return [*(e for e in edits if (e.genes, e.raised) not in tried), *dict.fromkeys(named)]


def find_high_shares(counts: Tensor) -> Tensor:
    """Compute a high quantile of each gene's share of the counts, over the cells that express it.

    Parameters
    ----------
    counts
        (cells, G).

    Returns
    -------
    Tensor, (G,)
        Zero for a gene without counts.
    """
    known = counts.clamp(min=0).double()
    shares = (known / known.sum(1, keepdim=True).clamp(min=1)).numpy()
    shares[shares == 0] = np.nan
    high = np.zeros(shares.shape[1])
    seen = ~np.isnan(shares).all(0)
    high[seen] = np.nanquantile(shares[:, seen], HIGH_QUANTILE, axis=0, method="nearest")
    return torch.from_numpy(high)


def apply_edit(edit: Edit, counts: Tensor, high: Tensor) -> Tensor:
    """Apply an edit to the measured counts (cells, G), in a copy.

    A raised gene gets a high share of the cell's counts, at least one count.
    """
    genes = np.array(edit.genes)
    if not edit.raised:
        return silence(counts, genes)
    total = counts.clamp(min=0).sum(1, keepdim=True)
    raised = (high[genes] * total).round().clamp(min=1).to(counts.dtype)
    counts = counts.clone()
    counts[:, genes] = torch.where(counts[:, genes] < 0, counts[:, genes], raised)
    return counts


class Cells:
    """Cells to edit, with their unedited counts, probabilities and embedding.

    Parameters
    ----------
    classifier
        Merged.
    store, rows
        The cells.
    all_rows
        Cells of all classes, from which the high shares are computed; ``rows`` if None.
    """

    def __init__(
        self,
        classifier: Classifier,
        store: Store,
        rows: np.ndarray,
        all_rows: np.ndarray | None = None,
    ) -> None:
        self.classifier = classifier
        self.counts = densify(store, rows)
        self.expression = average_expression(*self.counts)
        others = self.counts if all_rows is None else densify(store, all_rows)
        self.high = [find_high_shares(counts) for counts in others]
        self.p, self.embedding = self.predict(*self.counts)

    def predict(self, rna: Tensor, promoter: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Compute probabilities (cells, classes) and embedding (cells, numbers) of counts."""
        model = self.classifier.encoder
        store, rows = MemoryStore.from_dense(rna, promoter), np.arange(len(rna))
        return run_classifier(self.classifier, store, rows)[0], embed(model, store, rows)

    def shift(self, edit: Edit) -> tuple[np.ndarray, np.ndarray]:
        """Compute the change of probabilities (cells, classes) and embedding by an edit."""
        edited = (apply_edit(edit, *pair) for pair in zip(self.counts, self.high, strict=True))
        p, embedding = self.predict(*edited)
        return p - self.p, embedding - self.embedding

    def random_shifts(
        self, edit: Edit, n_random: int, rng: np.random.Generator
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Compute the same for draws of random genes, matched in number and expression."""
        genes = np.array(edit.genes)
        draws = [draw_matched_genes(self.expression, genes, rng) for _ in range(n_random)]
        return [self.shift(Edit("", tuple(draw.tolist()), edit.raised)) for draw in draws]


def empirical_p(value: float, random: np.ndarray) -> float:
    """Two-sided p-value: share of random values as far from zero, the value included."""
    return float((1 + (np.abs(random) >= abs(value)).sum()) / (1 + len(random)))


def compute_log_odds(p: np.ndarray, target: int) -> np.ndarray:
    """Compute the log-odds (cells,) of a class, which do not saturate as probabilities do."""
    others = np.delete(p, target, axis=1).sum(1)
    return np.log(np.maximum(p[:, target], 1e-300)) - np.log(np.maximum(others, 1e-300))


def try_edit(
    cells: Cells, label: str, names: np.ndarray, edit: Edit, n_random: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Apply an edit to one class's cells, and random edits to the same cells.

    Returns
    -------
    per_cell : DataFrame
        ``perturbation``, ``raised``, ``n_genes``, ``class``, ``cell``, ``shift`` (of the class's
        log-odds), ``distance`` (norm of the embedding's shift) and ``shift_<class>`` (of the
        probabilities).
    random : DataFrame
        One row per draw: ``perturbation``, ``raised``, ``class``, ``draw``, mean ``shift`` and
        ``distance`` over the cells.
    """
    classes = cells.classifier.classes
    target = classes.index(label)
    key = {"perturbation": edit.name, "raised": edit.raised, "class": label}
    before = compute_log_odds(cells.p, target)
    rng = np.random.default_rng([seed, target, *edit.genes])
    p, embedding = cells.shift(edit)
    per_cell = pd.DataFrame({"cell": names}).assign(
        **key,
        n_genes=len(edit.genes),
        shift=compute_log_odds(cells.p + p, target) - before,
        distance=np.linalg.norm(embedding, axis=1),
    )
    per_cell = per_cell.join(pd.DataFrame(p, columns=[f"shift_{name}" for name in classes]))
    drawn = [
        {
            "shift": (compute_log_odds(cells.p + p, target) - before).mean(),
            "distance": np.linalg.norm(embedding, axis=1).mean(),
        }
        for p, embedding in cells.random_shifts(edit, n_random, rng)
    ]
    return per_cell, pd.DataFrame(drawn).assign(**key, draw=range(n_random))


def summarise_edits(per_cell: pd.DataFrame, random: pd.DataFrame) -> pd.DataFrame:
    """Summarise each edit's mean effect on each class, and that of random genes.

    Parameters
    ----------
    per_cell, random
        As :func:`try_edit`, of all runs; draws are averaged over the runs.

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
    """Compare an in-silico edit of control cells with cells of the measured perturbation.

    Parameters
    ----------
    control, perturbed
        Control and perturbed cells, with the same model.
    edit
        The perturbation.
    n_random, seed
        Number of draws of random genes, and their seed.

    Returns
    -------
    DataFrame
        ``method`` ("measured", "silenced", "random genes", "no change"), the shift of each class's
        mean probability (``shift_<class>``), and compared with the measured one: ``rmse`` of these,
        ``embedding_error`` (norm of the difference between the shifts of the mean embedding,
        relative to the norm of the measured shift: 1 for no change) and ``embedding_correlation``
        (Pearson over dimensions).
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
    for method, (shift_p, shift_embedding) in shifts.items():
        moves = np.ptp(shift_embedding) > 0
        error = np.linalg.norm(shift_embedding - true_embedding) / np.linalg.norm(true_embedding)
        rows.append(
            {
                "method": method,
                **{f"shift_{c}": x for c, x in zip(classes, shift_p, strict=True)},
                "rmse": float(np.sqrt(np.mean((shift_p - true_p) ** 2))),
                "embedding_error": float(error),
                "embedding_correlation": (
                    float(np.corrcoef(shift_embedding, true_embedding)[0, 1]) if moves else np.nan
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
    """Apply edits to correctly predicted held-out cells of each class, with all runs of a task.

    Parameters
    ----------
    store, obs
        Tokens, and the corpus' table of cells.
    edits
        As :func:`list_edits`.
    folders, model_folder
        As :func:`scdyn.explain.runs.explain_task`.
    settings
        Numbers of cells and of random draws, and the measured knockout.

    Returns
    -------
    effects, per_cell : DataFrame
        As :func:`summarise_edits` and :func:`try_edit`, of the cells of all runs.
    measured : DataFrame
        As :func:`compare_measured`, mean over runs; empty if no knockout is named.
    """
    seed, options = settings.seed, settings.in_silico
    per_run = int(np.ceil(settings.checked_cells / len(folders)))
    tables, draws, comparisons = [], [], []
    for folder in folders:
        classifier, predictions, _ = read_run(folder, model_folder, store)
        cells = draw_correct_cells(predictions, per_run, seed)
        rows = find_rows_by_class(store, cells)
        for label, places in rows.items():
            chosen = Cells(classifier, store, places, np.concatenate(list(rows.values())))
            for edit in edits:
                if edit.only_in not in (None, label):
                    continue
                found = try_edit(chosen, label, cells[label], edit, options.n_random, seed)
                tables.append(found[0])
                draws.append(found[1])
        if options.measured:
            run = _compare_with_knockout(
                classifier, store, obs, predictions, edits, options.n_random, options.measured, seed
            )
            comparisons.append(run)
    measured = pd.DataFrame(columns=["method", "rmse", "embedding_error", "embedding_correlation"])
    if comparisons:
        measured = pd.concat(comparisons).groupby("method", sort=False).mean().reset_index()
    per_cell = pd.concat(tables, ignore_index=True)
    return summarise_edits(per_cell, pd.concat(draws)), per_cell, measured


def _compare_with_knockout(
    classifier: Classifier,
    store: TokenStore,
    obs: pd.DataFrame,
    predictions: pd.DataFrame,
    edits: Sequence[Edit],
    n_random: int,
    measured: MeasuredKnockout,
    seed: int,
) -> pd.DataFrame:
    """Compare one run's edit with the measured knockout, in cells outside its training set."""
    edit = next(e for e in edits if e.name == measured.silenced and not e.raised)
    groups = {}
    for name, chosen in (("control", measured.control), ("perturbed", measured.perturbed)):
        cells = obs.index[select(obs, chosen, f"in_silico.measured.{name}")]
        unseen = cells[cells.isin(predictions["cell"])]
        cells = unseen if len(unseen) else cells
        few = np.random.default_rng(seed).permutation(cells)[:MEASURED_CELLS]
        groups[name] = Cells(classifier, store, store.find_rows(few))
    return compare_measured(**groups, edit=edit, n_random=n_random, seed=seed)
