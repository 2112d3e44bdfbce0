"""The simulated study's files, as a sequencing facility delivers them, and the truth.

Formats follow the public descriptions of GENCODE's GTF, of Cell Ranger ARC's
outputs, and of the cisTarget resources as pySCENIC 0.12.1 reads them. Files hold
no dates, so that the same study gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pysam
import scipy
from scipy import sparse

from scdyn.io.files import write_json, write_table
from scdyn_simulate.counts import Counts
from scdyn_simulate.network import CHROMOSOMES, Genome, Network
from scdyn_simulate.parameters import Simulation

GENOME = "sim"
ABSENT_TFS = ("Absent1", "Absent2", "Absent3")
"""Listed as transcription factors, but not in the annotation, as in real lists."""
MOTIF_SHIFT, MOTIF_MISSED, MOTIF_FALSE = 2.75, 0.2, 0.02
"""Score of genes with the motif above others (in standard deviations), the share of targets
without the motif, and the share of other genes with it."""
TRUTH_COLUMNS = (
    "sample barcode state fate intended_fate time is_doublet is_poor modality signal".split()
)


def write_gzip(path: Path, text: str) -> None:
    """Write gzipped text without name and time in its header."""
    with path.open("wb") as handle, gzip.GzipFile("", "wb", 6, handle, mtime=0) as compressed:
        compressed.write(text.encode())


def format_gtf_line(row: Any, feature: str, start: int, end: int, attributes: dict) -> str:
    """Format one line of a GTF, with chrom and strand of a gene's row."""
    listed = " ".join(
        f"{key} {value};" if isinstance(value, int) else f'{key} "{value}";'
        for key, value in attributes.items()
    )
    return f"{row.chrom}\tHAVANA\t{feature}\t{start}\t{end}\t.\t{row.strand}\t.\t{listed}\n"


def write_gtf(path: Path, genome: Genome) -> None:
    """Write gene, transcript and exon lines as GENCODE does, with versions in the ids."""
    lines = [
        "##description: simulated annotation of an embryo's tail bud\n",
        "##provider: scdyn\n##format: gtf\n",
    ]
    transcripts = dict(list(genome.transcripts.groupby("gene")))
    for gene in genome.genes.itertuples():
        common = {
            "gene_id": f"{gene.id}.{gene.version}",
            "gene_type": gene.biotype,
            "gene_name": gene.symbol,
        }
        lines.append(format_gtf_line(gene, "gene", gene.start, gene.end, {**common, "level": 2}))
        for place, transcript in enumerate(transcripts[gene.Index].itertuples(), 201):
            own = {
                "gene_id": common["gene_id"],
                "transcript_id": f"{transcript.id}.1",
                "gene_type": gene.biotype,
                "gene_name": gene.symbol,
                "transcript_type": gene.biotype,
                "transcript_name": f"{gene.symbol}-{place}",
            }
            first, last = transcript.exons[0][0], transcript.exons[-1][1]
            lines.append(format_gtf_line(gene, "transcript", first, last, {**own, "level": 2}))
            # GENCODE numbers and lists exons in the order of transcription.
            exons = transcript.exons if gene.strand == "+" else transcript.exons[::-1]
            for number, (start, end) in enumerate(exons, 1):
                attributes = {**own, "exon_number": number, "level": 2}
                lines.append(format_gtf_line(gene, "exon", start, end, attributes))
    write_gzip(path, "".join(lines))


def name_motifs(network: Network, n_decoys: int, rng: np.random.Generator) -> pd.DataFrame:
    """Name one or two motifs of each transcription factor, and decoys.

    Returns
    -------
    pandas.DataFrame
        Columns motif and tf (row of the network; -1 for a decoy).
    """
    rows = []
    for tf in range(network.n_tfs):
        for copy in range(1, int(rng.integers(1, 3)) + 1):
            rows.append((f"simbase__{network.symbols[tf]}_{copy}", tf))
    rows += [(f"simbase__decoy_{i:03d}", -1) for i in range(1, n_decoys + 1)]
    return pd.DataFrame(rows, columns=["motif", "tf"])


def rank_genes(network: Network, motifs: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Rank all genes by their score for each motif.

    Scores are standard normal, with half of the variance shared by motifs of
    similar composition. Most true targets, of either sign, and a few other genes
    have higher scores.

    Returns
    -------
    numpy.ndarray
        Ranks, 0 is the best; (motifs, n_genes), int16 if they fit.
    """
    n_genes = network.weights.shape[1]
    composition = rng.standard_normal((4, n_genes))
    loading = rng.standard_normal((len(motifs), 4)) / 2
    scores = np.sqrt(0.5) * (loading @ composition)
    scores += np.sqrt(0.5) * rng.standard_normal(scores.shape)
    for row, tf in enumerate(motifs["tf"]):
        carries = np.less(rng.random(n_genes), MOTIF_FALSE)
        if tf >= 0:
            is_target = network.weights[tf] != 0
            carries = np.where(is_target, rng.random(n_genes) > MOTIF_MISSED, carries)
        scores[row] += MOTIF_SHIFT * carries
    ranks = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1, kind="stable")
    return ranks.astype(np.int16 if n_genes < 2**15 else np.int32)


def write_motifs(folder: Path, network: Network, n_decoys: int, rng: np.random.Generator) -> None:
    """Write the ranking database and the annotation of its motifs."""
    motifs = name_motifs(network, n_decoys, rng)
    ranks = rank_genes(network, motifs, rng)
    order = np.argsort(network.symbols)
    columns = {network.symbols[i]: ranks[:, i] for i in order}
    table = pa.table({**columns, "motifs": motifs["motif"].tolist()})
    path = folder / "motifs.genes_vs_motifs.rankings.feather"
    pyarrow.feather.write_feather(table, path, compression="lz4", version=2)
    known = motifs[motifs["tf"] >= 0]
    symbols = [network.symbols[tf] for tf in known["tf"]]
    annotation = pd.DataFrame(
        {
            "#motif_id": known["motif"],
            "motif_name": known["motif"].str.replace("simbase__", ""),
            "motif_description": symbols,
            "source_name": "simbase",
            "source_version": "1",
            "gene_name": symbols,
            "motif_similarity_qvalue": "0.000000",
            "similar_motif_id": "None",
            "similar_motif_description": "None",
            "orthologous_identity": "1.000000",
            "orthologous_gene_name": "None",
            "orthologous_species": "None",
            "description": "gene is directly annotated",
        }
    )
    write_table(folder / "motifs.annotation.tbl", annotation)


def write_reference(
    folder: Path,
    parameters: Simulation,
    network: Network,
    genome: Genome,
    seed: np.random.SeedSequence,
) -> None:
    """Write the reference: annotation, transcription factors, motifs."""
    rng = np.random.default_rng(seed)
    write_gtf(folder / "genes.gtf.gz", genome)
    names = rng.permutation([*network.symbols[: network.n_tfs], *ABSENT_TFS])
    (folder / "tfs.txt").write_text("".join(f"{name}\n" for name in names))
    write_motifs(folder, network, parameters.n_decoy_motifs, rng)


def write_truth(
    folder: Path,
    parameters: Simulation,
    network: Network,
    drivers: pd.DataFrame,
) -> None:
    """Write the network, the drivers of each fate, and all parameters."""
    tf, target = np.nonzero(network.weights)
    weight = network.weights[tf, target]
    symbols = np.array(network.symbols)
    edges = pd.DataFrame(
        {
            "tf": symbols[tf],
            "target": symbols[target],
            "sign": np.sign(weight).astype(int),
            "weight": np.abs(weight),
        }
    )
    write_table(folder / "truth" / "edges.tsv", edges)
    write_table(folder / "truth" / "drivers.tsv", drivers)
    versions = {"numpy": np.__version__, "scipy": scipy.__version__}
    content = {**dataclasses.asdict(parameters), "versions": versions}
    write_json(folder / "truth" / "parameters.json", content)


def write_cells(folder: Path, tables: Sequence[pd.DataFrame], rng: np.random.Generator) -> None:
    """Write the laboratory's annotation of each called barcode, and the truth.

    The rows of the annotation are in random order, so that code that pairs cells by
    row instead of by barcode fails tests.
    """
    table = pd.concat(tables, ignore_index=True)
    known = table[["sample", "barcode", "cell_type", "x", "y"]].round({"x": 1, "y": 1})
    write_table(folder / "cell_metadata.tsv", known.iloc[rng.permutation(len(known))])
    truth = table[list(TRUTH_COLUMNS)].round({"time": 3, "signal": 4})
    truth = truth.astype({"is_doublet": int, "is_poor": int})
    write_table(folder / "truth" / "cells.tsv", truth)


def list_features(genome: Genome, counts: Counts) -> pd.DataFrame:
    """List the rows of a matrix: genes by position, then peaks.

    Returns
    -------
    pandas.DataFrame
        Columns id, name, feature_type, chrom, start, end (0-based, half-open).
    """
    names = np.array(list(genome.lengths))
    genes = genome.genes
    peaks = counts.intervals
    rows = pd.DataFrame({"chrom": names[peaks.chrom], "start": peaks.start, "end": peaks.end})
    label = rows["chrom"] + ":" + rows["start"].astype(str) + "-" + rows["end"].astype(str)
    peak_rows = pd.DataFrame({"id": label, "name": label, "feature_type": "Peaks", **rows})
    gene_rows = pd.DataFrame(
        {
            "id": genes["id"],
            "name": genes["symbol"],
            "feature_type": "Gene Expression",
            "chrom": genes["chrom"],
            "start": genes["start"] - 1,
            "end": genes["end"],
        }
    )
    return pd.concat([gene_rows, peak_rows], ignore_index=True)


def write_h5(
    path: Path, features: pd.DataFrame, barcodes: np.ndarray, matrix: sparse.csc_matrix
) -> None:
    """Write ``filtered_feature_bc_matrix.h5``; ``matrix`` is CSC, features in rows."""
    interval = (
        features["chrom"] + ":" + features["start"].astype(str) + "-" + features["end"].astype(str)
    )
    texts = {
        "id": features["id"],
        "name": features["name"],
        "feature_type": features["feature_type"],
        "genome": [GENOME] * len(features),
        "interval": interval,
        "_all_tag_keys": ["genome", "interval"],
    }
    options = {"compression": "gzip", "track_times": False}
    with h5py.File(path, "w", track_order=True) as handle:
        group = handle.create_group("matrix")
        group.create_dataset("barcodes", data=np.array(barcodes, dtype="S"), **options)
        group.create_dataset("data", data=matrix.data.astype(np.int32), **options)
        group.create_dataset("indices", data=matrix.indices.astype(np.int64), **options)
        group.create_dataset("indptr", data=matrix.indptr.astype(np.int64), **options)
        group.create_dataset("shape", data=np.array(matrix.shape, dtype=np.int32), **options)
        listed = group.create_group("features")
        for key, values in texts.items():
            listed.create_dataset(key, data=np.array(list(values), dtype="S"), **options)


def write_mtx(
    folder: Path, features: pd.DataFrame, barcodes: np.ndarray, matrix: sparse.csc_matrix
) -> None:
    """Write the folder ``filtered_feature_bc_matrix``; ``matrix`` is CSC."""
    folder.mkdir()
    write_gzip(folder / "barcodes.tsv.gz", "".join(f"{b}\n" for b in barcodes))
    columns = ["id", "name", "feature_type", "chrom", "start", "end"]
    text = features[columns].to_csv(sep="\t", header=False, index=False, lineterminator="\n")
    write_gzip(folder / "features.tsv.gz", text)
    column = np.repeat(np.arange(matrix.shape[1]), np.diff(matrix.indptr))
    entries = pl.DataFrame({"row": matrix.indices + 1, "column": column + 1, "n": matrix.data})
    buffer = io.BytesIO()
    entries.write_csv(buffer, separator=" ", include_header=False)
    head = "%%MatrixMarket matrix coordinate integer general\n"
    head += '%metadata_json: {"software_version": "cellranger-arc-2.0.2", "format_version": 2}\n'
    head += f"{matrix.shape[0]} {matrix.shape[1]} {matrix.nnz}\n"
    write_gzip(folder / "matrix.mtx.gz", head + buffer.getvalue().decode())


def write_fragments(path: Path, sample: str, genome: Genome, counts: Counts) -> None:
    """Write ``atac_fragments.tsv.gz``, block-gzipped, and its tabix index."""
    fragments = counts.fragments
    names = np.array(list(genome.lengths))
    table = pl.DataFrame(
        {
            "chrom": pl.Series(names)[fragments.chrom],
            "start": fragments.start,
            "end": fragments.end,
            "barcode": pl.Series(counts.barcodes.tolist())[fragments.barcode],
            "support": fragments.support,
        }
    )
    head = [f"id={sample}", "pipeline_name=cellranger-arc", "pipeline_version=simulated"]
    head += [f"reference_fasta_hash={GENOME}"]
    head += [f"primary_contig={chrom}" for chrom in CHROMOSOMES]
    buffer = io.BytesIO("".join(f"# {line}\n" for line in head).encode())
    buffer.seek(0, io.SEEK_END)
    table.write_csv(buffer, separator="\t", include_header=False)
    # The fastest level takes a fifth of the default's time and writes a third more bytes.
    with pysam.BGZFile(str(path), "wb1") as handle:
        handle.write(buffer.getvalue())
    pysam.tabix_index(str(path), preset="bed", force=True)


def write_sample(folder: Path, genome: Genome, counts: Counts, layout: str) -> None:
    """Write one sample's folder as Cell Ranger ARC would.

    Parameters
    ----------
    folder
        Folder of the sample, which is created.
    genome, counts
        The genome and the sequenced sample.
    layout
        Format of the filtered matrix: ``h5`` or ``mtx``.
    """
    folder.mkdir()
    features = list_features(genome, counts)
    matrix = sparse.vstack([counts.rna, counts.peaks], format="csc")
    matrix.sort_indices()
    called = counts.barcodes[: matrix.shape[1]]
    if layout == "h5":
        write_h5(folder / "filtered_feature_bc_matrix.h5", features, called, matrix)
    else:
        write_mtx(folder / "filtered_feature_bc_matrix", features, called, matrix)
    write_fragments(folder / "atac_fragments.tsv.gz", folder.name, genome, counts)
    counts.metrics.to_csv(folder / "per_barcode_metrics.csv", index=False)
