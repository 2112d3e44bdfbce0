"""Predicted fates of progenitors along pseudotime, by a model of mature cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy.spatial.distance import cdist

from scdyn.data.corpus import Corpus
from scdyn.data.pca import Pca
from scdyn.errors import InputError
from scdyn.log import logger
from scdyn.pp.neighbours import compute_umap
from scdyn.pp.selection import draw_cells, select
from scdyn.studies.common import (
    MAX_SHOWN,
    MODEL,
    as_text,
    estimate_means,
    extract_probabilities,
    list_most_predicted,
    select_method,
    select_predicted,
    tabulate_cells,
)

N_POINTS = 60  # of a smoothed curve
KERNEL_WIDTH = 0.06  # of the progenitors' range of pseudotime, standard deviation
MAX_BINS, MIN_CELLS_PER_BIN = 10, 20  # bins of equal numbers of cells
MIN_WEIGHT = 5  # smallest summed kernel weight of a smoothed value, in cells
ROOT_SHARE = 0.05  # share of the predicted cells, furthest from the mature ones
MAX_FATES = 8  # fates whose probability is shown along pseudotime
MAX_DRIVER_FATES, MAX_DRIVERS = 4, 10  # fates whose drivers are shown, and drivers of each


def find_furthest_cells(
    values: np.ndarray, labels: np.ndarray, is_predicted: np.ndarray
) -> np.ndarray:
    """Find the predicted cells that are furthest from all mature classes.

    Predictions are not used, so that pseudotime is independent of the predicted fates.

    Parameters
    ----------
    values
        (cells, features), such as principal components.
    labels
        (cells,) the mature cells' classes.
    is_predicted
        (cells,) boolean: the predicted cells; the others are mature.

    Returns
    -------
    ndarray of bool, (cells,)
        The ``ROOT_SHARE`` of the predicted cells whose distance to the mean of the nearest
        mature class is largest.
    """
    means = pd.DataFrame(values[~is_predicted]).groupby(labels[~is_predicted]).mean().to_numpy()
    distance = cdist(values, means).min(1)
    distance[~is_predicted] = -1
    chosen = np.zeros(len(values), dtype=bool)
    chosen[
        np.argsort(-distance, kind="stable")[: max(1, round(ROOT_SHARE * is_predicted.sum()))]
    ] = True
    return chosen


def compute_diffusion_pseudotime(values: np.ndarray, root: np.ndarray, seed: int) -> np.ndarray:
    """Diffusion pseudotime (Haghverdi et al. 2016, by scanpy) from a root cell.

    Parameters
    ----------
    values
        (cells, features), such as principal components.
    root
        (cells,) boolean: candidates for the root, which is the one nearest to their mean in
        diffusion components.
    seed
        Seed of the neighbours.

    Returns
    -------
    ndarray, (cells,)
        0 to 1; NaN in cells that are not connected to the root.
    """
    table = ad.AnnData(obs=pd.DataFrame(index=map(str, range(len(values)))))
    table.obsm["values"] = values
    sc.pp.neighbors(table, use_rep="values", random_state=seed)
    n_components = min(15, len(values) - 2)
    sc.tl.diffmap(table, n_comps=n_components, random_state=seed)
    components = table.obsm["X_diffmap"]
    candidates = np.flatnonzero(root)
    distance = np.linalg.norm(components[candidates] - components[candidates].mean(0), axis=1)
    table.uns["iroot"] = int(candidates[distance.argmin()])
    sc.tl.dpt(table, n_dcs=min(10, n_components))
    pseudotime = table.obs["dpt_pseudotime"].to_numpy(dtype=float)
    return np.where(np.isfinite(pseudotime), pseudotime, np.nan)


def compute_pseudotime(
    obs: pd.DataFrame,
    components: np.ndarray,
    table: pd.DataFrame,
    root: Mapping[str, Sequence[object]] | None,
    column: str | None,
    seed: int,
) -> np.ndarray:
    """Read the pseudotime of the shown cells from a column, or compute it by diffusion.

    Parameters
    ----------
    obs
        Rows of the table of cells: the shown cells.
    components
        (cells, components) of the RNA of these cells.
    table
        ``part`` and ``label`` of these cells.
    root
        Selection of the root cells; None for the predicted cells furthest from the mature ones
        (:func:`find_furthest_cells`).
    column
        Column of ``obs`` with a pseudotime; None for diffusion pseudotime.
    seed
        Seed of the neighbours.

    Raises
    ------
    InputError
        If the column is missing or has no numbers, or there are no root cells.
    """
    if column is not None:
        if column not in obs:
            raise InputError(
                "STUDY",
                f"studies: pseudotime: the cells have no column '{column}' (columns: "
                f"{', '.join(obs)}).",
            )
        values = pd.to_numeric(obs[column].astype(object), errors="coerce").to_numpy(float)
        if not np.isfinite(values).any():
            raise InputError(
                "STUDY",
                f"studies: pseudotime: the column '{column}' has no numbers; name another column, "
                "or set pseudotime to null to compute it.",
            )
        return values
    is_predicted = (table["part"] == "predict").to_numpy()
    if root is not None:
        start = select(obs, root, "studies: root")
    elif is_predicted.any() and not is_predicted.all():
        start = find_furthest_cells(components, table["label"].to_numpy(), is_predicted)
    else:
        raise InputError(
            "STUDY",
            "studies: the task predicts no cells other than its labelled cells, so pseudotime has "
            "no root; set root or pseudotime of the study.",
        )
    pseudotime = compute_diffusion_pseudotime(components, start, seed)
    logger.info("pseudotime: %d cells are not connected to the root", np.isnan(pseudotime).sum())
    return pseudotime


def choose_shown_cells(
    obs: pd.DataFrame,
    predictions: pd.DataFrame,
    label: str,
    root: Mapping[str, Sequence[object]] | None,
    seed: int,
) -> pd.DataFrame:
    """Tabulate the predicted cells, of more than :data:`MAX_SHOWN` a draw.

    Parameters
    ----------
    obs, predictions, label
        As :func:`scdyn.studies.common.tabulate_cells`.
    root
        As :func:`compute_pseudotime`.
    seed
        Seed of the draw, which is in proportion to part, prediction and the columns of the root.

    Returns
    -------
    DataFrame
        Rows of :func:`scdyn.studies.common.tabulate_cells`.
    """
    table = tabulate_cells(obs, predictions, label)
    of_root = {
        f"root {name}": as_text(obs.loc[table["cell"], name]).to_numpy()
        for name in root or {}
        if name in obs
    }
    strata = table[["part", "predicted"]].assign(**of_root)
    return table.iloc[draw_cells(strata, MAX_SHOWN, seed)].reset_index(drop=True)


def development_table(
    shown: pd.DataFrame,
    obs: pd.DataFrame,
    components: np.ndarray,
    predictions: pd.DataFrame,
    single_modality: Mapping[str, str],
    *,
    root: Mapping[str, Sequence[str]] | None,
    pseudotime: str | None,
    seed: int,
) -> pd.DataFrame:
    """Tabulate the shown cells with their predictions and pseudotime.

    Parameters
    ----------
    shown
        Of :func:`choose_shown_cells`.
    obs
        The table of cells.
    components
        (shown cells, components) of the RNA.
    predictions
        The task's predictions.
    single_modality
        Modality to the method that reads only this modality; may be empty.
    root, pseudotime, seed
        As ``root``, ``column`` and ``seed`` of :func:`compute_pseudotime`.

    Returns
    -------
    DataFrame
        ``shown``, with ``pseudotime``, ``predicted_<modality>`` (prediction from this modality
        only) and ``p_<class>``.
    """
    time = compute_pseudotime(obs.loc[shown["cell"]], components, shown, root, pseudotime, seed)
    table = shown.assign(pseudotime=time)
    for modality, method in single_modality.items():
        predicted = select_method(predictions, method)["predicted"]
        table[f"predicted_{modality}"] = predicted.reindex(table["cell"]).to_numpy()
    p = extract_probabilities(select_method(predictions, MODEL)).loc[table["cell"]]
    return table.join(p.add_prefix("p_").reset_index(drop=True))


def select_progenitors(table: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """Select the progenitors: predicted cells (:func:`select_predicted`) with a pseudotime."""
    is_predicted = table["cell"].isin(select_predicted(predictions, MODEL).index)
    return table[is_predicted & table["pseudotime"].notna()].reset_index(drop=True)


def compute_kernel(pseudotime: np.ndarray, points: np.ndarray, width: float) -> np.ndarray:
    """Compute Gaussian weights of cells around points of pseudotime: (points, cells)."""
    return np.exp(-0.5 * ((points[:, None] - pseudotime) / width) ** 2)


def fate_trends(table: pd.DataFrame, fates: Sequence[str], seed: int) -> pd.DataFrame:
    """Smooth the probability of the predicted fate along pseudotime, by predicted fate.

    Parameters
    ----------
    table
        Of :func:`select_progenitors`.
    fates
        Predicted fates to show.
    seed
        Seed of the bootstrap over cells.

    Returns
    -------
    DataFrame
        ``measure`` ("probability of the predicted fate"), ``of`` (fate), ``pseudotime``,
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
                    "measure": "probability of the predicted fate",
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
    """Choose the fate that predictions from one modality are compared with, and its description.

    The cells' labels if all are classes of the model; otherwise the predictions from both
    modalities.
    """
    classes = extract_probabilities(table).columns
    if table["label"].isin(classes).all():
        return table["label"], "the label"
    return table["predicted"], "the prediction from both modalities"


def measure_agreement(table: pd.DataFrame, modalities: Sequence[str], seed: int) -> pd.DataFrame:
    """Measure how often one modality predicts the reference fate, in bins of pseudotime.

    Parameters
    ----------
    table
        Of :func:`select_progenitors`, with ``predicted_<modality>``.
    modalities
        The modalities. With two, their paired difference is added.
    seed
        Seed of the bootstrap over cells.

    Returns
    -------
    DataFrame
        ``measure`` ("agreement with ..."), ``of`` (modality, or "a - b"), ``pseudotime`` (median
        of the bin), ``n_cells``, ``value`` (share of the bin's cells, or difference of shares),
        ``low``, ``high``, ``chance`` (the share expected for independent predictions and fates).
    """
    reference, description = choose_reference(table)
    n_bins = int(np.clip(len(table) // MIN_CELLS_PER_BIN, 1, MAX_BINS))
    bins = pd.qcut(table["pseudotime"].rank(method="first"), n_bins, labels=False)
    member = (bins.to_numpy() == np.arange(n_bins)[:, None]).astype(float)
    right = {name: (table[f"predicted_{name}"] == reference).to_numpy(float) for name in modalities}
    chance = {
        name: [chance_agreement(reference[bins == i], table.loc[bins == i, f"predicted_{name}"])
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
                    "measure": f"agreement with {description}",
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
    """Expected share of cells in which two independent predictions agree."""
    shares = [x.value_counts(normalize=True) for x in (a, b)]
    return float(shares[0].mul(shares[1], fill_value=0).sum())


@dataclass(frozen=True)
class Development:
    """Results of a development study."""

    cells: pd.DataFrame
    """Every shown cell, as :func:`development_table`."""
    is_progenitor: np.ndarray
    """(cells,) of bool: predicted cells with a pseudotime."""
    layout: np.ndarray
    """(cells, 2): UMAP of the RNA."""
    trends: pd.DataFrame
    """As :func:`fate_trends`."""
    agreement: pd.DataFrame | None
    """As :func:`measure_agreement`; None without predictions from single modalities."""

    @property
    def along_pseudotime(self) -> pd.DataFrame:
        """Both kinds of trend in one table; ``chance`` is NaN for fate trends."""
        trends = self.trends.assign(chance=np.nan)
        if self.agreement is None:
            return trends
        return pd.concat([trends, self.agreement], ignore_index=True)


def study_development(
    corpus: Corpus,
    pca: Pca,
    obs: pd.DataFrame,
    predictions: pd.DataFrame,
    *,
    label: str,
    single_modality: Mapping[str, str],
    root: Mapping[str, Sequence[str]] | None,
    pseudotime: str | None,
    seed: int,
) -> Development:
    """Study the predicted fates of progenitors along pseudotime.

    Parameters
    ----------
    corpus, pca
        The cells and their principal components (:func:`scdyn.data.pca.open_pca`).
    obs, predictions, label
        As :func:`choose_shown_cells`.
    single_modality, root, pseudotime
        As :func:`development_table`.
    seed
        Seed of the shown cells, pseudotime, the bootstraps and the layout.
    """
    shown = choose_shown_cells(obs, predictions, label, root, seed)
    components = pca.select(corpus.find_rows(shown["cell"]), "rna")
    table = development_table(
        shown, obs, components, predictions, single_modality, root=root, pseudotime=pseudotime,
        seed=seed,
    )  # fmt: skip
    progenitors = select_progenitors(table, predictions)
    fates = list_most_predicted(progenitors["predicted"], MAX_FATES)
    return Development(
        cells=table,
        is_progenitor=table["cell"].isin(progenitors["cell"]).to_numpy(),
        layout=compute_umap(components, seed),
        trends=fate_trends(progenitors, fates, seed),
        agreement=measure_agreement(progenitors, list(single_modality), seed)
        if single_modality
        else None,
    )


def driver_trends(
    corpus: Corpus,
    table: pd.DataFrame,
    drivers: pd.DataFrame,
    n_fates: int = MAX_DRIVER_FATES,
    n_genes: int = MAX_DRIVERS,
) -> tuple[np.ndarray, pd.DataFrame, list[str], dict[str, np.ndarray]]:
    """Smooth the expression of each fate's drivers along pseudotime, by fate.

    Parameters
    ----------
    corpus
        The cells.
    table
        Of :func:`development_table`.
    drivers
        ``gene_id``, ``symbol``, ``class``, sorted by decreasing specificity.
    n_fates, n_genes
        Number of the most frequently predicted fates, and of drivers of each.

    Returns
    -------
    points : ndarray, (points,)
        Pseudotime.
    genes : DataFrame
        ``gene_id``, ``symbol``, ``class``: the drivers shown, without duplicates.
    fates : list of str
        Empty if no predicted fate has drivers.
    trends : dict
        Fate to (genes, points): kernel-smoothed log-normalised RNA of the cells with that predicted
        fate, each gene standardised over all fates; NaN if the kernel weights sum to less than
        ``MIN_WEIGHT`` cells.
    """
    table = table[table["pseudotime"].notna()]
    queries = table[table["part"] == "predict"] if (table["part"] == "predict").any() else table
    predicted = queries["predicted"][queries["predicted"].isin(drivers["class"])]
    fates = list(predicted.value_counts().index[:n_fates])
    # A gene that drives two fates is kept for the one with the higher specificity.
    genes = drivers[drivers["class"].isin(fates)].groupby("class").head(n_genes)
    genes = genes.drop_duplicates("gene_id")
    genes = genes.sort_values("class", key=lambda names: names.map(fates.index), kind="stable")
    time = table["pseudotime"].to_numpy()
    points = np.linspace(time.min(), time.max(), N_POINTS)
    columns = pd.Index(corpus.genes["gene_id"]).get_indexer(genes["gene_id"])
    blocks = corpus.iter_blocks(corpus.find_rows(table["cell"]), ["rna_log"])
    values = np.concatenate([block.layers["rna_log"][:, columns].toarray() for block in blocks])
    trends = {}
    for fate in fates:
        chosen = (table["predicted"] == fate).to_numpy()
        weights = compute_kernel(time[chosen], points, KERNEL_WIDTH * np.ptp(time))
        smooth = (weights @ values[chosen] / weights.sum(1, keepdims=True)).T
        trends[fate] = np.where(weights.sum(1) < MIN_WEIGHT, np.nan, smooth)
    if fates:
        together = np.concatenate(list(trends.values()), axis=1)
        mean, spread = np.nanmean(together, 1), np.maximum(np.nanstd(together, 1), 1e-9)
        trends = {f: (part - mean[:, None]) / spread[:, None] for f, part in trends.items()}
    columns = ["gene_id", "symbol", "class"]
    return points, genes[columns].reset_index(drop=True), fates, trends
