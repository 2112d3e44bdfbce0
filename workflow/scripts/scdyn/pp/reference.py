"""The vocabulary: genes of a GTF or BED, their TSSs, lengths and which are TFs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd

from scdyn.errors import InputError, reading
from scdyn.io.artefacts import read_table
from scdyn.io.bounds import open_bytes
from scdyn.io.chromosomes import MITOCHONDRIAL, chromosome_names
from scdyn.io.files import open_text
from scdyn.log import logger

# Chromosomes, by UCSC's names, and not scaffolds, alternatives and patches.
MAIN = r"[Cc]hr(?:\d{1,2}[LR]?|[WXYZM]|[IVX]+)"
# How lines of a BED begin that are none of its rows.
NO_ROW = ("#", "track ", "browser ")
# Of genes, transcripts and exons of any species; MGP_ stands before those of strains of mice.
ENSEMBL = r"(?:ENS[A-Z]*[GTE]|MGP_\w+_[GTE])\d+"
# Before the names of a reference of several genomes: GRCh38_TP53, mm10___Trp53, GRCh38-2020-A_TP53.
GENOME = (
    r"^(GRC[a-z]{1,2}\d+|hg\d+|mm\d+|rn\d+|dm\d+|ce\d+|[a-z]{3}[A-Z][a-z]{2}\d+|mRatBN[\d.]+|"
    r"Rnor_?[\d.]+|BDGP[\d.]+|WBcel\d+|T2T)(?:[-.][A-Za-z0-9.]+)*_+(?=.)"
)
# Of a table of TFs that are looked at.
MOST_COLUMNS = 20
COLUMNS = ["gene_id", "symbol", "chrom", "strand", "length", "n_tss", "tss", "is_tf", "is_mt"]


def strip_version(ids: pd.Series) -> pd.Series:
    """Remove the version of Ensembl ids: ``ENSG00000223972.5`` to ``ENSG00000223972``.

    Also as GENCODE writes it of genes that it lifted to another build (``.5_4``), and the
    ``_PAR_Y`` of the second copy of a gene that both sex chromosomes have. Other ids are left:
    the number at the end of StringTie's ``MSTRG.1`` is no version.
    """
    version = rf"^({ENSEMBL})(?:\.\d+(?:_\d+)?)?(?:_PAR_Y)?$"
    return ids.astype(str).str.replace(version, r"\1", regex=True)


def genomes_before(names: pd.Series) -> set[str]:
    """Read the genomes by which all of some names begin; none if one begins otherwise."""
    genomes = names.astype(str).str.extract(GENOME)[0]
    return set() if genomes.isna().any() else set(genomes)


def without_genome(names: pd.Series) -> pd.Series:
    """Remove the genome by which all of some names begin, if it is the same: ``GRCh38_TP53``."""
    names = names.astype(str)
    return names.str.replace(GENOME, "", regex=True) if len(genomes_before(names)) == 1 else names


def find_genes(names: Iterable[pd.Series], genes: pd.DataFrame) -> np.ndarray:
    """Find genes in the vocabulary by the column of names that finds the most of them.

    Parameters
    ----------
    names
        Columns that may hold ids, symbols, or ids of some genes and symbols of others, (n,) each;
        a name is looked for among the ids first. An id whose version the vocabulary lacks is found
        without it, and names that all begin with one genome's are found without that.
    genes
        ``gene_id`` and ``symbol``.

    Returns
    -------
    ndarray of int, (n,)
        Rows of ``genes``, -1 where there is none.
    """
    columns = [without_genome(column) for column in names]
    best, n_best = np.full(len(columns[0]), -1), (0, 0)
    for column in columns:
        by_id, by_symbol = (rows_of(column, genes[known]) for known in ("gene_id", "symbol"))
        found = np.where(by_id >= 0, by_id, by_symbol)
        # Genes, not rows: a column of flags may name one gene in all of them. Of columns that find
        # as many, the one of ids, since two genes may have one symbol.
        n_genes, n_ids = (len(np.unique(rows[rows >= 0])) for rows in (found, by_id))
        if (n_genes, n_ids) > n_best:
            best, n_best = found, (n_genes, n_ids)
    return best


def rows_of(names: pd.Series, known: pd.Series) -> np.ndarray:
    """Find names among known ones, with or without version: the first row of each, or -1."""
    rows = pd.Series(np.arange(len(known)), index=known.astype(str))
    rows = rows[~rows.index.duplicated()]
    found = rows.reindex(names).to_numpy()
    found = np.where(np.isnan(found), rows.reindex(strip_version(names)), found)
    return np.nan_to_num(found, nan=-1).astype(int)


def place_of_gene(chromosomes: pd.Series, genes: pd.Series) -> pd.Series:
    """Choose one chromosome for each gene that lies on several.

    Parameters
    ----------
    chromosomes, genes
        UCSC's names, and the gene of each row.

    Returns
    -------
    Series
        The first of the gene's rows that is no scaffold, alternative or patch, else the first.
    """
    main = chromosomes.where(chromosomes.str.fullmatch(MAIN)).groupby(genes).transform("first")
    return main.fillna(chromosomes.groupby(genes).transform("first"))


def read_annotation(path: str | Path, biotypes: Collection[str]) -> pd.DataFrame:
    """Read the genes of an annotation, which its name tells to be a BED or a GTF.

    Parameters
    ----------
    path, biotypes
        As for :func:`read_gtf`.

    Returns
    -------
    DataFrame
        As of :func:`read_gtf`.
    """
    is_bed = re.search(r"\.bed(\.\w+)?$", str(path), re.IGNORECASE)
    return read_bed(path) if is_bed else read_gtf(path, biotypes)


def read_gtf(path: str | Path, biotypes: Collection[str]) -> pd.DataFrame:
    """Read genes with all their TSSs from a GTF.

    Parameters
    ----------
    path
        GENCODE, Ensembl, RefSeq, UCSC or StringTie GTF, plain or packed. A gene without transcript
        lines has the TSSs of its transcripts' exons.
    biotypes
        ``gene_type`` / ``gene_biotype`` values to keep; a GTF that has neither
        attribute is kept whole.

    Returns
    -------
    DataFrame
        ``gene_id`` (Ensembl's without version), ``symbol``, ``chrom``, ``strand``, ``length`` (bp
        of the union of exons), ``tss`` (sorted unique 0-based positions).

    Raises
    ------
    InputError
        If the file has no gene, exon or ``gene_id`` to read, or none of the biotypes.
    """
    names = ["chrom", "source", "feature", "start", "end", "score", "strand", "frame", "attribute"]
    with reading("ANNOTATION", path, "not a readable GTF", "check or fetch it again"):
        lines = pd.read_csv(
            open_bytes(path), sep="\t", names=names, usecols=names, dtype={"chrom": str}, quoting=3
        )
    # Not by pandas, to which a comment begins anywhere: descriptions hold the sign, too.
    lines = lines[~lines["chrom"].str.startswith("#", na=True)]
    used = ["gene", "transcript", "exon"]
    lines = lines[lines["feature"].isin(used)].reset_index(drop=True)
    if not lines["feature"].isin(["transcript", "exon"]).any():
        raise InputError(
            "ANNOTATION", f"{path}: no transcript or exon lines; is this a GTF of genes?"
        )
    to_places(lines, path)

    def attribute(name: str) -> pd.Series:
        return lines["attribute"].str.extract(rf'\b{name} "([^"]*)"', expand=False)

    lines["gene_id"] = attribute("gene_id")
    if lines["gene_id"].isna().any():
        bad = lines.index[lines["gene_id"].isna()][0]
        shown = str(lines["attribute"][bad])[:60]
        raise InputError("ANNOTATION", f"{path}: no gene_id in '{shown}'; is this a GTF?")
    # An empty name is none.
    named, or_named = (attribute(key).replace("", np.nan) for key in ("gene_name", "gene"))
    lines["symbol"] = named.fillna(or_named)
    lines["chrom"] = chromosome_names(lines["chrom"])
    # RefSeq tells a gene's type on the gene's own line alone.
    lines["biotype"] = attribute("gene_type").fillna(attribute("gene_biotype"))
    lines["biotype"] = lines.groupby("gene_id")["biotype"].transform("first")
    if lines["biotype"].notna().any():
        found = sorted(lines["biotype"].dropna().unique())
        lines = lines[lines["biotype"].isin(biotypes)]
        if lines.empty:
            raise InputError(
                "ANNOTATION",
                f"{path}: no gene of type {', '.join(biotypes)}; it has {', '.join(found[:5])}: "
                "set reference.biotypes.",
            )
    else:
        logger.info("%s: tells no gene's type, so genes of all types are kept", path)
    # A PAR gene stands once a sex chromosome under one id, others on scaffolds, too.
    lines["gene_id"] = strip_version(lines["gene_id"])
    lines["symbol"] = lines["symbol"].fillna(lines["gene_id"])
    lines = lines[lines["chrom"] == place_of_gene(lines["chrom"], lines["gene_id"])]

    transcripts = lines[lines["feature"] == "transcript"]
    without = lines[~lines["gene_id"].isin(transcripts["gene_id"])]
    transcripts = pd.concat([transcripts, transcripts_of_exons(without)]).sort_index()
    tss = np.where(transcripts["strand"] == "-", transcripts["end"] - 1, transcripts["start"] - 1)
    genes = (
        transcripts.assign(tss=tss)
        .groupby("gene_id")
        .agg(
            symbol=("symbol", "first"),
            chrom=("chrom", "first"),
            strand=("strand", "first"),
            tss=("tss", lambda positions: sorted(set(positions))),
        )
    )
    genes["length"] = union_lengths(lines[lines["feature"] == "exon"])
    if genes["length"].isna().any():
        raise InputError(
            "ANNOTATION", f"{path}: gene {genes.index[genes['length'].isna()][0]} has no exon line."
        )
    return genes.astype({"length": int}).reset_index()


def transcripts_of_exons(lines: pd.DataFrame) -> pd.DataFrame:
    """Put transcripts together from their exons: where a GTF has no lines of them.

    Parameters
    ----------
    lines
        ``gene_id``, ``symbol``, ``chrom``, ``strand``, ``start``, ``end``, ``feature``,
        ``attribute``.

    Returns
    -------
    DataFrame
        A row a transcript, in the order of the lines; exons without ``transcript_id`` are of one
        transcript of their gene.
    """
    exons = lines[lines["feature"] == "exon"]
    name = exons["attribute"].str.extract(r'\btranscript_id "([^"]*)"', expand=False).fillna("")
    ends = {"symbol": "first", "start": "min", "end": "max", "line": "first"}
    of_transcript = exons.assign(transcript=name, line=exons.index).groupby(
        ["gene_id", "transcript", "chrom", "strand"], sort=False
    )
    return of_transcript.agg(ends).reset_index().set_index("line")


def to_places(rows: pd.DataFrame, path: str | Path) -> None:
    """Make the columns ``start`` and ``end`` integers, in place.

    Raises
    ------
    InputError
        Showing the first that is no number.
    """
    for column in ("start", "end"):
        numbers = pd.to_numeric(rows[column], errors="coerce")
        if numbers.isna().any():
            bad = rows.loc[numbers.isna(), column].iloc[0]
            raise InputError(
                "ANNOTATION", f"{path}: '{bad}' stands where a {column} is expected; check it."
            )
        rows[column] = numbers.astype(np.int64)


def union_lengths(exons: pd.DataFrame) -> pd.Series:
    """Bases covered by the union of each gene's exons.

    Parameters
    ----------
    exons
        ``gene_id``, ``start``, ``end`` (1-based, inclusive).

    Returns
    -------
    Series
        Lengths in bp by ``gene_id``.
    """
    exons = exons.sort_values(["gene_id", "start"])
    reached = exons.groupby("gene_id")["end"].cummax()
    # What earlier exons of the gene reached; a gene's first exon has nothing before it.
    before = reached.groupby(exons["gene_id"]).shift(fill_value=0)
    new = (exons["end"] - np.maximum(before, exons["start"] - 1)).clip(lower=0)
    return new.groupby(exons["gene_id"]).sum()


def read_bed(path: str | Path) -> pd.DataFrame:
    """Read genes from a BED of transcripts: chrom, start, end, symbol, strand.

    A score may stand before the strand, as in BED6 and BED12; what stands behind it is not used. A
    first line of column names is skipped.

    The symbol serves as id. Rows of one symbol are its transcripts; only those on the
    chromosome and strand of the longest are used, where there is one that is not on a scaffold.
    The length is that row's span, introns included, since a BED has no exons.

    Returns
    -------
    DataFrame
        The columns of :func:`read_gtf`.

    Raises
    ------
    InputError
        If there are fewer columns, or a strand is neither + nor -.
    """
    names = ["chrom", "start", "end", "symbol", "strand"]
    with reading("ANNOTATION", path, "not a readable BED", "check or fetch it again"):
        with open_text(path) as handle:
            first = next((line for line in handle if not line.startswith(NO_ROW)), "")
        columns = list(range(len(first.split("\t"))))
        rows = pd.read_csv(
            open_bytes(path), sep="\t", names=columns, usecols=columns, dtype={0: str, 3: str},
            quoting=3, keep_default_na=False,
        )  # fmt: skip
    if (is_none := rows[0].str.startswith(NO_ROW, na=True)).any():
        rows = rows[~is_none]
    if len(rows) > 1 and rows.shape[1] > 1 and str(rows.iloc[0, 1])[:1].isalpha():
        rows = rows[1:]  # names of the columns
    strand = next((i for i in (4, 5) if i in rows and rows[i].isin(["+", "-"]).all()), None)
    if strand is None:
        raise InputError(
            "ANNOTATION",
            f"{path}: expected the columns chrom, start, end, symbol, strand (+ or -).",
        )
    rows = rows[[0, 1, 2, 3, strand]].set_axis(names, axis=1)
    to_places(rows, path)
    rows["chrom"] = chromosome_names(rows["chrom"])
    rows["length"] = rows["end"] - rows["start"]
    rows["tss"] = np.where(rows["strand"] == "-", rows["end"] - 1, rows["start"])
    rows = rows.sort_values(["symbol", "length"], ascending=[True, False], kind="stable")
    rows = rows[rows["chrom"] == place_of_gene(rows["chrom"], rows["symbol"])]
    rows = rows[rows["strand"] == rows.groupby("symbol")["strand"].transform("first")]
    genes = rows.groupby("symbol").agg(
        chrom=("chrom", "first"),
        strand=("strand", "first"),
        length=("length", "first"),
        tss=("tss", lambda positions: sorted(set(positions))),
    )
    return genes.reset_index().assign(gene_id=lambda table: table["symbol"])


def read_tfs(path: str | Path, known: Collection[str] = ()) -> set[str]:
    """Read a TF list: one symbol or gene id a line, or a column of a table.

    Lines that begin with ``#`` are comments. Quotes, as R writes them, are no part of a name.

    Parameters
    ----------
    path
        The list. Tabs, commas or blanks part the columns of a table.
    known
        Ids and symbols of the genes. Of a table the column is read that names most of them, the
        first if none does; a first name that is none of them is a header.

    Raises
    ------
    InputError
        If it is empty or cannot be read.
    """
    remedy = "expected is one symbol or id a line"
    with reading("TFS", path, "not a readable TF list", remedy), open_text(path) as handle:
        lines = [line.strip() for line in handle.read().splitlines()]
    lines = [re.split(r"\s#", line)[0] for line in lines if line.strip("\"'")]
    lines = [line for line in lines if not line.startswith("#")]
    if not lines:
        raise InputError("TFS", f"{path}: the TF list is empty.")
    mark = next((mark for mark in ("\t", ",") if mark in lines[0]), None)
    rows = [[field.strip(" \"'") for field in line.split(mark)[:MOST_COLUMNS]] for line in lines]
    columns = [pd.Series(names, dtype=str) for names in zip_longest(*rows, fillvalue="")]
    is_gene = [names.isin(known) | strip_version(names).isin(known) for names in columns]
    n_found = [names[found].nunique() for names, found in zip(columns, is_gene, strict=True)]
    best = n_found.index(max(n_found))
    has_header = n_found[best] > 0 and not is_gene[best][0]
    return set(columns[best][int(has_header) :]) - {""}


def build_vocabulary(
    genes: pd.DataFrame, tfs: set[str], measured: set[str] | None = None
) -> pd.DataFrame:
    """Order the genes as the model will see them: TFs first, each part sorted by id.

    Parameters
    ----------
    genes
        As :func:`read_gtf` returns them.
    tfs
        Symbols or ids of the TFs, Ensembl's with or without version.
    measured
        Symbols or ids to keep (those that the samples' matrices name); all if None.

    Returns
    -------
    DataFrame
        The columns of ``COLUMNS``; ``tss`` as comma-separated 0-based positions.

    Raises
    ------
    InputError
        If no gene is left, or none of them is a TF.
    """
    tell_unknown(tfs, genes)
    if measured is not None:
        is_measured = genes["gene_id"].isin(measured) | genes["symbol"].isin(measured)
        if not is_measured.any():
            raise InputError(
                "GENES",
                f"none of the samples' {len(measured)} names of genes (such as "
                f"{', '.join(sorted(measured)[:3])}) is in reference.annotation (such as "
                f"{', '.join(genes['symbol'][:3])}): another species or build?",
            )
        genes = genes[is_measured]
    named = tfs | {*strip_version(pd.Series(sorted(tfs), dtype=str))}
    is_tf = genes["gene_id"].isin(named) | genes["symbol"].isin(named)
    if not is_tf.any():
        raise InputError(
            "TFS",
            f"none of the {len(tfs)} TFs (such as {', '.join(sorted(tfs)[:3])}) is among the genes "
            f"(such as {', '.join(genes['symbol'][:3])}): another species?",
        )
    table = genes.assign(
        n_tss=genes["tss"].map(len),
        tss=genes["tss"].map(lambda positions: ",".join(map(str, positions))),
        is_tf=is_tf,
        is_mt=genes["chrom"] == MITOCHONDRIAL,
    )
    table = table.sort_values(["is_tf", "gene_id"], ascending=[False, True])
    return table[COLUMNS].reset_index(drop=True)


def tell_unknown(tfs: set[str], genes: pd.DataFrame) -> None:
    """Log how many names of a TF list are no genes of the annotation; see build_vocabulary."""
    names = pd.Series(sorted(tfs), dtype=str)
    known = {*genes["gene_id"], *genes["symbol"]}
    unknown = names[~names.isin(known) & ~strip_version(names).isin(known)]
    if unknown.empty:
        return
    shown = ", ".join(unknown[:3])
    logger.info(
        "%d of the TF list's %d names are no genes of the annotation, such as %s",
        len(unknown), len(names), shown,
    )  # fmt: skip
    called = {name.lower(): name for name in sorted(known)}
    cases = [f"{name} ({called[name.lower()]})" for name in unknown if name.lower() in called]
    if cases:
        logger.warning(
            "%d of the TF list's names differ from a gene's in upper and lower case alone, such as "
            "%s; they are not taken for TFs",
            len(cases), ", ".join(cases[:3]),
        )  # fmt: skip


def read_vocabulary(path: str | Path) -> pd.DataFrame:
    """Read ``genes.tsv`` as :func:`build_vocabulary` made it.

    A gene may be called ``nan`` (of *Drosophila*) or ``NA``, which pandas takes for missing values.
    """
    texts = {"gene_id": str, "symbol": str, "chrom": str, "tss": str}
    return read_table(path, dtype=texts, keep_default_na=False)


def tss_rings(genes: pd.DataFrame) -> pd.DataFrame:
    """List where insertions at TSSs and beside them are counted, for TSS enrichment.

    Parameters
    ----------
    genes
        The vocabulary (``chrom``, ``tss``).

    Returns
    -------
    DataFrame
        ``chrom``, ``start``, ``end`` (0-based, half open), ``is_centre``: of each TSS the 101 bases
        around it, and the 100 bases that end and begin 2,000 bases from it (the flanks of
        ENCODE's TSS enrichment); sorted by position.
    """
    sites = genes[["chrom"]].assign(tss=genes["tss"].str.split(",")).explode("tss")
    sites = sites.astype({"tss": np.int64}).drop_duplicates()
    parts = [(-50, 51, True), (-2000, -1900, False), (1901, 2001, False)]
    rings = pd.concat(
        [
            pd.DataFrame(
                {
                    "chrom": sites["chrom"],
                    "start": (sites["tss"] + first).clip(0),
                    "end": (sites["tss"] + last).clip(0),
                    "is_centre": is_centre,
                }
            )
            for first, last, is_centre in parts
        ]
    )
    return rings.sort_values(["chrom", "start"], kind="stable", ignore_index=True)


def promoter_windows(
    genes: pd.DataFrame, upstream: int = 1500, downstream: int = 500
) -> pd.DataFrame:
    """List the window of every TSS of every gene.

    A window holds ``upstream`` bases before the TSS and ``downstream`` from it
    on, in the direction of transcription, as ``GenomicRanges::promoters`` has it.

    Parameters
    ----------
    genes
        The vocabulary (``chrom``, ``strand``, ``tss``).

    Returns
    -------
    DataFrame
        ``chrom``, ``start``, ``end`` (0-based, half open, cut at 0), ``gene`` (row in
        ``genes``); a row a TSS, sorted by position.
    """
    windows = pd.DataFrame(
        {
            "chrom": genes["chrom"],
            "strand": genes["strand"],
            "gene": np.arange(len(genes)),
            "tss": genes["tss"].str.split(","),
        }
    ).explode("tss")
    tss = windows["tss"].astype(np.int64)
    minus = windows["strand"] == "-"
    windows["start"] = np.where(minus, tss - downstream + 1, tss - upstream).clip(0)
    windows["end"] = np.where(minus, tss + upstream + 1, tss + downstream)
    windows = windows.sort_values(["chrom", "start", "gene"], kind="stable")
    return windows[["chrom", "start", "end", "gene"]].reset_index(drop=True)
