"""Settings of what goes in: reference, samples, quality, corpora, and what the model reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from scdyn.settings.base import Count, PathText, Pattern, Seed, Settings, Share, Text, Unique

# What a preset fills in, where the key itself is not given.
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
    """Simulate the samples first (the embedded study)."""

    seed: Seed = 1
    """Seed of the cells and their network."""
    n_cells: Annotated[int, Field(ge=60)] = 3000
    """Real cells of all samples together."""
    n_genes: Annotated[int, Field(ge=100)] = 1000
    """Genes, TFs included."""
    n_tfs: Annotated[int, Field(ge=20)] = 60
    """Transcription factors."""


class ReferenceSettings(Settings):
    """Where genes, TSSs and TFs come from."""

    annotation: Annotation
    """GTF (.gtf, .gtf.gz), or BED of genes (.bed, .bed.gz; chrom, start, end, symbol, strand)."""
    tfs: PathText
    """TF list, a symbol or gene id a line."""
    biotypes: Annotated[list[Text], Field(min_length=1)] = ["protein_coding"]
    """Gene types of the GTF to keep."""
    genes: Literal["all", "measured"] = "all"
    """Vocabulary of all genes of the annotation, or of those the samples' matrices name
    (panels)."""
    upstream: Annotated[int, Field(ge=0)] = 1500
    """Bases of a promoter before the TSS."""
    downstream: Count = 500
    """Bases of a promoter from the TSS on."""


class ResourceSettings(Settings):
    """How public files are fetched (resources/catalogue.tsv), which the config names as
    resources/downloads/NAME.
    """  # noqa: D205

    mirror: PathText | None = None
    """Folder, file:// or https:// address that has the files under their names, used instead of
    their own. null - none."""
    sha256: dict[Text, Sha256] = {}
    """SHA-256 that a file must have, by name; one of another is refused."""


class QualitySettings(Settings):
    """What a cell must be like; docs/input.md says what becomes of the others. A preset's name
    alone (qc - cells) does, too.
    """  # noqa: D205

    preset: Annotated[Literal["nuclei", "cells"], Field(exclude=True)] = "nuclei"
    """What the cells are. nuclei - 10x Multiome, snRNA-seq; cells - whole cells. Keys that are
    given win over it."""
    min_rna_counts: Annotated[int, Field(ge=0)] = 500
    """Fewest UMIs of a cell."""
    min_genes: Annotated[int, Field(ge=0)] = 200
    """Fewest detected genes of a cell."""
    max_mito_share: Annotated[Share, Field(json_schema_extra={"by": "preset"})] = QC_PRESETS[
        "nuclei"
    ]["max_mito_share"]
    """Largest share of mitochondrial UMIs."""
    min_promoter_counts: Annotated[int, Field(ge=0)] = 200
    """Fewest insertions (or peak counts) in promoters."""
    n_mads: Annotated[float, Field(gt=0)] | None = 5.0
    """Counts further from the median than this many MADs (log scale) are out. null - no such
    bound."""
    min_tss_enrichment: NonNegative | None = None
    """Smallest TSS enrichment of a cell with fragments. null - no such bound."""
    max_nucleosome_signal: NonNegative | None = None
    """Largest share of fragments as long as a nucleosome over shorter ones. null - no such
    bound."""
    min_promoter_share: Share | None = None
    """Smallest share of a cell's insertions that lie in promoters. null - no such bound."""
    max_doublet_score: Share | None = 0.3
    """Largest Scrublet score of the RNA. null - doublets are not looked for."""
    max_promoter_doublet_score: Share | None = None
    """Largest Scrublet score of the promoter counts. null - it is reported and no bound."""
    keep: Literal["both", "either"] = "both"
    """A cell must pass in both modalities, or in either."""
    min_cells: Count = 50
    """Fewest cells a sample must keep."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, content: Any) -> Any:
        """Read a preset's name alone, and add its bounds below those that are given."""
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
    """Smallest share of the RNA barcodes that the second modality must have."""
    min_promoter_enrichment: NonNegative = 1.5
    """How much more often than by chance fragments or peaks must lie in promoters; near 1 the
    genome build is another."""


class IngestSettings(InputThresholds):
    """What a sample must be like."""

    min_metadata_overlap: Share = 0.5
    """Smallest share of a sample's barcodes, or of its rows in the metadata if these are fewer,
    that must be the same."""
    barcode_translation: PathText | None = None
    """Table of RNA and ATAC barcodes (two columns), where the files have one of each for a cell.
    null - none."""
    qc: QualitySettings = Field(default_factory=QualitySettings)
    """What a cell must be like; docs/input.md says what becomes of the others. A preset's name
    alone (qc - cells) does, too."""


class CorpusSettings(Settings):
    """A set of samples that are analysed together."""

    samples: Annotated[list[Text], *Unique, Field(min_length=1)] | None = None
    """Names of its samples. null - all of the sheet."""


class TokenSettings(Settings):
    """What the model reads."""

    n_bins: Annotated[int, Field(ge=1, le=252)] = 14
    """Highest value bin; log1p of a million is 13.8."""


# Of a covariate. Cells have a column barcode of their own.
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
        "A path, wherever it lies, without control characters, tags and braces, which Snakemake "
        "reads as wildcards",
    ),
]
Layer = Annotated[
    str,
    Pattern(
        "text",
        r"^([A-Za-z0-9]([A-Za-z0-9_ .-]*[A-Za-z0-9])?)?$",
        "A layer's name, of letters, digits and, within it, spaces or one of _.-",
    ),
]
Covariate = Annotated[
    str,
    Pattern(
        "text",
        r"^(?!.*<[/!A-Za-z])[^\x00-\x1f\x7f]*$",
        "A line of text without what looks like a tag, which would end the script of Snakemake's "
        "report",
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
    """Folder or file; with * or ? in it, several libraries of the sample."""
    atac_path: PathOrEmpty = ""
    """Cell Ranger ATAC output, or an h5ad of peaks, if the matrix in path has no peaks; none - RNA
    only, promoters are read as not measured."""
    fragments: PathOrEmpty = ""
    """Fragments file, if it does not stand beside the matrix."""
    rna_layer: Layer = ""
    """Layer of the RNA counts, X, or raw. Empty - spliced, counts or X, the first that is there,
    or raw if X holds no counts."""
    promoter_layer: Layer = ""
    """Layer of the promoter counts; unspliced of STARsolo, kallisto bustools or alevin-fry, too.
    Empty - of an h5ad or h5mu promoter, or unspliced if it has no peaks, if there."""
    metadata: PathOrEmpty = ""
    """Table of cells (labels, positions x and y), text with a header."""
