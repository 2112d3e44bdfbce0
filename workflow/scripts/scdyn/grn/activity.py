"""Activity of regulons per cell (AUCell), and their specificity per label (RSS)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from anndata.io import read_elem
from scipy import sparse
from scipy.spatial.distance import jensenshannon

from scdyn.data.corpus import Corpus
from scdyn.errors import InputError
from scdyn.io.artefacts import (
    ALL_CHUNKS,
    open_zarr,
    read_zarr_stamp,
    reading_artefact,
    write_zarr,
)
from scdyn.io.files import atomic
from scdyn.pp.metadata import add_labels
from scdyn.pp.selection import draw_cells

CELLS_AT_ONCE = 2048
# Most cells whose activities are compared, of all labels in proportion.
COMPARED = 50_000


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


def draw_activity(
    path: str | Path, corpus: Corpus, table: pd.DataFrame, labels: Sequence[str], seed: int
) -> tuple[str, ad.AnnData]:
    """Read the activities of at most :data:`COMPARED` labelled cells, of all labels in proportion.

    Parameters
    ----------
    path
        Folder of :func:`score_regulons`.
    corpus, table
        The corpus, and its table of cells.
    labels
        Label columns, in order of preference; ``sample`` is used if the cells have none of them.
    seed
        Of the draw.

    Returns
    -------
    by : str
        The column used.
    cells : AnnData
        As :func:`read_activity`, with the columns of the table in ``obs``.
    """
    by = next((name for name in labels if name in table), "sample")
    labelled = np.flatnonzero(table[by].notna())
    rows = labelled[draw_cells(table[[by]].iloc[labelled], COMPARED, seed)]
    return by, add_labels(read_activity(path, corpus, rows), table)


def specificity_table(specificity: pd.DataFrame, by: str) -> pd.DataFrame:
    """Melt specificities (labels, regulons) to ``by``, ``regulon``, ``rss``, highest first."""
    table = specificity.rename_axis(by).melt(
        ignore_index=False, var_name="regulon", value_name="rss"
    )
    return table.reset_index().sort_values([by, "rss"], ascending=[True, False])


def score_regulons(
    corpus: Corpus,
    path: str | Path,
    genes: Sequence[str],
    regulons: pd.DataFrame,
    *,
    threshold: float,
    seed: int,
) -> None:
    """Score the regulons in all cells of a corpus by AUCell on the log-normalised RNA.

    Parameters
    ----------
    corpus
        The cells.
    path
        Folder, ``NAME.zarr``: an AnnData with the activities (cells, regulons) of float32 in ``X``,
        ``sample`` in ``obs``, and ``tf`` and ``n_targets`` in ``var``. Written atomically.
    genes
        Symbols of the genes that are ranked: the genes of the GRN inference. Of several genes with
        one symbol the first is used.
    regulons
        ``regulon``, ``tf``, ``target``.
    threshold, seed
        As :func:`aucell`.
    """
    symbols = corpus.genes["symbol"].astype(str)
    column = pd.Series(range(corpus.n_genes), index=symbols)
    columns = column[~column.index.duplicated()][list(genes)]
    grouped = regulons.groupby("regulon", sort=False)
    var = pd.DataFrame({"tf": grouped["tf"].first(), "n_targets": grouped.size()})
    var = var.loc[regulons["regulon"].unique()].rename_axis(None)
    # Activities, which follow below, are written block by block.
    table = ad.AnnData(obs=corpus.obs[["sample"]].rename_axis(None), var=var)
    with atomic(path) as temporary:
        group = write_zarr(temporary, table, {"corpus": corpus.id})
        array = group.create_array(
            "X",
            shape=table.shape,
            dtype="float32",
            chunks=(min(CELLS_AT_ONCE, len(corpus)), max(len(var), 1)),
            attributes={"encoding-type": "array", "encoding-version": "0.2.0"},
            config=ALL_CHUNKS,
        )
        for block in corpus.iter_blocks(layers=["rna_log"], size=CELLS_AT_ONCE):
            values = block.layers["rna_log"][:, columns]
            activity = aucell(values, list(genes), regulons, threshold, seed)
            array[block.rows[0] : block.rows[-1] + 1] = activity.to_numpy(np.float32)


def read_activity(path: str | Path, corpus: Corpus, rows: np.ndarray) -> ad.AnnData:
    """Read the activities of some cells, ascending rows, from a folder of :func:`score_regulons`.

    Raises
    ------
    InputError
        If it cannot be read, or is of another corpus.
    """
    if read_zarr_stamp(Path(path)).get("corpus") != corpus.id:
        raise InputError(
            "CORPUS",
            f"{path}: was computed from another corpus than {corpus.folder}; remove the folder and "
            "run the workflow again.",
        )
    with reading_artefact(path):
        group = open_zarr(path)
        obs, var = read_elem(group["obs"]), read_elem(group["var"])
        return ad.AnnData(group["X"].oindex[rows], obs=obs.iloc[rows], var=var)
