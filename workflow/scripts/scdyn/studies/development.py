"""Fates of progenitors along pseudotime, called by a model of mature cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy.spatial.distance import cdist

from scdyn.errors import InputError
from scdyn.log import logger
from scdyn.pp.neighbours import compute_pca
from scdyn.pp.selection import select
from scdyn.studies.common import (
    MODEL,
    estimate_means,
    extract_probabilities,
    lay_out_rna,
    list_most_predicted,
    select_method,
    select_predicted,
    tabulate_cells,
)

N_POINTS = 60  # of a smoothed curve
KERNEL_WIDTH = 0.06  # of the progenitors' range of pseudotime, standard deviation
MOST_BINS, LEAST_CELLS_OF_BIN = 10, 20  # bins of equal numbers of cells
FEWEST = 5  # cells, that a smoothed value needs
ROOT_SHARE = 0.05  # of the predicted cells, furthest from the mature ones
MOST_FATES = 8  # whose probability is followed along pseudotime
MOST_DRIVEN_FATES, MOST_DRIVERS = 4, 10  # fates whose drivers are followed, and drivers of each


def find_furthest_cells(values: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Those of the predicted cells that are least like any mature class.

    Calls play no part, so that a pseudotime from there is not made of what it is held against.

    Parameters
    ----------
    values
        (cells, features), such as principal components.
    labels
        (cells,) the mature cells' classes.
    asked
        (cells,) boolean: the predicted cells; the others are mature.

    Returns
    -------
    ndarray of bool, (cells,)
        The ``ROOT_SHARE`` of the predicted cells whose distance to the mean of the nearest
        mature class is largest.
    """
    means = pd.DataFrame(values[~asked]).groupby(labels[~asked]).mean().to_numpy()
    distance = cdist(values, means).min(1)
    distance[~asked] = -1
    chosen = np.zeros(len(values), dtype=bool)
    chosen[np.argsort(-distance, kind="stable")[: max(1, round(ROOT_SHARE * asked.sum()))]] = True
    return chosen


def compute_diffusion_pseudotime(values: np.ndarray, root: np.ndarray, seed: int) -> np.ndarray:
    """Diffusion pseudotime (Haghverdi et al. 2016, by scanpy) from the middle of some cells.

    Parameters
    ----------
    values
        (cells, features), such as principal components.
    root
        (cells,) boolean: it starts in the one nearest to their mean in diffusion space.
    seed
        Of the neighbours.

    Returns
    -------
    ndarray, (cells,)
        0 to 1; NaN in cells that no path of neighbours joins to the root.
    """
    table = ad.AnnData(obs=pd.DataFrame(index=map(str, range(len(values)))))
    table.obsm["values"] = values
    sc.pp.neighbors(table, use_rep="values", random_state=seed)
    n_components = min(15, len(values) - 2)
    sc.tl.diffmap(table, n_comps=n_components, random_state=seed)
    places = table.obsm["X_diffmap"]
    candidates = np.flatnonzero(root)
    distance = np.linalg.norm(places[candidates] - places[candidates].mean(0), axis=1)
    table.uns["iroot"] = int(candidates[distance.argmin()])
    sc.tl.dpt(table, n_dcs=min(10, n_components))
    pseudotime = table.obs["dpt_pseudotime"].to_numpy(dtype=float)
    return np.where(np.isfinite(pseudotime), pseudotime, np.nan)


def compute_pseudotime(
    cells: ad.AnnData,
    table: pd.DataFrame,
    root: Mapping[str, Sequence[object]] | None,
    column: str | None,
    seed: int,
) -> np.ndarray:
    """Pseudotime of the shown cells: a column of theirs, or by diffusion.

    Parameters
    ----------
    cells
        The shown cells, with ``layers["rna_log"]``.
    table
        Of these cells, with ``part`` and ``label``.
    root
        Selection of the cells it starts from; None for the predicted cells furthest from the
        mature ones (:func:`find_furthest_cells`).
    column
        Of ``obs`` with a pseudotime; None for diffusion pseudotime.
    seed
        Of the components and the neighbours.

    Raises
    ------
    InputError
        If the column is not there or holds no numbers, or a start can be neither read nor found.
    """
    if column is not None:
        if column not in cells.obs:
            raise InputError(
                "STUDY",
                f"studies: pseudotime is '{column}', but the cells have no such column; they have "
                f"{', '.join(cells.obs)}.",
            )
        values = pd.to_numeric(cells.obs[column].astype(object), errors="coerce").to_numpy(float)
        if not np.isfinite(values).any():
            raise InputError(
                "STUDY", f"studies: the column '{column}' (pseudotime) holds no numbers."
            )
        return values
    values = compute_pca(cells, seed)
    asked = (table["part"] == "predict").to_numpy()
    if root is not None:
        start = select(cells.obs, root, "studies: root")
    elif asked.any() and not asked.all():
        start = find_furthest_cells(values, table["label"].to_numpy(), asked)
    else:
        raise InputError(
            "STUDY",
            "studies: the task predicts no cells beside those it learns from, so that pseudotime "
            "has no start; name the study's root or pseudotime.",
        )
    pseudotime = compute_diffusion_pseudotime(values, start, seed)
    logger.info("%d cells are joined to no root of pseudotime", np.isnan(pseudotime).sum())
    return pseudotime


def development_table(
    cells: ad.AnnData,
    predictions: pd.DataFrame,
    label: str,
    alone: Mapping[str, str],
    *,
    root: Mapping[str, Sequence[str]] | None,
    pseudotime: str | None,
    seed: int,
) -> pd.DataFrame:
    """Every shown cell with its predictions and its pseudotime.

    Parameters
    ----------
    cells, predictions, label
        The corpus, the task's predictions, the column of its label.
    alone
        Modality to the method that reads it alone; may be empty.
    root, pseudotime, seed
        As ``root``, ``column`` and ``seed`` of :func:`compute_pseudotime`.

    Returns
    -------
    DataFrame
        As :func:`scdyn.studies.common.tabulate_cells`, with ``pseudotime``, ``predicted_<modality>``
        (what the modality alone predictions) and ``p_<class>``.
    """
    table = tabulate_cells(cells, predictions, label)
    shown = cells[table["cell"]]
    table["pseudotime"] = compute_pseudotime(shown, table, root, pseudotime, seed)
    for modality, method in alone.items():
        called = select_method(predictions, method)["predicted"]
        table[f"predicted_{modality}"] = called.reindex(table["cell"]).to_numpy()
    p = extract_probabilities(select_method(predictions, MODEL)).loc[table["cell"]]
    return table.join(p.add_prefix("p_").reset_index(drop=True))


def select_progenitors(table: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """Rows of the cells the study asks about, those with a pseudotime."""
    asked = table["cell"].isin(select_predicted(predictions, MODEL).index)
    return table[asked & table["pseudotime"].notna()].reset_index(drop=True)


def compute_kernel(pseudotime: np.ndarray, points: np.ndarray, width: float) -> np.ndarray:
    """Gaussian weights of cells about points of pseudotime: (points, cells)."""
    return np.exp(-0.5 * ((points[:, None] - pseudotime) / width) ** 2)


def fate_trends(table: pd.DataFrame, fates: Sequence[str], seed: int) -> pd.DataFrame:
    """Probability of the called fate along pseudotime: a kernel-smoothed mean, by called fate.

    Parameters
    ----------
    table
        Of :func:`select_progenitors`.
    fates
        Called fates to show.
    seed
        Of the bootstrap over cells.

    Returns
    -------
    DataFrame
        ``measure`` ("probability of the called fate"), ``of`` (fate), ``pseudotime``,
        ``n_cells`` (of the fate), ``value``, ``low``, ``high``.
    """
    width = KERNEL_WIDTH * np.ptp(table["pseudotime"])
    parts = []
    for fate in fates:
        part = table[table["predicted"] == fate]
        time = part["pseudotime"].to_numpy()
        first, last = np.percentile(time, [2, 98])
        points = np.linspace(first, last, N_POINTS)
        mean, low, high = estimate_means(
            part[f"p_{fate}"].to_numpy(), compute_kernel(time, points, width or 1.0), seed
        )
        parts.append(
            pd.DataFrame(
                {
                    "measure": "probability of the called fate",
                    "of": fate,
                    "pseudotime": points,
                    "n_cells": len(part),
                    "value": mean,
                    "low": low,
                    "high": high,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def choose_reference(table: pd.DataFrame) -> tuple[pd.Series, str]:
    """The fate that one modality's predictions are held against, and what it is.

    The cells' own labels where all are fates that the model knows; otherwise what the model predictions
    from both modalities, and no more than that is claimed.
    """
    classes = extract_probabilities(table).columns
    if table["label"].isin(classes).all():
        return table["label"], "the label"
    return table["predicted"], "the prediction from both modalities"


def measure_agreement(table: pd.DataFrame, modalities: Sequence[str], seed: int) -> pd.DataFrame:
    """How often one modality alone predictions a cell's own fate, in bins of pseudotime.

    Parameters
    ----------
    table
        Of :func:`select_progenitors`, with ``predicted_<modality>``.
    modalities
        Those that were read alone. With two, their paired difference follows.
    seed
        Of the bootstrap over cells.

    Returns
    -------
    DataFrame
        ``measure`` ("agreement with ..."), ``of`` (modality, or "a - b"), ``pseudotime`` (median
        of the bin), ``n_cells``, ``value`` (share of the bin's cells, or difference of shares),
        ``low``, ``high``, ``chance`` (the share if predictions and fates fell together at random).
    """
    own, what = choose_reference(table)
    n_bins = int(np.clip(len(table) // LEAST_CELLS_OF_BIN, 1, MOST_BINS))
    bins = pd.qcut(table["pseudotime"].rank(method="first"), n_bins, labels=False)
    member = (bins.to_numpy() == np.arange(n_bins)[:, None]).astype(float)
    right = {name: (table[f"predicted_{name}"] == own).to_numpy(float) for name in modalities}
    chance = {
        name: [chance_agreement(own[bins == i], table.loc[bins == i, f"predicted_{name}"])
               for i in range(n_bins)]
        for name in modalities
    }  # fmt: skip
    if len(modalities) == 2:
        first, second = modalities
        right[f"{first} - {second}"] = right[first] - right[second]
        chance[f"{first} - {second}"] = [0.0] * n_bins
    middle = table["pseudotime"].groupby(bins).median().to_numpy()
    parts = []
    for name, values in right.items():
        mean, low, high = estimate_means(values, member, seed)
        parts.append(
            pd.DataFrame(
                {
                    "measure": f"agreement with {what}",
                    "of": name,
                    "pseudotime": middle,
                    "n_cells": member.sum(1).astype(int),
                    "value": mean,
                    "low": low,
                    "high": high,
                    "chance": chance[name],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def chance_agreement(a: pd.Series, b: pd.Series) -> float:
    """Share of cells in which two predictions agree if they fall together at random."""
    shares = [x.value_counts(normalize=True) for x in (a, b)]
    return float(shares[0].mul(shares[1], fill_value=0).sum())


@dataclass(frozen=True)
class Development:
    """What a study of development shows."""

    cells: pd.DataFrame
    """Every shown cell, as :func:`development_table`."""
    is_progenitor: np.ndarray
    """(cells,) of bool: whose fate is asked, with a pseudotime."""
    layout: np.ndarray
    """(cells, 2): UMAP of the RNA."""
    trends: pd.DataFrame
    """As :func:`fate_trends`."""
    agreement: pd.DataFrame | None
    """As :func:`measure_agreement`; None where no modality is read alone."""

    @property
    def along_pseudotime(self) -> pd.DataFrame:
        """Both kinds of trend in one table; ``chance`` is missing where there is none."""
        trends = self.trends.assign(chance=np.nan)
        if self.agreement is None:
            return trends
        return pd.concat([trends, self.agreement], ignore_index=True)


def study_development(
    cells: ad.AnnData,
    predictions: pd.DataFrame,
    *,
    label: str,
    alone: Mapping[str, str],
    root: Mapping[str, Sequence[str]] | None,
    pseudotime: str | None,
    seed: int,
) -> Development:
    """Follow the predicted fates of progenitors along pseudotime.

    Parameters
    ----------
    cells, predictions, label, alone, root, pseudotime
        As :func:`development_table`.
    seed
        Of pseudotime, of the bootstraps and of the layout.
    """
    table = development_table(
        cells, predictions, label, alone, root=root, pseudotime=pseudotime, seed=seed
    )
    asked = select_progenitors(table, predictions)
    fates = list_most_predicted(asked["predicted"], MOST_FATES)
    return Development(
        cells=table,
        is_progenitor=table["cell"].isin(asked["cell"]).to_numpy(),
        layout=lay_out_rna(cells[table["cell"]], seed),
        trends=fate_trends(asked, fates, seed),
        agreement=measure_agreement(asked, list(alone), seed) if alone else None,
    )


def driver_trends(
    expression: ad.AnnData,
    table: pd.DataFrame,
    drivers: pd.DataFrame,
    n_fates: int = MOST_DRIVEN_FATES,
    n_genes: int = MOST_DRIVERS,
) -> tuple[np.ndarray, pd.DataFrame, list[str], dict[str, np.ndarray]]:
    """Expression of each fate's drivers along pseudotime, fate by fate.

    Parameters
    ----------
    expression
        The corpus, with ``layers["rna_log"]``.
    table
        Of :func:`development_table`.
    drivers
        ``gene_id``, ``symbol``, ``class``, by falling specificity.
    n_fates, n_genes
        The most called fates among the predicted cells, and drivers of each.

    Returns
    -------
    points : ndarray, (points,)
        Pseudotime.
    genes : DataFrame
        ``gene_id``, ``symbol``, ``class``: the drivers shown, a gene once.
    fates : list of str
        None where no called fate has drivers.
    trends : dict
        Fate to (genes, points): kernel-smoothed log-normalised RNA of the cells called that fate,
        each gene standardised over all fates; NaN where fewer than ``FEWEST`` cells weigh in.
    """
    table = table[table["pseudotime"].notna()]
    asked = table[table["part"] == "predict"] if (table["part"] == "predict").any() else table
    known = asked["predicted"][asked["predicted"].isin(drivers["class"])]
    fates = list(known.value_counts().index[:n_fates])
    # First the best of each fate, then a gene of two fates once, where its specificity is higher.
    genes = drivers[drivers["class"].isin(fates)].groupby("class").head(n_genes)
    genes = genes.drop_duplicates("gene_id")
    genes = genes.sort_values("class", key=lambda names: names.map(fates.index), kind="stable")
    time = table["pseudotime"].to_numpy()
    points = np.linspace(time.min(), time.max(), N_POINTS)
    values = expression[table["cell"], genes["gene_id"]].layers["rna_log"].toarray()
    trends = {}
    for fate in fates:
        chosen = (table["predicted"] == fate).to_numpy()
        weights = compute_kernel(time[chosen], points, KERNEL_WIDTH * np.ptp(time))
        smooth = (weights @ values[chosen] / weights.sum(1, keepdims=True)).T
        trends[fate] = np.where(weights.sum(1) < FEWEST, np.nan, smooth)
    if fates:
        together = np.concatenate(list(trends.values()), axis=1)
        mean, spread = np.nanmean(together, 1), np.maximum(np.nanstd(together, 1), 1e-9)
        trends = {f: (part - mean[:, None]) / spread[:, None] for f, part in trends.items()}
    columns = ["gene_id", "symbol", "class"]
    return points, genes[columns].reset_index(drop=True), fates, trends
