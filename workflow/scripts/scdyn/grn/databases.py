"""Motif databases and annotations of cisTarget, and an early check that they fit the genes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import feather

from scdyn.errors import InputError, reading
from scdyn.io.files import open_bytes
from scdyn.log import logger

# Modules are left out unless the database ranks more than this share of their genes, as in
# pySCENIC.
MIN_SHARE = 0.8
# Smallest share of TFs with a motif; with a table of another species hardly any TF has one.
MIN_TFS_WITH_MOTIF = 0.2
# Names of the column of motifs in current databases; in older ones it is "features".
MOTIF_COLUMNS = ("motifs", "tracks")
# Annotations up to this q-value are used, as in pyscenic ctx.
MAX_SIMILARITY_Q = 0.001


def read_annotations(path: str | Path) -> pd.DataFrame:
    """Read a motif annotation table: the TFs per motif.

    Returns
    -------
    DataFrame
        ``motif``, ``tf``, ``motif_similarity_qvalue`` (0 if the TF is annotated directly) and
        ``orthologous_identity`` (1 if annotated in this species): per pair of motif and TF the row
        with the highest confidence.

    Raises
    ------
    InputError
        If the file is not a motif annotation table.
    """
    sure = ["motif_similarity_qvalue", "orthologous_identity"]
    columns = ["#motif_id", "gene_name", *sure, "description"]
    with reading(
        "MOTIFS", path, "not a motif annotation table (.tbl) of cisTarget", "download it again"
    ):
        table = pd.read_csv(open_bytes(path), sep="\t", usecols=columns)
    table = table.rename(columns={"#motif_id": "motif", "gene_name": "tf"})
    taken = (table["motif_similarity_qvalue"] <= MAX_SIMILARITY_Q) & table["description"].notna()
    taken &= table["orthologous_identity"] >= 0
    surest = table[taken].sort_values(sure, ascending=[True, False], kind="stable")
    return surest.drop_duplicates(["motif", "tf"])[["motif", "tf", *sure]].reset_index(drop=True)


def read_database(path: str | Path) -> tuple[list[str], list[str]]:
    """Read the names of the genes and motifs of a ranking database.

    Raises
    ------
    InputError
        If the file is not a database of genes against motifs, or has the old format.
    """
    try:
        with pa.memory_map(str(path)) as source:
            names = pa.ipc.open_file(source).schema.names
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            "MOTIFS",
            f"{path}: cannot be read as a cisTarget ranking database ({error}); download it again; "
            "databases made before 2022 (Feather V1) must be replaced by the current format.",
        ) from None
    column = next((name for name in MOTIF_COLUMNS if name in names), None)
    if column is None:
        raise InputError(
            "MOTIFS",
            f"{path}: has no column {' or '.join(MOTIF_COLUMNS)}; give the "
            "genes_vs_motifs.rankings.feather of a cisTarget database.",
        )
    motifs = feather.read_table(path, columns=[column], memory_map=True)[column].to_pylist()
    return [name for name in names if name != column], motifs


def check_databases(
    rankings: Sequence[str | Path], annotations: str | Path, genes: pd.DataFrame, min_overlap: float
) -> pd.DataFrame:
    """Check that databases and annotations have the genes and TFs of the vocabulary.

    Parameters
    ----------
    rankings, annotations
        cisTarget's files.
    genes
        The vocabulary: ``symbol``, ``is_tf``.
    min_overlap
        Smallest share of the vocabulary's genes that a database must rank.

    Returns
    -------
    DataFrame
        One row per database: ``database``, ``n_genes`` (that it ranks), ``n_found`` (genes of the
        vocabulary that it ranks), ``share``, ``n_tfs``, ``n_tfs_with_motif``.

    Raises
    ------
    InputError
        If a database ranks too few of the genes, or has motifs of too few TFs.
    """
    known = read_annotations(annotations)
    symbols = genes["symbol"].astype(str)
    tfs = set(symbols[genes["is_tf"].astype(bool)])
    rows = []
    for path in rankings:
        ranked, motifs = read_database(path)
        name, n_found = Path(path).name, int(symbols.isin(ranked).sum())
        share = n_found / len(genes)
        with_motif = tfs & set(known.loc[known["motif"].isin(motifs), "tf"])
        rows.append((name, len(ranked), n_found, share, len(tfs), len(with_motif)))
        logger.info(
            "%s ranks %d genes, %d of the %d in the vocabulary (%.0f%%); %d of %d TFs have a motif",
            *(name, len(ranked), n_found, len(genes), 100 * share, len(with_motif), len(tfs)),
        )
        if share < min_overlap:
            raise InputError(
                "MOTIFS",
                f"{path}: ranks {n_found} of the vocabulary's {len(genes)} genes ({share:.0%}; "
                f"its genes are such as {', '.join(ranked[:3])}, those of the vocabulary such as "
                f"{', '.join(symbols[:3])}), fewer than {min_overlap:.0%} "
                "(grn.min_database_overlap); another species, or ids in place of symbols? Use a "
                "database that fits.",
            )
        if len(with_motif) < MIN_TFS_WITH_MOTIF * len(tfs):
            raise InputError(
                "MOTIFS",
                f"{annotations}: has motifs in {name} for only {len(with_motif)} of {len(tfs)} "
                "TFs; use the table that belongs to the database and to this species.",
            )
        if share < MIN_SHARE:
            logger.warning(
                "many modules may be left out: the database ranks less than %.0f%% of their genes",
                100 * MIN_SHARE,
            )
    columns = ["database", "n_genes", "n_found", "share", "n_tfs", "n_tfs_with_motif"]
    return pd.DataFrame(rows, columns=columns)
