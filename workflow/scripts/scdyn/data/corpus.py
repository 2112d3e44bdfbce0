"""A corpus in a folder: the cells of its samples, and what the model reads of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import anndata as ad
import pandas as pd

from scdyn.data.tokens import NOT_MEASURED, TokenStore, write_tokens
from scdyn.errors import InputError
from scdyn.io.artefacts import read_cells, read_table, write_h5ad
from scdyn.io.checks import check_counts
from scdyn.io.files import write_table
from scdyn.pp.corpus import join

# Columns of a table of regulons that are used here.
REGULON_COLUMNS = ("regulon", "tf", "target", "weight")


class Corpus:
    """Samples that are analysed together, over one vocabulary, written to a folder.

    Parameters
    ----------
    folder
        From :meth:`write`.

    Attributes
    ----------
    folder : Path
        Holds ``corpus.h5ad``, ``regulons.tsv`` and ``tokens/``.
    store : TokenStore
        Binned values of the cells, mapped from disk: what the model reads.

    Raises
    ------
    InputError
        If the folder is not a corpus, or its tokens are of other cells.

    Examples
    --------
    >>> cells = scdyn.pp.join(samples)
    >>> regulons = scdyn.grn.infer_regulons(cells)
    >>> corpus = scdyn.Corpus.write("corpus", cells, genes, regulons)
    >>> model = scdyn.pretrain(corpus, "model")
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "corpus.h5ad").exists():
            raise InputError(
                "CORPUS", f"{self.folder}: is not a corpus; write one with scdyn.Corpus.write."
            )
        self.store = TokenStore(self.folder / "tokens")
        self.store.require_corpus(self.folder / "corpus.h5ad")

    def __repr__(self) -> str:
        """Summarise the corpus."""
        n_cells, n_genes = len(self.store.cells), len(self.genes)
        return f"Corpus({n_cells:,} cells, {n_genes:,} genes, in {self.folder})"

    @classmethod
    def write(
        cls,
        folder: str | Path,
        cells: ad.AnnData | Sequence[ad.AnnData],
        genes: pd.DataFrame,
        regulons: pd.DataFrame | None = None,
        n_bins: int = 14,
    ) -> Self:
        """Write the cells, their regulons and what the model reads, and open the corpus.

        Parameters
        ----------
        folder
            Is created if it does not exist.
        cells
            From :func:`scdyn.pp.corpus.join`, or samples to join, from
            :func:`scdyn.pp.qc.filter_cells`.
        genes
            The vocabulary, from :func:`scdyn.pp.reference.build_vocabulary`.
        regulons
            From :func:`scdyn.grn.infer_regulons`; None: the latents of the model start at random.
        n_bins
            Highest bin of a value.

        Returns
        -------
        Corpus
            In ``folder``.

        Raises
        ------
        InputError
            If the cells were not joined, are not raw counts or not over this vocabulary, or the
            regulons have other genes. Nothing is written then.
        """
        folder = Path(folder)
        cells = cells if isinstance(cells, ad.AnnData) else join(cells)
        if regulons is None:
            regulons = pd.DataFrame(columns=list(REGULON_COLUMNS))
        require_joined(cells, genes)
        require_regulons(regulons, genes)
        if not 1 <= n_bins < NOT_MEASURED - 1:
            raise InputError("CORPUS", f"n_bins is {n_bins}; it must be from 1 to 253.")
        folder.mkdir(parents=True, exist_ok=True)
        write_h5ad(folder / "corpus.h5ad", cells)
        write_table(folder / "regulons.tsv", regulons)
        write_tokens(cells, genes, regulons, n_bins, folder / "corpus.h5ad", folder / "tokens")
        return cls(folder)

    @cached_property
    def cells(self) -> ad.AnnData:
        """The cells: ``X`` RNA counts, layers ``promoter``, ``rna_log`` and ``promoter_log``."""
        return read_cells(self.folder / "corpus.h5ad")

    @property
    def genes(self) -> pd.DataFrame:
        """The vocabulary, with the regulons of each gene."""
        return self.store.vocabulary

    @cached_property
    def regulons(self) -> pd.DataFrame:
        """``regulon``, ``tf``, ``target`` and ``weight`` of each edge; empty without regulons."""
        return read_table(self.folder / "regulons.tsv")


def require_joined(cells: ad.AnnData, genes: pd.DataFrame) -> None:
    """Refuse cells that :func:`scdyn.pp.corpus.join` did not make, or of other genes."""
    if not cells.n_obs or "rna_log" not in cells.layers or "promoter" not in cells.layers:
        raise InputError(
            "CORPUS", "the cells are none or were not joined; pass the result of scdyn.pp.join."
        )
    check_counts(cells.X, "the cells")
    if not cells.var_names.equals(pd.Index(genes["gene_id"])):
        raise InputError(
            "CORPUS", "the cells have other genes than the vocabulary; ingest them with this one."
        )


def require_regulons(regulons: pd.DataFrame, genes: pd.DataFrame) -> None:
    """Refuse a table of regulons without its columns, or with genes outside the vocabulary."""
    missing = [name for name in REGULON_COLUMNS if name not in regulons]
    if missing:
        raise InputError("REGULONS", f"regulons: no column {missing[0]}; see infer_regulons.")
    unknown = {*regulons["tf"], *regulons["target"]} - {*genes["symbol"]}
    if unknown:
        raise InputError(
            "REGULONS",
            f"regulons: {min(unknown)} is not a symbol of the vocabulary; infer them again.",
        )
