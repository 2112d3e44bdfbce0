"""Settings of the input: reference, samples, quality control, corpora and binning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from scdyn.settings.base import Count, PathText, Pattern, Seed, Settings, Share, Text, Unique

# Values of a preset for keys that are not given.
QC_PRESETS: dict[str, dict[str, float]] = {
    "nuclei": {"max_mito_share": 0.05},
    "cells": {"max_mito_share": 0.2},
}

Annotation = Annotated[
    str,
    Pattern(
        "",
        r"^(?!.*<[/!A-Za-z])[^{}\x00-\x1f\x7f]+\.(gtf|GTF|bed|BED)(\.(gz|bgz|bz2|xz|zst))?$",
        "A GTF or a BED of genes, compressed or not",
    ),
]
Sha256 = Annotated[str, Pattern("", "^[0-9a-fA-F]{64}$", "64 hexadecimal digits")]
NonNegative = Annotated[float, Field(ge=0)]


class SimulationSettings(Settings):
    """Simulation of the samples (the embedded study)."""

    seed: Seed = 1
    """Seed of the cells and their network."""
    n_cells: Annotated[int, Field(ge=60)] = 3000
    """Real cells of all samples in total."""
    n_genes: Annotated[int, Field(ge=100)] = 1000
    """Number of genes, including TFs."""
    n_tfs: Annotated[int, Field(ge=20)] = 60
    """Number of transcription factors."""


class ReferenceSettings(Settings):
    """Gene annotation and TFs."""

    annotation: Annotation
    """GTF (.gtf, .gtf.gz), or BED of genes (.bed, .bed.gz; chrom, start, end, symbol, strand)."""
    tfs: PathText
    """TF list, one symbol or gene id per line."""
    biotypes: Annotated[list[Text], Field(min_length=1)] = ["protein_coding"]
    """Gene types of the GTF to keep."""
    genes: Literal["all", "measured"] = "all"
    """Genes of the vocabulary. all - all genes of the annotation; measured - genes in the samples'
    matrices, for gene panels."""
    upstream: Annotated[int, Field(ge=0)] = 1500
    """Bases of a promoter upstream of the TSS."""
    downstream: Count = 500
    """Bases of a promoter downstream of the TSS."""


class ResourceSettings(Settings):
    """Download of public files (resources/catalogue.tsv), which the config names as
    resources/downloads/NAME.
    """  # noqa: D205

    mirror: PathText | None = None
    """Folder, file:// or https:// address of a mirror that has the files under their names. null -
    download from the original addresses."""
    sha256: dict[Text, Sha256] = {}
    """SHA-256 that a file must have, by name; a file with another hash is refused."""


class QualitySettings(Settings):
    """Quality control of cells (docs/input.md); a preset's name (qc - cells) is a short form."""

    preset: Annotated[Literal["nuclei", "cells"], Field(exclude=True)] = "nuclei"
    """Kind of cells. nuclei - 10x Multiome, snRNA-seq; cells - whole cells. Keys that are given
    have precedence over the preset."""
    min_rna_counts: Annotated[int, Field(ge=0)] = 500
    """Fewest UMIs per cell."""
    min_genes: Annotated[int, Field(ge=0)] = 200
    """Fewest detected genes per cell."""
    max_mito_share: Annotated[Share, Field(json_schema_extra={"by": "preset"})] = QC_PRESETS[
        "nuclei"
    ]["max_mito_share"]
    """Largest share of mitochondrial UMIs per cell."""
    min_promoter_counts: Annotated[int, Field(ge=0)] = 200
    """Fewest insertions (or peak counts) in promoters per cell."""
    n_mads: Annotated[float, Field(gt=0)] | None = 5.0
    """Cells whose counts are further from the median than this number of MADs (log scale) are
    removed. null - no bound."""
    min_tss_enrichment: NonNegative | None = None
    """Smallest TSS enrichment per cell, if there are fragments. null - no bound."""
    max_nucleosome_signal: NonNegative | None = None
    """Largest ratio of mononucleosomal to shorter fragments per cell. null - no bound."""
    min_promoter_share: Share | None = None
    """Smallest share of insertions in promoters per cell. null - no bound."""
    max_doublet_score: Share | None = 0.3
    """Largest Scrublet score of the RNA. null - Scrublet is not run."""
    max_promoter_doublet_score: Share | None = None
    """Largest Scrublet score of the promoter counts. null - the score is reported, but no bound."""
    keep: Literal["both", "either"] = "both"
    """Modalities in which a cell must pass. both - in both; either - in at least one."""
    min_cells: Count = 50
    """Fewest cells per sample that must pass; otherwise the sample is refused."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, content: Any) -> Any:
        """Accept the name of a preset, and fill in its values for keys that are not given."""
        if isinstance(content, str):
            content = {"preset": content}
        if not isinstance(content, Mapping):
            return content
        preset = content.get("preset", "nuclei")
        return {**QC_PRESETS.get(preset if isinstance(preset, str) else "", {}), **content}


class InputThresholds(Settings):
    """Shares and ratios below which a sample is refused."""

    min_gene_overlap: Share = 0.5
    """Smallest share of the genes that must be found in the annotation."""
    min_barcode_overlap: Share = 0.5
    """Smallest share of the RNA barcodes that must be found in the ATAC data."""
    min_promoter_enrichment: NonNegative = 1.5
    """Smallest enrichment of fragments or peaks in promoters over chance; a value near 1 indicates
    another genome build."""


class IngestSettings(InputThresholds):
    """Requirements on samples and quality control."""

    min_metadata_overlap: Share = 0.5
    """Smallest share of a sample's barcodes that must be found in the metadata (of its rows in the
    metadata, if these are fewer)."""
    barcode_translation: PathText | None = None
    """Table of RNA and ATAC barcodes (two columns), if a cell has different barcodes in the two
    files. null - none."""
    qc: QualitySettings = Field(default_factory=QualitySettings)
    """Quality control of cells (docs/input.md); a preset's name (qc - cells) is a short form."""


class CorpusSettings(Settings):
    """A set of samples that are analysed together."""

    samples: Annotated[list[Text], *Unique, Field(min_length=1)] | None = None
    """Names of its samples. null - all samples of the sheet."""


# Names of covariates; barcode is a column of the cell metadata.
COVARIATE_NAME = Pattern(
    "name",
    r"^(?!barcode$)[A-Za-z][A-Za-z0-9_]{0,63}$",
    "letters, digits and _, a letter first, and not barcode",
)
SampleName = Annotated[
    str,
    Pattern(
        "",
        r"^(?!(?i:na|nan|none|null|nat)$)[A-Za-z0-9][A-Za-z0-9_-]{0,63}$",
        "A name of letters, digits, _ and -, not one that means missing such as NA",
    ),
]
PathOrEmpty = Annotated[
    str,
    Pattern(
        "path",
        r"^(?!.*<[/!A-Za-z])[^{}\x00-\x1f\x7f]*$",
        "A path without control characters, tags and braces (Snakemake reads braces as wildcards)",
    ),
]
Layer = Annotated[
    str,
    Pattern(
        "text",
        r"^([A-Za-z0-9]([A-Za-z0-9_ .-]*[A-Za-z0-9])?)?$",
        "The name of a layer, of letters, digits and, inside, spaces or one of _.-",
    ),
]
Covariate = Annotated[
    str,
    Pattern(
        "text",
        r"^(?!.*<[/!A-Za-z])[^\x00-\x1f\x7f]*$",
        "A line of text without HTML tags, which would end the script of Snakemake's report",
    ),
]


class SampleRow(Settings, extra="allow"):
    """A row of the sample sheet. Every further column is a covariate."""

    __pydantic_extra__: dict[str, Covariate]

    sample: SampleName
    """Name of the sample, not one that means missing such as NA; cells are named
    {sample}_{barcode}."""
    kind: Literal["10x", "h5ad", "h5mu"]
    """10x - output of Cell Ranger (ARC, or GEX with ATAC in atac_path), STARsolo, kallisto
    bustools or alevin-fry, or a MatrixMarket folder; h5ad - counts in X, a layer or raw; h5mu -
    modalities rna and atac."""
    path: PathText
    """Folder or file; a pattern with * or ? gives several libraries of the sample."""
    atac_path: PathOrEmpty = ""
    """Cell Ranger ATAC output, or an h5ad of peaks, if the matrix in path has no peaks; none - RNA
    only, promoters are read as not measured."""
    fragments: PathOrEmpty = ""
    """Fragments file, if it is not in the folder of the matrix."""
    rna_layer: Layer = ""
    """Layer of the RNA counts, X, or raw. Empty - spliced, counts or X, the first that exists, or
    raw if X has no counts."""
    promoter_layer: Layer = ""
    """Layer of the promoter counts; also unspliced of STARsolo, kallisto bustools or alevin-fry.
    Empty - of an h5ad or h5mu the layer promoter, or unspliced if there are no peaks."""
    metadata: PathOrEmpty = ""
    """Metadata table of the cells (labels, positions x and y), text with a header."""
