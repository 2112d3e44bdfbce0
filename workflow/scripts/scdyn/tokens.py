"""Regulon-aware vocabulary and binned values: what the model reads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import zarr
from scipy import sparse

from scdyn.errors import InputError
from scdyn.files import atomic, sha256, write_json, write_table

MODALITIES = {"rna": "rna_log", "promoter": "promoter_log"}


def bin_values(values: sparse.spmatrix, n_bins: int) -> sparse.csr_matrix:
    """Bin log-normalised values as the paper does: bin = ceil(value), at most ``n_bins``.

    Zero stays zero, so the result is as sparse as the input.
    """
    binned = sparse.csr_matrix(values, copy=True)
    binned.sort_indices()
    binned.data = np.clip(np.ceil(binned.data), 0, n_bins)
    binned = binned.astype(np.uint8)
    binned.eliminate_zeros()
    return binned


def add_regulons(genes: pd.DataFrame, regulons: pd.DataFrame) -> pd.DataFrame:
    """Add to each gene of the vocabulary the TFs whose regulons hold it (column ``regulons``)."""
    of_gene = regulons.sort_values(["target", "tf"]).groupby("target")["tf"].agg(",".join)
    return genes.assign(regulons=genes["symbol"].map(of_gene).fillna(""))


def regulon_weights(genes: pd.DataFrame, regulons: pd.DataFrame) -> np.ndarray:
    """Lay regulons out over the vocabulary, largest first.

    Parameters
    ----------
    genes
        The vocabulary.
    regulons
        ``tf``, ``target``, ``weight``, in the order of their regulons.

    Returns
    -------
    ndarray of float32, (regulons, genes)
        A regulon's targets by weight relative to its strongest; the TF itself weighs one.
    """
    row = pd.Series(np.arange(len(genes)), index=genes["symbol"])
    row = row[~row.index.duplicated()]
    names = regulons["tf"].unique()
    weights = np.zeros((len(names), len(genes)), dtype=np.float32)
    for i, (tf, members) in enumerate(regulons.groupby("tf", sort=False)):
        weights[i, row[members["target"]]] = members["weight"] / members["weight"].max()
        weights[i, row[tf]] = 1.0
    return weights


def vocabulary_hash(genes: pd.DataFrame) -> str:
    """Hash the ids, their order and which are TFs: what a model's parameters depend on."""
    text = "\n".join(
        f"{gene}\t{bool(tf)}" for gene, tf in zip(genes["gene_id"], genes["is_tf"], strict=True)
    )
    return hashlib.sha256(text.encode()).hexdigest()


def write_tokens(
    cells: ad.AnnData,
    genes: pd.DataFrame,
    regulons: pd.DataFrame,
    n_bins: int,
    source: Path,
    folder: Path,
) -> None:
    """Write the vocabulary and the cells' tokens.

    Parameters
    ----------
    cells
        Corpus with the normalised layers.
    genes, regulons
        The vocabulary and ``tf``, ``target``, ``weight``.
    n_bins
        Highest bin.
    source
        The corpus' file, hashed into ``meta.json``.
    folder
        Receives ``vocabulary.tsv``, ``tokens.zarr`` (a CSR of uint8 bins a modality) and
        ``meta.json``, all or none.

    Raises
    ------
    InputError
        If the corpus stands on another vocabulary.
    """
    if not cells.var_names.equals(pd.Index(genes["gene_id"])):
        raise InputError("the corpus does not stand on this genes.tsv; make it anew.")
    with atomic(folder) as temporary:
        temporary.mkdir()
        write_table(temporary / "vocabulary.tsv", add_regulons(genes, regulons))
        store = zarr.open_group(str(temporary / "tokens.zarr"), mode="w")
        store.create_array("cells", data=cells.obs_names.to_numpy(dtype=np.dtypes.StringDType()))
        for modality, layer in MODALITIES.items():
            bins = bin_values(cells.layers[layer], n_bins)
            group = store.create_group(modality)
            group.create_array("data", data=bins.data)
            group.create_array("indices", data=bins.indices.astype(np.int32))
            group.create_array("indptr", data=bins.indptr.astype(np.int64))
        meta = {
            "n_cells": cells.n_obs,
            "n_genes": len(genes),
            "n_tfs": int(genes["is_tf"].sum()),
            "n_bins": n_bins,
            "binning": "ceil(value), 0 for zero, at most n_bins",
            "normalisation": {"rna": "TPM, log1p", "promoter": "per TSS, CPM, log1p"},
            "vocabulary_sha256": vocabulary_hash(genes),
            "corpus_sha256": sha256(source),
        }
        write_json(temporary / "meta.json", meta)


class TokenStore:
    """Tokens of a corpus, opened for reading.

    Attributes
    ----------
    meta : dict
        Content of ``meta.json``.
    cells : Index
        Names of the cells.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self.meta = json.loads((folder / "meta.json").read_text())
        self._store = zarr.open_group(str(folder / "tokens.zarr"), mode="r")
        self.cells = pd.Index(self._store["cells"][:].astype(object))

    def read(self, rows: np.ndarray | None = None) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """Read the bins of some cells.

        Parameters
        ----------
        rows
            Positions in ``cells``; all if None.

        Returns
        -------
        rna, promoter : csr_matrix of uint8, (rows, genes)
        """
        shape = (self.meta["n_cells"], self.meta["n_genes"])
        parts = []
        for modality in MODALITIES:
            group = self._store[modality]
            matrix = sparse.csr_matrix(
                (group["data"][:], group["indices"][:], group["indptr"][:]), shape=shape
            )
            parts.append(matrix if rows is None else matrix[rows])
        return parts[0], parts[1]
