"""Edges of a gene regulatory network as arrays of TFs by targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from scdyn.errors import InputError
from scdyn.io.artefacts import read_arrays, reading_artefact, write_arrays

# Rows of a table that are in memory at once.
ROWS_AT_ONCE = 500_000


@dataclass(frozen=True)
class Edges:
    """Edges of one run of the inference."""

    tfs: np.ndarray
    """(TFs,) symbols."""
    targets: np.ndarray
    """(targets,) symbols."""
    importance: np.ndarray
    """(TFs, targets) of float32, 0 where there is no edge."""

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a file of :meth:`write`."""
        arrays = read_arrays(path)
        with reading_artefact(path):
            return cls(**{field.name: arrays[field.name] for field in fields(cls)})

    def write(self, path: str | Path) -> None:
        """Write the arrays as npz, atomically."""
        write_arrays(path, vars(self))

    def locate(
        self, tf: Sequence[str] | pd.Series, target: Sequence[str] | pd.Series
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and columns of pairs of a TF and a target.

        Raises
        ------
        KeyError
            If a TF or a target is not among these.
        """
        names = (self.tfs, tf), (self.targets, target)
        row, column = (pd.Series(range(len(of)), index=of)[asked] for of, asked in names)
        return row.to_numpy(), column.to_numpy()

    def require_genes(self, tfs: np.ndarray, genes: np.ndarray | list[str], what: str) -> None:
        """Refuse edges whose TFs or targets are not the given ones, in this order.

        Raises
        ------
        InputError
            If they differ; its message begins with ``what``.
        """
        if not (np.array_equal(self.tfs, tfs) and np.array_equal(self.targets, genes)):
            raise InputError(
                "REGULONS",
                f"{what}: its TFs or targets are not those of the expression matrix; infer the "
                "edges again from this matrix (in the workflow, remove the folder of the run).",
            )


@dataclass(frozen=True)
class MergedEdges(Edges):
    """Edges of several runs: mean importance (0 in a run without the edge) and evidence."""

    n_runs: np.ndarray
    """(TFs, targets) of int16, number of runs with the edge."""
    correlation: np.ndarray
    """(TFs, targets) of float32, Pearson's; as all evidence NaN where no run has the edge."""
    promoter_score: np.ndarray
    """(TFs, targets) of float32, NaN where not tested."""
    promoter_p: np.ndarray
    """(TFs, targets) of float32, NaN where not tested."""

    def iter_tables(self) -> Iterator[pd.DataFrame]:
        """Tabulate the edges of any run, strongest first, :data:`ROWS_AT_ONCE` at a time.

        Yields
        ------
        DataFrame
            ``tf``, ``target`` and the other arrays' values.
        """
        tf, target = (index.astype(np.int32) for index in np.nonzero(self.n_runs))
        # Edges of the same importance are sorted by name.
        by_name = (np.argsort(np.argsort(names)) for names in (self.targets, self.tfs))
        of_target, of_tf = (ranks.astype(np.int32) for ranks in by_name)
        order = np.lexsort((of_target[target], of_tf[tf], -self.importance[tf, target]))
        tfs, targets = (names.astype(object) for names in (self.tfs, self.targets))
        for start in range(0, len(order), ROWS_AT_ONCE):
            part = order[start : start + ROWS_AT_ONCE]
            at = tf[part], target[part]
            values = {
                field.name: getattr(self, field.name)[at]
                for field in fields(self)
                if field.name not in ("tfs", "targets")
            }
            yield pd.DataFrame({"tf": tfs[at[0]], "target": targets[at[1]], **values})


def rank_edges(importance: np.ndarray, axis: int) -> np.ndarray:
    """Rank the values along an axis, largest first; of equal ones, the first is before the others.

    Parameters
    ----------
    importance
        (TFs, targets).
    axis
        0: rank the TFs per target; 1: rank the targets per TF.

    Returns
    -------
    ndarray of int32, (TFs, targets)
        0 for the largest.
    """
    order = np.argsort(-importance, axis=axis, kind="stable")
    ranks = np.empty(importance.shape, dtype=np.int32)
    numbers = np.arange(importance.shape[axis], dtype=np.int32)
    np.put_along_axis(ranks, order, numbers[:, None] if axis == 0 else numbers, axis)
    return ranks
