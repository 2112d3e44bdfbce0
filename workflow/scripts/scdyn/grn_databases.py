"""Whether motif databases know the genes and TFs at hand; asked before hours are spent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import feather

from scdyn.bounds import open_bytes
from scdyn.errors import InputError, reading
from scdyn.log import logger

# Below this share of a module's genes in the database pySCENIC drops the module.
PYSCENIC_SHARE = 0.8
# Fewest of the TFs that must have a motif; a table of another species has of hardly any.
MIN_TFS_WITH_MOTIF = 0.2
# Names of the column of motifs in current databases; older ones say "features".
MOTIF_COLUMNS = ("motifs", "tracks")
# pyscenic ctx takes annotations up to this q-value.
MAX_SIMILARITY_Q = 0.001


def read_annotations(path: str | Path) -> pd.DataFrame:
    """Read which TF binds a motif.

    Returns
    -------
    DataFrame
        ``motif``, ``tf``, as ``pyscenic ctx`` takes them by default.

    Raises
    ------
    InputError
        If it is no motif annotation table.
    """
    columns = ["#motif_id", "gene_name", "motif_similarity_qvalue"]
    with reading(path, "no motif annotation table (.tbl) of cisTarget", "fetch it again"):
        table = pd.read_csv(open_bytes(path), sep="\t", usecols=columns)
    table = table[table["motif_similarity_qvalue"] <= MAX_SIMILARITY_Q]
    return table.rename(columns={"#motif_id": "motif", "gene_name": "tf"})[["motif", "tf"]]


def read_database(path: str | Path) -> tuple[list[str], set[str]]:
    """Read the genes and motifs of a ranking database, not its rankings.

    Raises
    ------
    InputError
        If it is no database of genes against motifs, or one of the old layout.
    """
    try:
        with pa.memory_map(str(path)) as source:
            names = pa.ipc.open_file(source).schema.names
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{path}: no cisTarget ranking database that pySCENIC 0.12 reads ({error}); those made "
            "before 2022 (Feather V1) have to be fetched anew."
        ) from None
    column = next((name for name in MOTIF_COLUMNS if name in names), None)
    if column is None:
        raise InputError(
            f"{path}: has no column {' or '.join(MOTIF_COLUMNS)}; give the "
            "genes_vs_motifs.rankings.feather of a cisTarget database."
        )
    motifs = feather.read_table(path, columns=[column], memory_map=True)[column].to_pylist()
    return [name for name in names if name != column], set(motifs)


def check_databases(
    rankings: Sequence[str | Path], annotations: str | Path, genes: pd.DataFrame, min_overlap: float
) -> pd.DataFrame:
    """Count what databases and the vocabulary have in common.

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
        ``database``, ``n_genes``, ``n_found`` of the vocabulary, ``share``, ``n_tfs``,
        ``n_tfs_with_motif`` in it.

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
                f"{path}: ranks {n_found} of the vocabulary's {len(genes)} genes ({share:.0%}; "
                f"such as {', '.join(ranked[:3])} where the vocabulary has "
                f"{', '.join(symbols[:3])}), at least {min_overlap:.0%} are asked for "
                "(grn.min_database_overlap): another species, or ids instead of symbols?"
            )
        if len(with_motif) < MIN_TFS_WITH_MOTIF * len(tfs):
            raise InputError(
                f"{annotations}: has a motif in {name} for {len(with_motif)} of {len(tfs)} TFs; "
                "does the table belong to the database, and to this species?"
            )
        if share < PYSCENIC_SHARE:
            logger.warning(
                "pySCENIC drops a module of which a database ranks less than %.0f%%; many will be "
                "dropped",
                100 * PYSCENIC_SHARE,
            )
    columns = ["database", "n_genes", "n_found", "share", "n_tfs", "n_tfs_with_motif"]
    return pd.DataFrame(rows, columns=columns)
