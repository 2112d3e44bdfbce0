"""The vocabulary: genes from a GTF or BED with their TSSs and lengths, and the list of TFs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd

from scdyn.errors import InputError, reading
from scdyn.io.artefacts import read_table
from scdyn.io.chromosomes import MITOCHONDRIAL, to_ucsc_names
from scdyn.io.files import open_bytes, open_text
from scdyn.log import logger

# Main chromosomes in UCSC style, without scaffolds, alternates and patches.
MAIN_CHROMOSOMES = r"[Cc]hr(?:\d{1,2}[LR]?|[WXYZM]|[IVX]+)"
# First characters of lines in a BED that are not rows.
NO_ROW = ("#", "track ", "browser ")
# Ensembl ids of genes, transcripts and exons of any species; MGP_ is the prefix of mouse strains.
ENSEMBL = r"(?:ENS[A-Z]*[GTE]|MGP_\w+_[GTE])\d+"
# Genome prefix in references of several genomes: GRCh38_TP53, mm10___Trp53, GRCh38-2020-A_TP53.
GENOME = (
    r"^(GRC[a-z]{1,2}\d+|hg\d+|mm\d+|rn\d+|dm\d+|ce\d+|[a-z]{3}[A-Z][a-z]{2}\d+|mRatBN[\d.]+|"
    r"Rnor_?[\d.]+|BDGP[\d.]+|WBcel\d+|T2T)(?:[-.][A-Za-z0-9.]+)*_+(?=.)"
)
# Columns of a table of TFs beyond this number are ignored.
MOST_COLUMNS = 20
COLUMNS = ["gene_id", "symbol", "chrom", "strand", "length", "n_tss", "tss", "is_tf", "is_mt"]


def strip_version(ids: pd.Series) -> pd.Series:
    """Remove the version of Ensembl ids: ``ENSG00000223972.5`` becomes ``ENSG00000223972``.

    Also removes GENCODE's version of genes lifted to another build (``.5_4``), and ``_PAR_Y`` of
    the copy of a pseudoautosomal gene on Y. Other ids are not changed, because the number of
    StringTie's ``MSTRG.1`` is not a version.
    """
    version = rf"^({ENSEMBL})(?:\.\d+(?:_\d+)?)?(?:_PAR_Y)?$"
    return ids.astype(str).str.replace(version, r"\1", regex=True)


def find_genome_prefixes(names: pd.Series) -> set[str]:
    """Return the genome prefixes of gene names; an empty set unless all names have one."""
    genomes = names.astype(str).str.extract(GENOME)[0]
    return set() if genomes.isna().any() else set(genomes)


def strip_genome_prefix(names: pd.Series) -> pd.Series:
    """Remove the genome prefix of gene names, as in ``GRCh38_TP53``, if all have the same one."""
    names = names.astype(str)
    return (
        names.str.replace(GENOME, "", regex=True)
        if len(find_genome_prefixes(names)) == 1
        else names
    )


def find_genes(names: Iterable[pd.Series], genes: pd.DataFrame) -> np.ndarray:
    """Match genes to the vocabulary, by the column of names that matches the most genes.

    Parameters
    ----------
    names
        Columns that may have ids, symbols, or a mixture of both, (n,) each. Ids are tried before
        symbols, names with version before names without. A common genome prefix is ignored.
    genes
        ``gene_id`` and ``symbol``.

    Returns
    -------
    ndarray of int, (n,)
        Rows of ``genes``, -1 if there is no match.
    """
    columns = [strip_genome_prefix(column) for column in names]
    best, n_best = np.full(len(columns[0]), -1), (0, 0)
    for column in columns:
        by_id, by_symbol = (match_names(column, genes[known]) for known in ("gene_id", "symbol"))
        found = np.where(by_id >= 0, by_id, by_symbol)
        # Count genes, not rows, because a column of flags could match one gene in every row. Ids
        # break ties, because symbols can be ambiguous.
        n_genes, n_ids = (len(np.unique(rows[rows >= 0])) for rows in (found, by_id))
        if (n_genes, n_ids) > n_best:
            best, n_best = found, (n_genes, n_ids)
    return best


def match_names(names: pd.Series, known: pd.Series) -> np.ndarray:
    """Find the first row of each name among known ones, with or without version; -1 if missing."""
    rows = pd.Series(np.arange(len(known)), index=known.astype(str))
    rows = rows[~rows.index.duplicated()]
    found = rows.reindex(names).to_numpy()
    found = np.where(np.isnan(found), rows.reindex(strip_version(names)), found)
    return np.nan_to_num(found, nan=-1).astype(int)


def choose_chromosomes(chromosomes: pd.Series, genes: pd.Series) -> pd.Series:
    """Choose one chromosome per gene.

    Parameters
    ----------
    chromosomes, genes
        Chromosome (UCSC style) and gene of each row.

    Returns
    -------
    Series
        Per row, the gene's first main chromosome (:data:`MAIN_CHROMOSOMES`), else its first one.
    """
    main = (
        chromosomes.where(chromosomes.str.fullmatch(MAIN_CHROMOSOMES))
        .groupby(genes)
        .transform("first")
    )
    return main.fillna(chromosomes.groupby(genes).transform("first"))


def read_annotation(
    path: str | Path, biotypes: Collection[str] = ("protein_coding",)
) -> pd.DataFrame:
    """Read the genes of a GTF, or of a BED if the name ends in ``.bed`` (or ``.bed.gz``).

    Parameters
    ----------
    path, biotypes
        As for :func:`read_gtf`.

    Returns
    -------
    DataFrame
        As for :func:`read_gtf`.
    """
    is_bed = re.search(r"\.bed(\.\w+)?$", str(path), re.IGNORECASE)
    return read_bed(path) if is_bed else read_gtf(path, biotypes)


def read_gtf(path: str | Path, biotypes: Collection[str]) -> pd.DataFrame:
    """Read genes with all their TSSs from a GTF.

    By pandas, as libraries for genomic intervals do, which do not name the line that is at fault.

    Parameters
    ----------
    path
        GTF of GENCODE, Ensembl, RefSeq, UCSC or StringTie, plain or compressed. If a gene has no
        transcript lines, its transcripts are assembled from exons.
    biotypes
        ``gene_type`` / ``gene_biotype`` values to keep. Without these attributes all genes are
        kept.

    Returns
    -------
    DataFrame
        ``gene_id`` (Ensembl ids without version), ``symbol``, ``chrom``, ``strand``, ``length``
        (union of exons, bp), ``tss`` (sorted unique 0-based positions).

    Raises
    ------
    InputError
        If there is no gene, exon or ``gene_id``, or no gene of the biotypes.
    """
    names = ["chrom", "source", "feature", "start", "end", "score", "strand", "frame", "attribute"]
    with reading("ANNOTATION", path, "not a readable GTF", "check it, or download it again"):
        lines = pd.read_csv(
            open_bytes(path), sep="\t", names=names, usecols=names, dtype={"chrom": str}, quoting=3
        )
    # pandas' option ``comment`` would also cut lines at a # within descriptions.
    lines = lines[~lines["chrom"].str.startswith("#", na=True)]
    used = ["gene", "transcript", "exon"]
    lines = lines[lines["feature"].isin(used)].reset_index(drop=True)
    if not lines["feature"].isin(["transcript", "exon"]).any():
        raise InputError(
            "ANNOTATION", f"{path}: no transcript or exon lines; is this a GTF of genes?"
        )
    parse_positions(lines, path)

    def attribute(name: str) -> pd.Series:
        return lines["attribute"].str.extract(rf'\b{name} "([^"]*)"', expand=False)

    lines["gene_id"] = attribute("gene_id")
    if lines["gene_id"].isna().any():
        bad = lines.index[lines["gene_id"].isna()][0]
        shown = str(lines["attribute"][bad])[:60]
        raise InputError("ANNOTATION", f"{path}: no gene_id in '{shown}'; is this a GTF?")
    # An empty name counts as missing.
    named, or_named = (attribute(key).replace("", np.nan) for key in ("gene_name", "gene"))
    lines["symbol"] = named.fillna(or_named)
    lines["chrom"] = to_ucsc_names(lines["chrom"])
    # RefSeq gives the biotype only on the gene's line.
    lines["biotype"] = attribute("gene_type").fillna(attribute("gene_biotype"))
    lines["biotype"] = lines.groupby("gene_id")["biotype"].transform("first")
    if lines["biotype"].notna().any():
        found = sorted(lines["biotype"].dropna().unique())
        lines = lines[lines["biotype"].isin(biotypes)]
        if lines.empty:
            raise InputError(
                "ANNOTATION",
                f"{path}: no gene of type {', '.join(biotypes)}, only {', '.join(found[:5])}; set "
                "reference.biotypes.",
            )
    else:
        logger.info("%s: has no biotypes; keeping all genes", path)
    # A gene can be on both sex chromosomes, or also on scaffolds.
    lines["gene_id"] = strip_version(lines["gene_id"])
    lines["symbol"] = lines["symbol"].fillna(lines["gene_id"])
    lines = lines[lines["chrom"] == choose_chromosomes(lines["chrom"], lines["gene_id"])]

    transcripts = lines[lines["feature"] == "transcript"]
    without = lines[~lines["gene_id"].isin(transcripts["gene_id"])]
    transcripts = pd.concat([transcripts, assemble_transcripts(without)]).sort_index()
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
    genes["length"] = compute_union_lengths(lines[lines["feature"] == "exon"])
    if genes["length"].isna().any():
        raise InputError(
            "ANNOTATION",
            f"{path}: gene {genes.index[genes['length'].isna()][0]} has no exon line; use a GTF "
            "with exons.",
        )
    return genes.astype({"length": int}).reset_index()


def assemble_transcripts(lines: pd.DataFrame) -> pd.DataFrame:
    """Assemble transcripts from their exons, for a GTF without transcript lines.

    Parameters
    ----------
    lines
        ``gene_id``, ``symbol``, ``chrom``, ``strand``, ``start``, ``end``, ``feature``,
        ``attribute``.

    Returns
    -------
    DataFrame
        One row per transcript, in the order of the lines. Exons without ``transcript_id`` form
        one transcript of their gene.
    """
    exons = lines[lines["feature"] == "exon"]
    name = exons["attribute"].str.extract(r'\btranscript_id "([^"]*)"', expand=False).fillna("")
    ends = {"symbol": "first", "start": "min", "end": "max", "line": "first"}
    of_transcript = exons.assign(transcript=name, line=exons.index).groupby(
        ["gene_id", "transcript", "chrom", "strand"], sort=False
    )
    return of_transcript.agg(ends).reset_index().set_index("line")


def parse_positions(rows: pd.DataFrame, path: str | Path) -> None:
    """Convert the columns ``start`` and ``end`` to integers, in place.

    Raises
    ------
    InputError
        Showing the first value that is not a number.
    """
    for column in ("start", "end"):
        numbers = pd.to_numeric(rows[column], errors="coerce")
        if numbers.isna().any():
            bad = rows.loc[numbers.isna(), column].iloc[0]
            raise InputError(
                "ANNOTATION", f"{path}: the {column} '{bad}' is not a number; check the file."
            )
        rows[column] = numbers.astype(np.int64)


def compute_union_lengths(exons: pd.DataFrame) -> pd.Series:
    """Compute the number of bases in the union of exons, per gene.

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
    # End of the gene's earlier exons, 0 for its first exon.
    before = reached.groupby(exons["gene_id"]).shift(fill_value=0)
    new = (exons["end"] - np.maximum(before, exons["start"] - 1)).clip(lower=0)
    return new.groupby(exons["gene_id"]).sum()


def read_bed(path: str | Path) -> pd.DataFrame:
    """Read genes from a BED of transcripts: chrom, start, end, symbol, strand.

    A score may precede the strand, as in BED6 and BED12; further columns and a header are ignored.

    The symbol is the id. Rows with the same symbol are its transcripts. Those on the chromosome
    and strand of the longest one are used, main chromosomes first. The length is the span of the
    longest one, including introns, because a BED has no exons.

    Returns
    -------
    DataFrame
        The columns of :func:`read_gtf`.

    Raises
    ------
    InputError
        If columns are missing, or a strand is neither + nor -.
    """
    names = ["chrom", "start", "end", "symbol", "strand"]
    with reading("ANNOTATION", path, "not a readable BED", "check it, or download it again"):
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
        rows = rows[1:]  # skip the header
    strand = next((i for i in (4, 5) if i in rows and rows[i].isin(["+", "-"]).all()), None)
    if strand is None:
        raise InputError(
            "ANNOTATION",
            f"{path}: expected the columns chrom, start, end, symbol, strand (+ or -).",
        )
    rows = rows[[0, 1, 2, 3, strand]].set_axis(names, axis=1)
    parse_positions(rows, path)
    rows["chrom"] = to_ucsc_names(rows["chrom"])
    rows["length"] = rows["end"] - rows["start"]
    rows["tss"] = np.where(rows["strand"] == "-", rows["end"] - 1, rows["start"])
    rows = rows.sort_values(["symbol", "length"], ascending=[True, False], kind="stable")
    rows = rows[rows["chrom"] == choose_chromosomes(rows["chrom"], rows["symbol"])]
    rows = rows[rows["strand"] == rows.groupby("symbol")["strand"].transform("first")]
    genes = rows.groupby("symbol").agg(
        chrom=("chrom", "first"),
        strand=("strand", "first"),
        length=("length", "first"),
        tss=("tss", lambda positions: sorted(set(positions))),
    )
    return genes.reset_index().assign(gene_id=lambda table: table["symbol"])


def read_tfs(path: str | Path, known: Collection[str] = ()) -> set[str]:
    """Read a TF list: one symbol or gene id per line, or a column of a table.

    Comments (``#``) and quotes are ignored.

    Parameters
    ----------
    path
        The list, or a table separated by tabs, commas or spaces.
    known
        Ids and symbols of the genes. They determine the column of a table (the one that names
        most genes, else the first), and whether it has a header (a first name that is no gene).

    Raises
    ------
    InputError
        If it is empty or cannot be read.
    """
    remedy = "expected one symbol or id per line"
    with reading("TFS", path, "not a readable TF list", remedy), open_text(path) as handle:
        lines = [line.strip() for line in handle.read().splitlines()]
    lines = [re.split(r"\s#", line)[0] for line in lines if line.strip("\"'")]
    lines = [line for line in lines if not line.startswith("#")]
    if not lines:
        raise InputError("TFS", f"{path}: the TF list is empty; give one symbol or id per line.")
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
    """Order the genes for the model: TFs first, then the others, each sorted by id.

    Parameters
    ----------
    genes
        From :func:`read_gtf`.
    tfs
        Symbols or ids of the TFs, with or without version.
    measured
        Symbols or ids of the genes to keep (those in the samples' matrices); None: all genes.

    Returns
    -------
    DataFrame
        The columns of ``COLUMNS``; ``tss`` as comma-separated 0-based positions.

    Raises
    ------
    InputError
        If no gene is left, or none of them is a TF.
    """
    log_unknown_tfs(tfs, genes)
    if measured is not None:
        is_measured = genes["gene_id"].isin(measured) | genes["symbol"].isin(measured)
        if not is_measured.any():
            raise InputError(
                "GENES",
                "no genes in common between the samples (such as "
                f"{', '.join(sorted(measured)[:3])}) and reference.annotation (such as "
                f"{', '.join(genes['symbol'][:3])}); use the annotation of the same species.",
            )
        genes = genes[is_measured]
    named = tfs | {*strip_version(pd.Series(sorted(tfs), dtype=str))}
    is_tf = genes["gene_id"].isin(named) | genes["symbol"].isin(named)
    if not is_tf.any():
        raise InputError(
            "TFS",
            f"none of the {len(tfs)} TFs (such as {', '.join(sorted(tfs)[:3])}) is among the genes "
            f"(such as {', '.join(genes['symbol'][:3])}); name the TF list of the same species in "
            "reference.tfs.",
        )
    table = genes.assign(
        n_tss=genes["tss"].map(len),
        tss=genes["tss"].map(lambda positions: ",".join(map(str, positions))),
        is_tf=is_tf,
        is_mt=genes["chrom"] == MITOCHONDRIAL,
    )
    table = table.sort_values(["is_tf", "gene_id"], ascending=[False, True])
    return table[COLUMNS].reset_index(drop=True)


def log_unknown_tfs(tfs: set[str], genes: pd.DataFrame) -> None:
    """Log which names of a TF list are not in the annotation; see :func:`build_vocabulary`."""
    names = pd.Series(sorted(tfs), dtype=str)
    known = {*genes["gene_id"], *genes["symbol"]}
    unknown = names[~names.isin(known) & ~strip_version(names).isin(known)]
    if unknown.empty:
        return
    shown = ", ".join(unknown[:3])
    logger.info(
        "%d of the %d names in the TF list are not in the annotation, such as %s",
        len(unknown), len(names), shown,
    )  # fmt: skip
    by_lower_case = {name.lower(): name for name in sorted(known)}
    cases = [
        f"{name} ({by_lower_case[name.lower()]})"
        for name in unknown
        if name.lower() in by_lower_case
    ]
    if cases:
        logger.warning(
            "%d names in the TF list differ from a gene only in upper and lower case, such as %s; "
            "they are ignored",
            len(cases), ", ".join(cases[:3]),
        )  # fmt: skip


def read_vocabulary(path: str | Path) -> pd.DataFrame:
    """Read the ``genes.tsv`` of :func:`build_vocabulary`.

    ``nan`` (in *Drosophila*) and ``NA`` are gene symbols here, not missing values.
    """
    texts = {"gene_id": str, "symbol": str, "chrom": str, "tss": str}
    return read_table(path, dtype=texts, keep_default_na=False)


def make_tss_rings(genes: pd.DataFrame) -> pd.DataFrame:
    """List the intervals at and around TSSs in which insertions are counted for TSS enrichment.

    Parameters
    ----------
    genes
        The vocabulary (``chrom``, ``tss``).

    Returns
    -------
    DataFrame
        ``chrom``, ``start``, ``end`` (0-based, half open), ``is_centre``; sorted by position. Per
        TSS, the centre is 101 bases and the flanks are the outer 100 bases within 2,000 on each
        side, as in ENCODE's TSS enrichment.
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


def make_promoter_windows(
    genes: pd.DataFrame, upstream: int = 1500, downstream: int = 500
) -> pd.DataFrame:
    """List the promoter window of every TSS of every gene.

    A window has ``upstream`` bases before the TSS and ``downstream`` bases from the TSS on, in the
    direction of transcription, as in ``GenomicRanges::promoters``.

    Parameters
    ----------
    genes
        The vocabulary (``chrom``, ``strand``, ``tss``).

    Returns
    -------
    DataFrame
        ``chrom``, ``start``, ``end`` (0-based, half open, cut at 0), ``gene`` (row in
        ``genes``); one row per TSS, sorted by position.
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
