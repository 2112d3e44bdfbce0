"""Edits of measured cells: genes that are silenced or raised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from scdyn.data.loader import MemoryStore, Store, densify
from scdyn.errors import InputError
from scdyn.explain.checks import average_expression, silence
from scdyn.explain.matching import draw_matched_genes
from scdyn.settings import EditSettings

# A raised gene is set to this quantile of its share of the counts, of cells that express it.
HIGH_QUANTILE = 0.95


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
    """List the default edits: silence the best TFs of each class in its cells."""
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
    most = torch.iinfo(counts.dtype).max
    raised = (high[genes] * total).round().clamp(min=1, max=most).to(counts.dtype)
    counts = counts.clone()
    counts[:, genes] = torch.where(counts[:, genes] < 0, counts[:, genes], raised)
    return counts


class EditableCells:
    """Cells to edit.

    Parameters
    ----------
    store, rows
        The cells.
    all_rows
        Cells of all classes, from which the high shares are computed; ``rows`` if None.
    """

    def __init__(self, store: Store, rows: np.ndarray, all_rows: np.ndarray | None = None) -> None:
        self.counts = densify(store, rows)
        self.expression = average_expression(*self.counts)
        others = self.counts if all_rows is None else densify(store, all_rows)
        self.high = [find_high_shares(counts) for counts in others]

    def apply(self, edit: Edit | None) -> MemoryStore:
        """Return the cells after an edit, or without one."""
        if edit is None:
            return MemoryStore.from_dense(*self.counts)
        edited = (apply_edit(edit, *pair) for pair in zip(self.counts, self.high, strict=True))
        return MemoryStore.from_dense(*edited)


def draw_edits(
    edit: Edit, expression: np.ndarray, n_random: int, rng: np.random.Generator
) -> list[Edit]:
    """Draw edits of random genes, matched to an edit in number and mean expression (genes,)."""
    genes = np.array(edit.genes)
    draws = [draw_matched_genes(expression, genes, rng) for _ in range(n_random)]
    return [Edit("", tuple(draw.tolist()), edit.raised) for draw in draws]


def draw_edits_of_classes(
    store: Store,
    rows: Mapping[str, np.ndarray],
    edits: Sequence[Edit],
    n_random: int,
    seed: int,
) -> dict[tuple[str, Edit], list[Edit]]:
    """Draw random edits for each class and each edit of its cells, the same in every run of a task.

    Parameters
    ----------
    store, rows
        Tokens, and class to its cells in all runs.
    edits
        As :func:`list_edits`.
    n_random, seed
        Number of draws, and their seed.
    """
    drawn = {}
    for i, (label, places) in enumerate(rows.items()):
        expression = average_expression(*densify(store, places))
        for edit in edits:
            if edit.only_in in (None, label):
                rng = np.random.default_rng([seed, i, *edit.genes])
                drawn[label, edit] = draw_edits(edit, expression, n_random, rng)
    return drawn
