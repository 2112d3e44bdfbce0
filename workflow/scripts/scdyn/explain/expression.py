"""Expression after an edit, as the decoder of the pretrained model predicts it.

The decoder was trained with the pretrained encoder, which is used here, once for all runs of a
task: with an adapter, the encoder of a classifier has moved away from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from scdyn.data.loader import Store
from scdyn.data.tokens import MODALITIES
from scdyn.explain.edits import Edit, EditableCells, draw_edits, draw_edits_of_classes
from scdyn.log import logger
from scdyn.model.decoding import average_decoded
from scdyn.model.layers import set_precision
from scdyn.model.pretrained import load_model
from scdyn.model.transformer import ScDynOmics
from scdyn.training.devices import choose_device
from scdyn.training.objectives import sum_counts

# Genes of the largest predicted increase, and as many of the largest decrease, that are listed.
N_LISTED = 50
# A measured knockout is compared in the genes of the highest expression, as in Ahlmann-Eltze et al.
N_COMPARED = 1000
# Fewest control and knockout cells of a class, and most control cells that are edited.
FEWEST, MOST_EDITED = 10, 50
# Counts added to each gene of a sum of cells, as by edgeR's ``cpm``.
PRIOR = 2.0

COLUMNS = (
    "perturbation", "raised", "class", "modality", "gene_id", "symbol", "edited",
    "log2_fold_change", "random", "z",
)  # fmt: skip
KNOCKOUT_COLUMNS = (
    "class", "n_control", "n_perturbed", "gene_id", "symbol", "edited", "measured", "silenced",
    "mean_shift",
)  # fmt: skip
SCORES = ("expression_correlation", "expression_error", "expression_p")


def load_decoder(folder: str | Path) -> ScDynOmics | None:
    """Load a pretrained model, on the best device; None if its architecture has no decoder.

    In float32, since fold changes can be smaller than the rounding of bfloat16.
    """
    model = load_model(folder)
    if isinstance(model, ScDynOmics):
        set_precision(model, "float32")
        return model.to(choose_device())
    logger.info("architecture: paper has no whole-cell decoder; no expression is predicted")
    return None


class DecodedCells(EditableCells):
    """Cells to edit, with the expression that is predicted without edit.

    Parameters
    ----------
    model
        Pretrained, in evaluation mode.
    store, rows, all_rows
        See :class:`scdyn.explain.edits.EditableCells`.
    """

    def __init__(
        self,
        model: ScDynOmics,
        store: Store,
        rows: np.ndarray,
        all_rows: np.ndarray | None = None,
    ) -> None:
        super().__init__(store, rows, all_rows)
        self.model = model
        self.unedited = self.decode(None)

    def decode(self, edit: Edit | None) -> np.ndarray:
        """Predict the log2 share of each gene after an edit, mean over cells: (2, genes)."""
        return average_decoded(self.model, self.apply(edit), np.arange(len(self.counts[0])))

    def shift(self, edit: Edit) -> np.ndarray:
        """Predict the log2 fold change of each gene by an edit, mean over cells: (2, genes)."""
        return self.decode(edit) - self.unedited


def tabulate_edit(
    cells: DecodedCells, label: str, edit: Edit, genes: pd.DataFrame, drawn: Sequence[Edit]
) -> pd.DataFrame:
    """Tabulate the genes whose predicted expression changes most by an edit of a class's cells.

    Parameters
    ----------
    cells, label
        The cells and their class.
    edit
        The perturbation.
    genes
        The vocabulary.
    drawn
        Edits of random genes.

    Returns
    -------
    DataFrame
        ``perturbation``, ``raised``, ``class``, ``modality`` (promoter only where measured),
        ``gene_id``, ``symbol``, ``edited`` (whether the gene itself was), ``log2_fold_change``
        (of the predicted share of the counts, mean over cells), ``random`` (mean over the draws)
        and ``z`` (compared with the draws; NaN if these are all equal). The edited genes and the
        :data:`N_LISTED` of the largest increase and decrease, by decreasing fold change.
    """
    shift, random = cells.shift(edit), np.stack([cells.shift(one) for one in drawn])
    mean, spread = random.mean(0), random.std(0, ddof=1 if len(drawn) > 1 else 0)
    z = (shift - mean) / np.where(spread > 0, spread, np.nan)
    edited = np.isin(np.arange(len(genes)), edit.genes)
    tables = []
    for i, modality in enumerate(MODALITIES):
        if np.isnan(shift[i]).all():
            continue
        order = np.argsort(-shift[i], kind="stable")
        listed = edited.copy()
        listed[order[:N_LISTED]] |= shift[i][order[:N_LISTED]] > 0
        listed[order[-N_LISTED:]] |= shift[i][order[-N_LISTED:]] < 0
        table = genes[["gene_id", "symbol"]].assign(
            perturbation=edit.name, raised=edit.raised, modality=modality, edited=edited,
            log2_fold_change=shift[i], random=mean[i], z=z[i], **{"class": label},
        )  # fmt: skip
        tables.append(table.iloc[order[listed[order]]][list(COLUMNS)])
    return pd.concat(tables, ignore_index=True)


def predict_edits(
    model: ScDynOmics | None,
    store: Store,
    rows: Mapping[str, np.ndarray],
    edits: Sequence[Edit],
    genes: pd.DataFrame,
    n_random: int,
    seed: int,
) -> pd.DataFrame:
    """Predict the expression of each class's cells after each edit.

    Parameters
    ----------
    model
        As :func:`load_decoder`.
    store, rows
        Tokens, and class to its cells.
    edits
        As :func:`scdyn.explain.edits.list_edits`.
    genes
        The vocabulary.
    n_random, seed
        Number of draws of random genes, and their seed.

    Returns
    -------
    DataFrame
        As :func:`tabulate_edit`; empty without a decoder.
    """
    tables = [pd.DataFrame(columns=list(COLUMNS))]
    if model is None:
        return tables[0]
    all_rows = np.concatenate(list(rows.values()))
    drawn = draw_edits_of_classes(store, rows, edits, n_random, seed)
    for label, places in rows.items():
        cells = DecodedCells(model, store, places, all_rows)
        for edit in edits:
            if (label, edit) in drawn:
                tables.append(tabulate_edit(cells, label, edit, genes, drawn[label, edit]))
    return pd.concat(tables[1:] or tables, ignore_index=True)


def average_profile(store: Store, rows: np.ndarray) -> np.ndarray:
    """Sum the RNA of cells, and compute log2 of the genes' shares of it, with a prior: (genes,)."""
    counts = sum_counts(store, rows)[0].numpy() + PRIOR
    return np.log2(counts / counts.sum())


def correlate(predicted: np.ndarray, measured: np.ndarray) -> tuple[float, float]:
    """Compute Pearson's correlation, and the norm of the error relative to that of the measured."""
    error = float(np.linalg.norm(predicted - measured) / np.linalg.norm(measured))
    if np.ptp(predicted) == 0:
        return np.nan, error
    return float(np.corrcoef(predicted, measured)[0, 1]), error


def score_shifts(table: pd.DataFrame, random: np.ndarray) -> pd.DataFrame:
    """Score the predicted fold changes of one class.

    Parameters
    ----------
    table
        As ``per_gene`` of :func:`compare_knockout`, of one class.
    random
        (draws, genes) fold changes by random genes.

    Returns
    -------
    DataFrame
        ``method``, ``draw``, ``expression_correlation``, ``expression_error``.
    """
    others = ~table["edited"].to_numpy()
    measured = table["measured"].to_numpy()[others]
    predicted = {
        "measured": measured[None],
        "silenced": table["silenced"].to_numpy()[None, others],
        "random genes": random[:, others],
        "no change": np.zeros((1, len(measured))),
        "mean shift": table["mean_shift"].to_numpy()[None, others],
    }
    rows = [
        (method, draw, *correlate(shift, measured))
        for method, shifts in predicted.items()
        for draw, shift in enumerate(shifts)
    ]
    return pd.DataFrame(rows, columns=["method", "draw", *SCORES[:2]])


def compare_knockout(
    model: ScDynOmics | None,
    store: Store,
    control: Mapping[str, np.ndarray],
    perturbed: Mapping[str, np.ndarray],
    edit: Edit,
    genes: pd.DataFrame,
    n_random: int,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare the predicted expression after an edit with that of a measured knockout.

    Class by class, because the knockout also changes how many cells there are of each class. The
    baselines are those of Ahlmann-Eltze et al. (Nature Methods 2025) as far as one knockout allows:
    no change, and the mean. Theirs predicts the mean of the training conditions for any other
    condition; here the training conditions are the classes of the control, so that "mean shift"
    moves each class to the mean profile of all of them. It needs no cell of the knockout.

    Parameters
    ----------
    model
        As :func:`load_decoder`.
    store
        Tokens.
    control, perturbed
        Class to its control cells, and to its knockout cells. A class of fewer than
        :data:`FEWEST` of either is not compared.
    edit
        The perturbation.
    genes
        The vocabulary.
    n_random, seed
        Number of draws of random genes, and their seed.

    Returns
    -------
    per_gene : DataFrame
        ``class``, ``n_control``, ``n_perturbed``, ``gene_id``, ``symbol``, ``edited``, and log2
        fold changes of the share of the RNA: ``measured`` (of the summed counts of the knockout to
        the control), ``silenced`` (predicted for at most :data:`MOST_EDITED` control cells) and
        ``mean_shift``. The :data:`N_COMPARED` genes of the highest expression in the control.
    per_method : DataFrame
        Indexed by ``method`` ("measured", "silenced", "random genes", "no change", "mean shift"):
        ``expression_correlation`` (Pearson over genes, without the edited ones) and
        ``expression_error`` (norm of the difference relative to that of the measured fold changes:
        1 for no change), both as means over the classes in which the edit changes any count, for
        random genes also over draws. ``expression_p`` of "silenced" is the share of draws of random
        genes that correlate as well, the edit included. Both tables are empty if no class can be
        compared.
    """
    empty = pd.DataFrame(columns=list(SCORES), index=pd.Index([], name="method"))
    labels = [name for name, cells in control.items() if len(cells) >= FEWEST]
    compared = [name for name in labels if len(perturbed.get(name, ())) >= FEWEST]
    if not compared:
        logger.warning(
            "in_silico.measured: no class has %d cells in the control and in the knockout; no "
            "expression is compared",
            FEWEST,
        )
    if model is None or not compared:
        return pd.DataFrame(columns=list(KNOCKOUT_COLUMNS)), empty
    profiles = {name: average_profile(store, control[name]) for name in labels}
    mean = np.log2(np.mean([2**profile for profile in profiles.values()], axis=0))
    per_gene, found = [], []
    for i, name in enumerate(compared):
        rng = np.random.default_rng([seed, i, *edit.genes])
        few = rng.permutation(control[name])[:MOST_EDITED]
        cells = DecodedCells(model, store, few)
        table = genes[["gene_id", "symbol"]].assign(
            n_control=len(control[name]),
            n_perturbed=len(perturbed[name]),
            edited=np.isin(np.arange(len(genes)), edit.genes),
            measured=average_profile(store, perturbed[name]) - profiles[name],
            silenced=cells.shift(edit)[0],
            mean_shift=mean - profiles[name],
            **{"class": name},
        )
        drawn = draw_edits(edit, cells.expression, n_random, rng)
        random = np.stack([cells.shift(one)[0] for one in drawn])
        highest = np.sort(np.argsort(-profiles[name], kind="stable")[:N_COMPARED])
        table, random = table.iloc[highest], random[:, highest]
        per_gene.append(table[list(KNOCKOUT_COLUMNS)])
        found.append(score_shifts(table, random).assign(**{"class": name}))
    scores = pd.concat(found)
    moved = scores.loc[scores["method"] == "silenced"].dropna()["class"]
    scores = scores[scores["class"].isin(moved)] if len(moved) else scores
    per_method = scores.groupby("method", sort=False)[list(SCORES[:2])].mean()
    draws = scores.groupby(["method", "draw"])[SCORES[0]].mean()
    own = per_method.loc["silenced", SCORES[0]]
    n_as_good = (draws["random genes"] >= own).sum()
    p = (1 + n_as_good) / (1 + n_random) if np.isfinite(own) else np.nan
    per_method.loc["silenced", SCORES[2]] = p
    return pd.concat(per_gene, ignore_index=True), per_method
