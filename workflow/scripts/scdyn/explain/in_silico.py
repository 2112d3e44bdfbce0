"""In-silico perturbation: predictions after silencing or raising genes in measured cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from scdyn.data.loader import Store
from scdyn.data.tokens import TokenStore
from scdyn.errors import InputError
from scdyn.explain.edits import Edit, EditableCells, draw_edits, draw_edits_of_classes
from scdyn.explain.expression import (
    KNOCKOUT_COLUMNS,
    SCORES,
    compare_knockout,
    load_decoder,
    predict_edits,
)
from scdyn.explain.runs import draw_correct_cells, find_rows_by_class, read_cells, read_run
from scdyn.model.classifier import Classifier, run_classifier
from scdyn.model.embedding import embed
from scdyn.pp.selection import select
from scdyn.settings import InSilicoSettings, MeasuredKnockout

# Number of cells of a measured knockout, and of its control, that are compared.
MEASURED_CELLS = 50
# Most cells of each whose measured expression is compared.
PREDICTED_CELLS = 2000


class Cells(EditableCells):
    """Cells to edit, with their unedited probabilities and embedding.

    Parameters
    ----------
    classifier
        Merged.
    store, rows, all_rows
        See :class:`scdyn.explain.edits.EditableCells`.
    """

    def __init__(
        self,
        classifier: Classifier,
        store: Store,
        rows: np.ndarray,
        all_rows: np.ndarray | None = None,
    ) -> None:
        super().__init__(store, rows, all_rows)
        self.classifier = classifier
        self.p, self.embedding = self.predict(None)

    def predict(self, edit: Edit | None) -> tuple[np.ndarray, np.ndarray]:
        """Compute probabilities (cells, classes) and embedding (cells, numbers) after an edit."""
        classifier, store, rows = self.classifier, self.apply(edit), np.arange(len(self.counts[0]))
        p, _ = run_classifier(classifier, store, rows)
        return p, embed(classifier.encoder, store, rows, modalities=classifier.modalities)

    def shift(self, edit: Edit) -> tuple[np.ndarray, np.ndarray]:
        """Compute the change of probabilities (cells, classes) and embedding by an edit."""
        p, embedding = self.predict(edit)
        return p - self.p, embedding - self.embedding


def empirical_p(value: float, random: np.ndarray) -> float:
    """Two-sided p-value: share of random values as far from zero, the value included."""
    return float((1 + (np.abs(random) >= abs(value)).sum()) / (1 + len(random)))


def compute_log_odds(p: np.ndarray, target: int) -> np.ndarray:
    """Compute the log-odds (cells,) of a class, which do not saturate as probabilities do."""
    others = np.delete(p, target, axis=1).sum(1)
    return np.log(np.maximum(p[:, target], 1e-300)) - np.log(np.maximum(others, 1e-300))


def try_edit(
    cells: Cells, label: str, names: np.ndarray, edit: Edit, random: Sequence[Edit]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Apply an edit to one class's cells, and edits of random genes to the same cells.

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
        for p, embedding in map(cells.shift, random)
    ]
    return per_cell, pd.DataFrame(drawn).assign(**key, draw=range(len(random)))


def summarise_edits(per_cell: pd.DataFrame, random: pd.DataFrame) -> pd.DataFrame:
    """Summarise each edit's mean effect on each class, and that of random genes.

    Parameters
    ----------
    per_cell, random
        As :func:`try_edit`, of all runs, with the same random genes in all of them: each draw is
        averaged over the runs, as the edit is.

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
    drawn = draw_edits(edit, control.expression, n_random, rng)
    random = [control.shift(edit), *map(control.shift, drawn)]
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
) -> dict[str, pd.DataFrame]:
    """Apply edits to correctly predicted held-out cells of each class, with all runs of a task.

    Parameters
    ----------
    store, obs
        Tokens, and the corpus' table of cells.
    edits
        As :func:`scdyn.explain.edits.list_edits`.
    folders, model_folder
        As :func:`scdyn.explain.runs.explain_task`.
    settings
        Numbers of cells and of random draws, and the measured knockout.

    Returns
    -------
    dict of DataFrame
        ``effects`` and ``cells``, as :func:`summarise_edits` and :func:`try_edit`, of the cells of
        all runs. ``expression``: as :func:`scdyn.explain.expression.predict_edits`, of the same
        cells. ``measured``: as :func:`compare_measured`, mean over runs, with the scores of
        ``knockout``; this is as :func:`scdyn.explain.expression.compare_knockout`. These two are
        empty if no knockout is named.
    """
    seed, options = settings.seed, settings.in_silico
    per_run = int(np.ceil(settings.checked_cells / len(folders)))
    decoder, genes = load_decoder(model_folder), store.vocabulary
    chosen = [draw_correct_cells(read_cells(folder), per_run, seed) for folder in folders]
    edited: dict[str, list[np.ndarray]] = {}
    for cells in chosen:
        for label, places in find_rows_by_class(store, cells).items():
            edited.setdefault(label, []).append(places)
    rows_of_all = {label: np.unique(np.concatenate(parts)) for label, parts in edited.items()}
    random = draw_edits_of_classes(store, rows_of_all, edits, options.n_random, seed)
    tables, draws = [], []
    comparisons: list[pd.DataFrame] = []
    for folder, cells in zip(folders, chosen, strict=True):
        classifier, predictions, _ = read_run(folder, model_folder, store)
        rows = find_rows_by_class(store, cells)
        for label, places in rows.items():
            editable = Cells(classifier, store, places, np.concatenate(list(rows.values())))
            for edit in edits:
                if (label, edit) in random:
                    found = try_edit(editable, label, cells[label], edit, random[label, edit])
                    tables.append(found[0])
                    draws.append(found[1])
        if options.measured:
            control, perturbed = _select_groups(obs, options.measured)
            if not comparisons:
                control_rows = _group_by_class(classifier, store, control, seed)
                perturbed_rows = _group_by_class(classifier, store, perturbed, seed)
            control_cells, perturbed_cells = (
                Cells(classifier, store, store.find_rows(_draw_unseen(names, predictions, seed)))
                for names in (control, perturbed)
            )
            edit = _find_knockout(edits, options.measured)
            comparisons.append(
                compare_measured(control_cells, perturbed_cells, edit, options.n_random, seed)
            )
    per_cell = pd.concat(tables, ignore_index=True)
    results = {
        "effects": summarise_edits(per_cell, pd.concat(draws)),
        "cells": per_cell,
        "expression": predict_edits(
            decoder, store, rows_of_all, edits, genes, options.n_random, seed
        ),
    }
    measured = pd.DataFrame(columns=["rmse", "embedding_error", "embedding_correlation", *SCORES])
    results["knockout"] = pd.DataFrame(columns=list(KNOCKOUT_COLUMNS))
    if options.measured:
        edit = _find_knockout(edits, options.measured)
        results["knockout"], scores = compare_knockout(
            decoder, store, control_rows, perturbed_rows, edit, genes, options.n_random, seed
        )
        means = pd.concat(comparisons).groupby("method", sort=False).mean()
        measured = pd.concat([means, scores], axis=1)
        measured = measured.reindex(dict.fromkeys([*means.index, *scores.index]))
    return results | {"measured": measured.rename_axis("method").reset_index()}


def _find_knockout(edits: Sequence[Edit], measured: MeasuredKnockout) -> Edit:
    """Find the edit of the measured knockout."""
    return next(e for e in edits if e.name == measured.silenced and not e.raised)


def _select_groups(obs: pd.DataFrame, measured: MeasuredKnockout) -> tuple[pd.Index, pd.Index]:
    """Select the control cells and the cells of the knockout."""
    control = select(obs, measured.control, "in_silico.measured.control")
    perturbed = select(obs, measured.perturbed, "in_silico.measured.perturbed")
    if (control & perturbed).any():
        raise InputError(
            "CONFIG",
            f"in_silico.measured: {(control & perturbed).sum()} cells are in control and in "
            "perturbed; select different cells.",
        )
    return obs.index[control], obs.index[perturbed]


def _draw_unseen(cells: pd.Index, predictions: pd.DataFrame, seed: int) -> np.ndarray:
    """Draw some of the cells outside a run's training set, or of all if there are none."""
    unseen = cells[cells.isin(predictions["cell"])]
    cells = unseen if len(unseen) else cells
    return np.random.default_rng(seed).permutation(cells)[:MEASURED_CELLS]


def _group_by_class(
    classifier: Classifier, store: TokenStore, cells: pd.Index, seed: int
) -> dict[str, np.ndarray]:
    """Draw cells, and group them by predicted class, since a knockout may have no labels.

    Returns
    -------
    dict
        Class to rows of the store.
    """
    rows = store.find_rows(np.random.default_rng(seed).permutation(cells)[:PREDICTED_CELLS])
    predicted = run_classifier(classifier, store, rows)[0].argmax(1)
    return {name: rows[predicted == i] for i, name in enumerate(classifier.classes)}
