"""Every kind of real data in ../shared/data through ingestion, unchanged (``make test-real``)."""

import gzip
import re
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scdyn.errors import InputError
from scdyn.io import fragments, tenx
from scdyn.io.features import read_barcodes, read_features
from scdyn.io.sample_files import FILES, LAYERS, find_libraries, list_input_files, locate
from scdyn.pp import ingestion, preflight, reference
from scdyn.pp.counts import normalise, promoters_measured
from scdyn.pp.metadata import annotate
from scdyn.settings import InputThresholds

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
K562 = DATA / "multiome" / "k562_chr22"
FRAGMENTS = K562 / "example_chr22p_multiome_cluster__atac_fragments.tsv.gz"
THRESHOLDS = InputThresholds()


def vocabulary(species, measured=None):
    """Genes of a BED, and promoter windows."""
    bed, tfs = {"human": ("hg38", "hs_hgnc"), "mouse": ("mm10", "mm_mgi")}[species]
    genes = reference.build_vocabulary(
        reference.read_bed(DATA / "reference" / f"{bed}_genes.bed.gz"),
        reference.read_tfs(DATA / "reference" / f"{tfs}_tfs.txt"),
        measured,
    )
    return genes, reference.make_promoter_windows(genes)


def row(kind, path, **columns):
    empty = dict.fromkeys([*FILES, *LAYERS, "metadata"], "")
    return {"sample": "s", "kind": kind, **empty, "path": str(path), **columns}


def check(sheet_row, genes, windows):
    """Examine and ingest a sample; the counts can be normalised."""
    findings = preflight.examine_sample(sheet_row, genes, windows, THRESHOLDS)
    assert all(finding.passed for finding in findings), findings
    cells = ingestion.ingest(sheet_row, genes, windows, 0.5, 0.5)
    normalise(cells)
    totals, sizes = np.expm1(cells.layers["rna_log"]).sum(1), cells.X.sum(1)
    np.testing.assert_allclose(totals[totals > 0], np.median(sizes[sizes > 0]), rtol=1e-3)
    return cells


@pytest.fixture(scope="module")
def k562(tmp_path_factory):
    """The RNA as an ``.h5ad``, which the table of genes and cells is not."""
    path = K562 / "example_chr22_multiome_cluster__cluster1__rna_count_matrix.csv.gz"
    table = pd.read_csv(path, index_col=0)
    cells = ad.AnnData(sparse.csr_matrix(table.T.to_numpy(dtype=np.float32)))
    cells.obs_names, cells.var_names = table.columns, table.index
    path = tmp_path_factory.mktemp("k562") / "rna.h5ad"
    cells.write_h5ad(path)
    return path, cells


def test_counts_of_real_fragments_are_those_of_brute_force():
    genes, windows = vocabulary("human")
    with gzip.open(FRAGMENTS, "rt") as file:
        rows = [line.split("\t") for line in file if not line.startswith("#")]
    barcodes = pd.Index(sorted({row[3] for row in rows}))
    expected = np.zeros((len(barcodes), len(genes)), dtype=int)
    on_chrom = windows[windows["chrom"] == "chr22"]
    starts, ends = on_chrom["start"].to_numpy(), on_chrom["end"].to_numpy()
    for _, start, end, barcode, _ in rows:
        for position in (int(start), int(end) - 1):
            for gene in on_chrom["gene"][(starts <= position) & (position < ends)]:
                expected[barcodes.get_loc(barcode), gene] += 1
    counts, totals = fragments.count_insertions(FRAGMENTS, windows, len(genes), barcodes)
    assert expected.sum() > 100
    assert totals["fragments"].sum() == len(rows)
    np.testing.assert_array_equal(counts.toarray(), expected)


def test_k562_by_its_fragments(k562):
    path, cells = k562
    genes, windows = vocabulary("human")
    sheet_row = row("h5ad", path, fragments=str(FRAGMENTS))
    # The fragments are of six megabases, where few of the cells have any.
    cells = ingestion.ingest(sheet_row, genes, windows, 0.3, 0.0)
    assert cells.n_obs == 500
    measured = promoters_measured(cells.obs)
    assert 0 < measured.sum() < 500
    assert cells.layers["promoter"][~measured].nnz == 0


def test_cellrangers_own_table_of_k562():
    path = K562 / "per_barcode_meta_data.csv.gz"
    table = pd.read_csv(path).drop_duplicates("barcode")
    metrics = tenx.read_metrics(path, pd.Index([*table["barcode"][:3], "not-there"]))
    assert metrics["peak_share"].iloc[0] == pytest.approx(7811 / 18100)
    assert metrics["atac_mito_share"].iloc[1] == pytest.approx(1365 / 56337)
    assert metrics.loc["not-there"].isna().all()


def test_the_cortex_by_its_peaks_with_its_labels():
    folder = DATA / "multiome" / "snare_mouse_cortex"
    genes, windows = vocabulary("mouse")
    labels = str(folder / "cell_labels.csv.gz")
    cells = check(row("10x", folder), genes, windows)
    assert cells.n_obs == 10_309
    table = annotate(cells.obs, "s", {}, labels, 0.5)
    assert table["cluster_remapped"].nunique() == 15
    assert set(cells.obs["promoter_source"]) == {"peaks"}


def test_bone_marrow_of_two_files_in_any_order():
    folder = DATA / "multiome" / "bmmc"
    names = set(ad.read_h5ad(folder / "output_rna.h5ad").var_names)
    genes, windows = vocabulary("human", names)
    pair = {"atac_path": str(folder / "output_mod2.h5ad")}
    cells = check(row("h5ad", folder / "output_rna.h5ad", **pair), genes, windows)
    assert cells.n_obs == 500 and cells.obs["cell_type"].nunique() == 21
    of_cellranger = check(row("10x", folder), genes, windows)
    assert of_cellranger.n_obs == 500


def test_modalities_of_other_cells_are_refused():
    folder = DATA / "multiome" / "bmmc_mismatched"
    genes, windows = vocabulary("human", set(ad.read_h5ad(folder / "rna.h5ad").var_names))
    sheet_row = row("h5ad", folder / "rna.h5ad", atac_path=str(folder / "atac.h5ad"))
    with pytest.raises(InputError, match="use files of the same cells"):
        ingestion.ingest(sheet_row, genes, windows, 0.1, 0.5)


@pytest.mark.parametrize(
    ("path", "n_cells", "column", "n_classes"),
    [
        ("perturbation/tal1_chimera_e8.5.h5ad", 2_889, "tomato", 2),
        ("spatial/seqfish_mouse_embryo_e8.5.h5ad", 14_185, None, 23),
    ],
)
def test_panels_of_rna_alone(path, n_cells, column, n_classes):
    table = ad.read_h5ad(DATA / path, backed="r")
    genes, windows = vocabulary("mouse", {*table.var_names, *symbols(table.var)})
    cells = check(row("h5ad", DATA / path, atac_path="none"), genes, windows)
    assert cells.n_obs == n_cells
    assert not promoters_measured(cells.obs).any()
    if column:
        assert cells.obs[column].nunique() == n_classes
    else:
        np.testing.assert_array_equal(cells.obsm["spatial"], table.obsm["spatial"])
        assert n_classes in cells.obs.nunique().tolist()


def symbols(var):
    """Every text that names genes in a table of them."""
    return {name for column in var for name in var[column].astype(str)}


def test_spliced_and_unspliced_are_the_two_modalities():
    path = DATA / "development" / "dentate_gyrus_spliced_unspliced.h5ad"
    genes, windows = vocabulary("mouse")
    cells = check(row("h5ad", path), genes, windows)
    original = ad.read_h5ad(path)
    assert set(cells.obs["promoter_source"]) == {"promoter layer"}
    for ours, layer in ((cells.X, "spliced"), (cells.layers["promoter"], "unspliced")):
        assert 0.9 < ours.sum() / original.layers[layer].sum() <= 1
    by_name = ingestion.ingest(
        row("h5ad", path, rna_layer="unspliced", promoter_layer="spliced"),
        genes, windows, 0.5, 0.5,
    )  # fmt: skip
    assert (by_name.X != cells.layers["promoter"]).nnz == 0


def test_normalised_values_are_refused():
    path = DATA / "development" / "dentate_gyrus_labelled.h5ad"
    genes, windows = vocabulary("mouse")
    with pytest.raises(InputError, match="raw counts are needed"):
        ingestion.ingest(row("h5ad", path, atac_path="none"), genes, windows, 0.5, 0.5)


def test_a_real_h5_and_its_folder_are_the_same_sample():
    folder = DATA / "tenx_v3"
    genes, windows = vocabulary("human")
    paths = [folder / f"filtered_feature_bc_matrix{suffix}" for suffix in (".h5", "")]
    first, second = (
        ingestion.ingest(row("10x", path, atac_path="none"), genes, windows, 0.3, 0.5)
        for path in paths
    )
    assert list(first.obs_names) == list(second.obs_names)
    assert first.X.sum() > 0 and (first.X != second.X).nnz == 0


FORMATS = DATA / "formats"
# Of each file or folder: kind, cells, genes, and the sum of the counts.
READ = {
    "alevin_fry_usa": ("10x", 4, 4, 45),
    "cellranger_v2_raw_and_filtered": ("10x", 62, 226, 18_209),
    "cellranger_v2_raw_and_filtered/raw_gene_bc_matrices": ("10x", 1_289, 226, 112_078),
    "citeseq_mtx": ("10x", 1_024, 100, 10_694),
    "derived_citeseq_h5": ("10x", 600, 1_000, 2_247_202),
    "kallisto_bustools/cellranger_layout": ("10x", 29, 17, 2),
    "kallisto_bustools/counts_unfiltered": ("10x", 29, 17, 2),
    "kallisto_bustools/counts_unfiltered/genes.h5ad": ("h5ad", 29, 17, 2),
    "kallisto_bustools/lamanno": ("10x", 278, 17, 90),
    "mtx_nogz_integer_ids": ("10x", 5, 6, 8),
    "starsolo": ("10x", 20, 20, 83),
    "starsolo/Solo.out/Gene/filtered": ("10x", 20, 20, 83),
}


@pytest.mark.parametrize("name", READ)
def test_files_of_other_tools_are_read(name):
    kind, n_cells, n_genes, total = READ[name]
    (files,) = find_libraries(row(kind, FORMATS / name, atac_path="none"))
    library = locate(files)
    found = ingestion.read_library(library).rna
    assert (*found.shape, found.X.sum()) == (n_cells, n_genes, total)
    source, _, _ = preflight.inspect_library(library)
    assert list(read_barcodes(library.rna)) == list(found.obs_names)
    features = read_features(library.rna, source)
    assert list(features["name"][features["kind"] == "Gene Expression"]) == list(found.var_names)
    assert all(Path(path).is_file() for path in list_input_files(row(kind, FORMATS / name)))


def test_alevin_frys_counts_are_those_of_its_table():
    table = pd.read_csv(FORMATS / "alevin_fry_usa" / "example-dat.csv", header=None, skiprows=2)
    spliced, unspliced, ambiguous = np.split(table.iloc[:, 1:].to_numpy(dtype=int), 3, axis=1)
    (files,) = find_libraries(row("10x", FORMATS / "alevin_fry_usa", promoter_layer="unspliced"))
    rna = ingestion.read_library(locate(files)).rna
    np.testing.assert_array_equal(rna.X.toarray(), spliced + ambiguous)
    np.testing.assert_array_equal(rna.layers["promoter"].toarray(), unspliced)


def test_unspliced_counts_of_kallisto_are_the_second_modality():
    place = FORMATS / "kallisto_bustools" / "lamanno"
    (files,) = find_libraries(row("10x", place, promoter_layer="unspliced"))
    content = ingestion.read_library(locate(files))
    assert content.source == "promoter layer"
    assert content.rna.layers["promoter"].sum() == 90


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        (
            "cellranger_v1v2_multi_genome_h5/multiple_genomes.h5", "10x",
            r"genes of 2 genomes \(another_genome, hg19_chr21\)",
        ),
        (
            "cellranger_v2_mm10_h5/brain_large.h5", "10x",
            r"'barcodes' is missing in this matrix of Cell Ranger 2",
        ),
        ("citeseq_mtx/filtered_feature_bc_matrix.tar.gz", "10x", "is an archive; unpack it"),
        ("kallisto_bustools/counts_unfiltered/genes.loom", "h5ad", "loom is not supported"),
        ("derived_citeseq_h5/filtered_feature_bc_matrix.h5", "h5ad", "set kind to 10x"),
    ],
)  # fmt: skip
def test_files_of_other_tools_are_called_what_they_are(name, kind, words):
    genes, windows = vocabulary("human")
    sheet_row = row(kind, FORMATS / name, atac_path="none")
    with pytest.raises(InputError, match=words):
        ingestion.ingest(sheet_row, genes, windows, 0.0, 0.5)
    (finding,) = preflight.examine_sample(sheet_row, genes, windows, THRESHOLDS)
    assert not finding.passed and re.search(words, finding.found)


@pytest.mark.parametrize(
    "name",
    [
        "fragments_bpcells/mini_fragments.tsv.gz", "fragments_with_header/fragments.tsv.gz",
        "fragments_with_header/fragments_header.tsv.gz",
    ],
)  # fmt: skip
def test_fragments_of_four_columns_and_with_long_headers(name):
    with gzip.open(FORMATS / name, "rt") as file:
        expected = [line.split()[:4] for line in file if not line.startswith("#")]
    rows = [r for block in fragments.read_fragments(FORMATS / name) for r in block.rows()]
    assert [list(map(str, r)) for r in rows] == expected and len(rows) >= 10


@pytest.mark.parametrize("name", ["gencode_human.gtf.gz", "ensembl_human.gtf.gz"])
def test_real_gtfs_name_chromosomes_alike(name):
    genes = reference.read_gtf(DATA / "reference" / name, ["protein_coding", "lincRNA"])
    assert genes["chrom"].str.startswith("chr").all()
