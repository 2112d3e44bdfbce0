"""What the model reads: the vocabulary with its regulons, and the counts of a corpus."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from scdyn.data.corpus import Corpus
from scdyn.errors import InputError, reading
from scdyn.io.artefacts import STAMP, make_stamp, read_table
from scdyn.io.files import atomic, sha256, write_json, write_table
from scdyn.io.shards import PLACES, REMEDY, Buffers, Cells, hash_vocabulary
from scdyn.pp.reference import read_vocabulary

MODALITIES = tuple(PLACES)
# Columns of a table of regulons that are used here.
REGULON_COLUMNS = ("regulon", "tf", "target", "weight")
UNREADABLE = "the tokens cannot be read"


def add_regulons(genes: pd.DataFrame, regulons: pd.DataFrame) -> pd.DataFrame:
    """Add a column ``regulons`` to the vocabulary: the regulons that each gene is a target of."""
    ordered = regulons.sort_values(["target", "regulon"])
    of_gene = ordered.groupby("target")["regulon"].agg(",".join)
    return genes.assign(regulons=genes["symbol"].map(of_gene).fillna(""))


def weigh_regulons(genes: pd.DataFrame, regulons: pd.DataFrame) -> pd.DataFrame:
    """Weigh the genes of each regulon, for the latents of the model.

    Parameters
    ----------
    genes
        The vocabulary.
    regulons
        ``regulon``, ``tf``, ``target``, ``weight``.

    Returns
    -------
    DataFrame
        ``regulon``, ``gene_id``, ``weight``: of the targets relative to the largest of the regulon;
        1 for the TF. The regulons are in the order of ``regulons``.
    """
    ids = genes.drop_duplicates("symbol").set_index("symbol")["gene_id"]
    largest = regulons.groupby("regulon")["weight"].transform("max")
    targets = regulons[["regulon"]].assign(
        gene_id=ids[regulons["target"]].to_numpy(), weight=regulons["weight"] / largest
    )
    tfs = regulons.drop_duplicates("regulon")
    tfs = tfs[["regulon"]].assign(gene_id=ids[tfs["tf"]].to_numpy(), weight=1.0)
    # A TF that is its own target has the weight 1.
    both = pd.concat([tfs, targets]).drop_duplicates(["regulon", "gene_id"])
    order = pd.Categorical(both["regulon"], tfs["regulon"])
    return both.iloc[np.argsort(order.codes, kind="stable")].reset_index(drop=True)


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
    weights = regulons["weight"].to_numpy(float)
    if not (np.isfinite(weights) & (weights > 0)).all():
        raise InputError("REGULONS", "regulons: a weight is not above zero; infer them again.")
    with_comma = [name for name in regulons["regulon"].astype(str) if "," in name]
    if with_comma:
        raise InputError("REGULONS", f"regulons: '{with_comma[0]}' has a comma; rename it.")


def write_tokens(folder: str | Path, genes: pd.DataFrame, regulons: pd.DataFrame | None) -> None:
    """Write the vocabulary and its regulons.

    Parameters
    ----------
    folder
        Written atomically: ``vocabulary.tsv`` (with the regulons of each gene), ``regulons.tsv``
        (:func:`weigh_regulons`) and ``meta.json``.
    genes, regulons
        The vocabulary, and the regulons: ``regulon``, ``tf``, ``target``, ``weight``; None: none.

    Raises
    ------
    InputError
        If the regulons have other genes, or weights that are not above zero. Nothing is written
        then.
    """
    if regulons is None:
        regulons = pd.DataFrame(columns=list(REGULON_COLUMNS))
    require_regulons(regulons, genes)
    with atomic(folder) as temporary:
        temporary.mkdir()
        write_table(temporary / "vocabulary.tsv", add_regulons(genes, regulons))
        write_table(temporary / "regulons.tsv", weigh_regulons(genes, regulons))
        meta = {
            "n_genes": len(genes),
            "n_tfs": int(genes["is_tf"].sum()),
            "vocabulary_sha256": hash_vocabulary(genes),
            "regulons_sha256": sha256(temporary / "regulons.tsv"),
            STAMP: make_stamp(),
        }
        write_json(temporary / "meta.json", meta)


@dataclass(frozen=True)
class SparseCells:
    """Counts of some cells in both modalities, as they are moved to a device.

    Attributes
    ----------
    values
        Modality to the cells.
    measured
        (cells,) whether promoters were measured.
    """

    values: dict[str, Cells]
    measured: np.ndarray

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.measured)

    def take(self, rows: np.ndarray) -> SparseCells:
        """Copy some cells, in the order of the rows."""
        values = {modality: cells.take(rows) for modality, cells in self.values.items()}
        return SparseCells(values, self.measured[rows])


class TokenStore:
    """The cells of a corpus as the model reads them; their counts stay on disk.

    Parameters
    ----------
    folder
        Folder that :func:`write_tokens` wrote.
    corpus
        The corpus of the cells.

    Attributes
    ----------
    folder, corpus
        As given.
    meta : dict
        Content of ``meta.json``, and the id of the corpus.
    buffers : list of Buffers
        Memory that one epoch leaves to the next one.

    Raises
    ------
    InputError
        If files of the folder are missing, or of another vocabulary than the corpus.
    """

    def __init__(self, folder: str | Path, corpus: Corpus) -> None:
        self.folder, self.corpus = Path(folder), corpus
        with reading("CORPUS", self.folder, UNREADABLE, REMEDY):
            self.meta = json.loads((self.folder / "meta.json").read_text())
            self.n_genes = int(self.meta["n_genes"])
            vocabulary = self.meta["vocabulary_sha256"]
        if vocabulary != corpus.vocabulary:
            raise InputError(
                "CORPUS",
                f"{self.folder}: these tokens have another vocabulary than {corpus.folder}; "
                f"{REMEDY}.",
            )
        self.meta["corpus"] = corpus.id
        self.buffers: list[Buffers] = []

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.corpus)

    @property
    def cells(self) -> pd.Index:
        """Names of the cells."""
        return self.corpus.obs.index

    @cached_property
    def vocabulary(self) -> pd.DataFrame:
        """Genes in their order, with the regulons of each."""
        path = self.folder / "vocabulary.tsv"
        genes = read_vocabulary(path)
        if hash_vocabulary(genes) != self.meta["vocabulary_sha256"]:
            raise InputError("CORPUS", f"{path}: is not the vocabulary of these tokens; {REMEDY}.")
        return genes

    @cached_property
    def regulons(self) -> pd.DataFrame:
        """Weights of the genes in each regulon, (regulons, genes) of float32, named by regulon."""
        texts = {"regulon": str, "gene_id": str}
        path = self.folder / "regulons.tsv"
        with reading("CORPUS", path, UNREADABLE, REMEDY):
            if sha256(path) != self.meta["regulons_sha256"]:
                raise InputError(
                    "CORPUS", f"{path}: was changed after these tokens were written; {REMEDY}."
                )
        table = read_table(path, dtype=texts, keep_default_na=False)
        names = table["regulon"].unique()
        weights = np.zeros((len(names), self.n_genes), dtype=np.float32)
        gene = pd.Index(self.vocabulary["gene_id"]).get_indexer(table["gene_id"])
        weights[pd.Index(names).get_indexer(table["regulon"]), gene] = table["weight"]
        return pd.DataFrame(weights, index=names)

    def find_rows(self, names: Iterable[str]) -> np.ndarray:
        """Find the rows of cells by name; see :meth:`Corpus.find_rows`."""
        return self.corpus.find_rows(list(names))

    def totals(self, rows: np.ndarray) -> np.ndarray:
        """Sum the counts of RNA and of promoters of some cells: (2, rows)."""
        return np.stack([self.corpus.sizes[modality][rows] for modality in MODALITIES])

    def promoter_measured(self, rows: np.ndarray) -> np.ndarray:
        """Tell per cell (rows,) whether promoters were measured."""
        return self.corpus.measured[rows]

    def read_cells(self, rows: np.ndarray, buffers: Buffers | None = None) -> SparseCells:
        """Read the counts of some cells, in the order of the rows.

        With ``buffers`` the result is valid until the next call with them.
        """
        return SparseCells(
            {modality: self.corpus.read(rows, modality, buffers) for modality in MODALITIES},
            self.corpus.measured[rows],
        )
