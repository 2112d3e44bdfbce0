"""Activity of regulons per cell (AUCell), and their specificity per label (RSS)."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.spatial.distance import jensenshannon

from scdyn.errors import InputError

CELLS_AT_ONCE = 2048


def aucell(
    values: sparse.csr_matrix, genes: list[str], regulons: pd.DataFrame, threshold: float, seed: int
) -> pd.DataFrame:
    """Score regulons per cell by the recovery of their targets among the highest expressed genes.

    Equal to ``pyscenic aucell`` with the same matrix, gene sets and seed (Aibar et al. 2017), but
    without a dense ranking of all cells.

    Parameters
    ----------
    values
        (cells, genes), any monotonic measure of expression.
    genes
        Symbols of the genes that are ranked.
    regulons
        ``regulon``, ``target``.
    threshold
        Share of the ranking over which the area under the recovery curve is computed.
    seed
        Seed of the order of genes with equal expression (mostly zero).

    Returns
    -------
    DataFrame of float64, (cells, regulons)
        Columns in the order of ``regulons``.

    Raises
    ------
    InputError
        If the threshold is less than two genes.
    """
    # As in R's AUCell and pySCENIC, the last rank counts in the largest area, not in the area.
    n_best = round(threshold * len(genes)) - 1
    if n_best < 1:
        raise InputError(
            "REGULONS",
            f"grn.aucell_threshold {threshold:g} of {len(genes)} genes is less than two genes; "
            "raise it.",
        )
    order = pd.Series(np.arange(len(genes))).sample(frac=1, random_state=seed).to_numpy()
    names = regulons["regulon"].unique()
    column = pd.Series(np.arange(len(genes)), index=np.array(genes)[order])
    at = column[regulons["target"]].to_numpy(), pd.Index(names).get_indexer(regulons["regulon"])
    member = sparse.csr_matrix((np.ones(len(regulons)), at), shape=(len(genes), len(names)))
    sizes = np.asarray(member.sum(0)).ravel()
    result = np.empty((values.shape[0], len(names)))
    for start in range(0, len(result), CELLS_AT_ONCE):
        chunk = values[start : start + CELLS_AT_ONCE].toarray()[:, order]
        best = np.argsort(-chunk, axis=1, kind="stable")[:, :n_best]
        height = np.tile(np.arange(n_best, 0, -1.0), len(best))
        points = sparse.csr_matrix(
            (height, best.ravel(), np.arange(0, best.size + 1, n_best)), chunk.shape
        )
        result[start : start + len(chunk)] = (points @ member).toarray() / ((n_best + 1) * sizes)
    return pd.DataFrame(result, columns=names)


def regulon_specificity(activity: pd.DataFrame, labels: pd.Series) -> pd.DataFrame:
    """Score how specific the activity of each regulon is to each label (RSS, Suo et al. 2018).

    Parameters
    ----------
    activity
        (cells, regulons), not negative.
    labels
        (cells,) names; cells without a label are left out.

    Returns
    -------
    DataFrame, (labels, regulons)
        1 - Jensen-Shannon distance between the distributions over cells of activity and label; NaN
        for a regulon without activity.
    """
    labelled = labels.notna().to_numpy()
    values, labels = activity.to_numpy()[labelled], labels[labelled].astype(str).to_numpy()
    names = np.unique(labels)
    totals = values.sum(0)
    shares = values / np.where(totals > 0, totals, np.nan)
    rows = []
    for name in names:
        has_name = np.repeat((labels == name).astype(float)[:, None], shares.shape[1], axis=1)
        rows.append(1 - jensenshannon(shares, has_name, axis=0))
    return pd.DataFrame(rows, index=names, columns=activity.columns)


def compare_activity(cells: ad.AnnData, labels: Sequence[str]) -> tuple[str, pd.DataFrame]:
    """Score the regulons' specificity by the first label column that the cells have.

    Parameters
    ----------
    cells
        As :func:`activity_table`, with the columns of the metadata in ``obs``.
    labels
        Label columns, in order of preference; ``sample`` is used if the cells have none of them.

    Returns
    -------
    by : str
        The column used.
    specificity : DataFrame
        As :func:`regulon_specificity`.
    """
    by = next((name for name in labels if name in cells.obs), "sample")
    return by, regulon_specificity(cells.to_df(), cells.obs[by])


def specificity_table(specificity: pd.DataFrame, by: str) -> pd.DataFrame:
    """Melt specificities (labels, regulons) to ``by``, ``regulon``, ``rss``, highest first."""
    table = specificity.rename_axis(by).melt(
        ignore_index=False, var_name="regulon", value_name="rss"
    )
    return table.reset_index().sort_values([by, "rss"], ascending=[True, False])


def score_regulons(
    cells: ad.AnnData, genes: Sequence[str], regulons: pd.DataFrame, *, threshold: float, seed: int
) -> ad.AnnData:
    """Score the regulons in all cells of a corpus by AUCell on the log-normalised RNA.

    Parameters
    ----------
    cells
        The corpus: ``layers["rna_log"]``, ``var["symbol"]`` and ``obs["sample"]``.
    genes
        Symbols of the genes that are ranked: the genes of the GRN inference. Of several genes with
        one symbol the first is used.
    regulons
        ``regulon``, ``tf``, ``target``.
    threshold, seed
        As :func:`aucell`.

    Returns
    -------
    AnnData
        As :func:`activity_table`.
    """
    column = pd.Series(range(cells.n_vars), index=cells.var["symbol"].astype(str))
    columns = column[~column.index.duplicated()][list(genes)]
    values = cells.layers["rna_log"][:, columns]
    activity = aucell(values, list(genes), regulons, threshold, seed)
    return activity_table(activity, regulons, cells.obs[["sample"]])


def activity_table(activity: pd.DataFrame, regulons: pd.DataFrame, obs: pd.DataFrame) -> ad.AnnData:
    """Make an AnnData of activities: ``X``; ``var`` with ``tf`` and ``n_targets``."""
    grouped = regulons.groupby("regulon", sort=False)
    var = pd.DataFrame({"tf": grouped["tf"].first(), "n_targets": grouped.size()})
    return ad.AnnData(
        activity.to_numpy(dtype=np.float32),
        obs=obs,
        var=var.loc[activity.columns].rename_axis(None),
    )
