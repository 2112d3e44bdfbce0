"""Pairing by barcode, genes by id or symbol, and what is refused."""

import gzip

import anndata as ad
import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.io
from anndata.io import write_elem
from scipy import sparse

from scdyn.errors import InputError
from scdyn.io import checks
from scdyn.io.checks import check_counts
from scdyn.io.features import open_values
from scdyn.io.sample_files import FILES, LAYERS, find_libraries
from scdyn.pp import doublets, ingestion, preflight, qc
from scdyn.pp.counts import align_genes
from scdyn.pp.metadata import annotate
from scdyn.pp.reference import find_genes, strip_version
from scdyn.settings import InputThresholds, QualitySettings

GENES = pd.DataFrame(
    {
        "gene_id": ["ENSG1", "ENSG2", "ENSG3"],
        "symbol": ["TF", "Beta", "Gamma"],
        "chrom": "chr1",
        "tss": ["400", "1400", "2400"],
        "length": 1000,
        "n_tss": 1,
        "is_tf": [True, False, False],
        "is_mt": [False, False, True],
    }
)
WINDOWS = pd.DataFrame(
    {"chrom": "chr1", "start": [0, 1000, 2000], "end": [500, 1500, 2500], "gene": [0, 1, 2]}
)
THRESHOLDS = InputThresholds(min_promoter_enrichment=0.0)
BARCODES = ["AA-1", "CC-1", "GG-1", "TT-1"]


def rna(barcodes=BARCODES, names=("Gamma", "TF", "Beta", "Other")):
    counts = np.arange(len(barcodes) * len(names)).reshape(len(barcodes), len(names))
    return ad.AnnData(
        sparse.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame(index=list(barcodes)),
        var=pd.DataFrame(index=list(names)),
    )


def peaks(barcodes):
    counts = np.array([[i + 1, 0, 10 * (i + 1)] for i in range(len(barcodes))], dtype=np.float32)
    names = ["chr1:100-200", "chr1:1100-1200", "chr1:2400-2600"]
    return ad.AnnData(
        sparse.csr_matrix(counts),
        obs=pd.DataFrame(index=list(barcodes)),
        var=pd.DataFrame(index=names),
    )


def row(**values):
    empty = dict.fromkeys([*FILES, *LAYERS, "metadata"], "")
    return {"sample": "s", "kind": "h5ad", **empty, **values}


def test_modalities_are_paired_by_barcode_never_by_row(tmp_path):
    rna().write_h5ad(tmp_path / "rna.h5ad")
    shuffled = ["TT-1", "AA-1", "GG-1"]  # another order, and one barcode missing
    peaks(shuffled).write_h5ad(tmp_path / "atac.h5ad")
    sheet = row(path=str(tmp_path / "rna.h5ad"), atac_path=str(tmp_path / "atac.h5ad"))
    cells = ingestion.ingest(sheet, GENES, WINDOWS)
    assert list(cells.obs_names) == [f"s_{barcode}" for barcode in BARCODES]
    np.testing.assert_array_equal(
        cells.layers["promoter"].toarray(), [[2, 0, 20], [0, 0, 0], [3, 0, 30], [1, 0, 10]]
    )
    # Columns TF, Beta, Gamma of Gamma, TF, Beta, Other.
    np.testing.assert_array_equal(cells.X.toarray()[1], [5, 6, 4])


def test_modalities_of_other_cells_are_refused_with_five_of_each(tmp_path):
    rna([f"A{i}-1" for i in range(20)]).write_h5ad(tmp_path / "rna.h5ad")
    peaks([f"A{i}-1" for i in range(15, 40)]).write_h5ad(tmp_path / "atac.h5ad")
    sheet = row(path=str(tmp_path / "rna.h5ad"), atac_path=str(tmp_path / "atac.h5ad"))
    with pytest.raises(InputError, match="5 of 20 RNA barcodes") as caught:
        ingestion.ingest(sheet, GENES, WINDOWS)
    assert "A0-1, A1-1, A2-1, A3-1, A4-1" in str(caught.value)
    assert "A15-1, A16-1, A17-1, A18-1, A19-1" in str(caught.value)


def test_h5mu_and_its_peaks(tmp_path):
    content = mudata.MuData({"rna": rna(), "atac": peaks(BARCODES)})
    content.write(tmp_path / "s.h5mu")
    cells = ingestion.ingest(
        row(kind="h5mu", path=str(tmp_path / "s.h5mu")), GENES, WINDOWS, 0.5, 0.5
    )
    np.testing.assert_array_equal(cells.layers["promoter"].toarray()[2], [3, 0, 30])


def test_labels_of_an_h5mu_beside_its_modalities_are_kept(tmp_path):
    content = mudata.MuData({"rna": rna(), "atac": peaks(BARCODES[::-1])})
    content["rna"].obs["batch"], content["atac"].obs["batch"] = "own", "other"
    content.update()
    content.obs["batch"] = "joint"
    content.obs["cell_type"] = [f"of {name}" for name in content.obs_names]
    content.write(tmp_path / "s.h5mu")
    cells = ingestion.ingest(
        row(kind="h5mu", path=str(tmp_path / "s.h5mu")), GENES, WINDOWS, 0.5, 0.5
    )
    assert list(cells.obs["cell_type"]) == [f"of {name}" for name in BARCODES]
    assert set(cells.obs["batch"]) == {"own"}
    assert not [name for name in cells.obs if ":" in name]


def test_an_h5mu_s_columns_of_one_modality_are_kept_or_named_in_the_log(tmp_path, caplog):
    caplog.set_level("INFO", logger="scdyn")
    content = mudata.MuData({"rna": rna(), "atac": peaks(BARCODES[::-1])})
    content["atac"].obs["theirs"] = "a"
    content.obs["rna:cell_type"] = [f"of {name}" for name in content.obs_names]
    content.obs["stage"], content.obs["rna:stage"], content.obs["atac:clusters"] = "E8", "E9", "3"
    content.write(tmp_path / "s.h5mu")
    cells = ingestion.ingest(
        row(kind="h5mu", path=str(tmp_path / "s.h5mu")), GENES, WINDOWS, 0.5, 0.5
    )
    assert list(cells.obs["cell_type"]) == [f"of {name}" for name in BARCODES]
    assert set(cells.obs["stage"]) == {"E8"} and not {"theirs", "clusters"} & set(cells.obs)
    assert "s.h5mu: ignoring obs columns of other modalities: " in caplog.text
    assert "modalities: atac:clusters, atac:theirs; write labels" in caplog.text


def test_spliced_and_unspliced_stand_in_for_the_modalities(tmp_path):
    table = rna()
    table.layers["spliced"], table.layers["unspliced"] = table.X * 2, table.X * 3
    table.write_h5ad(tmp_path / "v.h5ad")
    cells = ingestion.ingest(row(path=str(tmp_path / "v.h5ad")), GENES, WINDOWS)
    np.testing.assert_array_equal(cells.X.toarray()[1], [10, 12, 8])
    np.testing.assert_array_equal(cells.layers["promoter"].toarray()[1], [15, 18, 12])


@pytest.mark.parametrize("names", [["ENSG3.7", "ENSG1", "ENSG2.1"], ["Gamma", "TF", "Beta"]])
def test_genes_are_found_by_id_with_or_without_version_or_by_symbol(names):
    mapping = align_genes(rna(names=names).var, GENES, 0.9, "s", "here")
    np.testing.assert_array_equal(mapping.toarray(), [[0, 0, 1], [1, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize("column", ["gene_ids", "feature_name", "ensembl_id"])
def test_genes_are_found_in_whichever_column_names_most(column):
    table = rna(names=["0", "1", "2"])
    table.var[column] = pd.Categorical(["Gamma", "TF", None])
    table.var["other"] = ["nothing", "TF", "nothing"]
    mapping = align_genes(table.var, GENES, 0.5, "s", "here")
    np.testing.assert_array_equal(mapping.toarray(), [[0, 0, 1], [1, 0, 0], [0, 0, 0]])


def test_ids_of_some_genes_and_symbols_of_others_are_found_row_by_row():
    mapping = align_genes(rna(names=["ENSG3.7", "TF", "Beta", "New"]).var, GENES, 0.9, "s", "here")
    np.testing.assert_array_equal(mapping.toarray(), [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize("genome", ["GRCh38_", "hg19_", "mm10___", "GRCh38-2020-A_"])
@pytest.mark.parametrize("names", [["Gamma", "TF", "Beta"], ["ENSG3.7", "ENSG1", "ENSG2.1"]])
def test_names_that_begin_with_their_genome_are_found_without_it(tmp_path, genome, names):
    table = rna(names=[genome + name for name in names])
    mapping = align_genes(table.var, GENES, 0.9, "s", "here")
    np.testing.assert_array_equal(mapping.toarray(), [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    table.write_h5ad(tmp_path / "s.h5ad")
    sheet = row(path=str(tmp_path / "s.h5ad"), atac_path="none")
    assert set(strip_version(pd.Series(names))) <= preflight.list_measured_genes(sheet)
    other = {"hg19_": "mm10_"}.get(genome, "hg19_")
    table.var_names = [genome + names[0], genome + names[1], other + names[2]]
    table.write_h5ad(tmp_path / "s.h5ad")
    with pytest.raises(InputError, match=r"s.h5ad: has genes of 2 genomes \(") as caught:
        ingestion.ingest(sheet, GENES, WINDOWS)
    (finding,) = preflight.examine_sample(sheet, GENES, WINDOWS, THRESHOLDS)
    assert not finding.passed and finding.found == str(caught.value)


def test_a_column_that_names_one_gene_in_every_row_finds_one_gene():
    """R writes T for true, and T is a gene of mouse."""
    table = rna(names=["T", "Beta", "New"])
    table.var["highly_variable"] = "T"
    genes = GENES.assign(symbol=["T", "Beta", "Gamma"])
    mapping = align_genes(table.var, genes, 0.5, "s", "here")
    np.testing.assert_array_equal(mapping.toarray(), [[1, 0, 0], [0, 1, 0], [0, 0, 0]])


def test_only_versions_of_ensembl_ids_are_left_out():
    ids = pd.Series(["ENSMUSG00000000001.12", "MSTRG.7", "AC1234.1", "ENST00000000001.2", "a.1.0"])
    expected = ["ENSMUSG00000000001", "MSTRG.7", "AC1234.1", "ENST00000000001", "a.1.0"]
    assert list(strip_version(ids)) == expected
    genes = pd.DataFrame(
        {"gene_id": ["ENSG1.1", "ENSG1", "MSTRG.1", "MSTRG"], "symbol": list("abcd")}
    )
    found = find_genes([pd.Series(["ENSG1.1", "ENSG1.2", "MSTRG.1", "MSTRG.2"])], genes)
    assert list(found) == [0, 1, 2, -1]  # as it is, if that is there


def test_duplicated_genes_are_summed():
    mapping = align_genes(rna(names=["TF", "TF", "Beta"]).var, GENES, 0.5, "s", "here")
    np.testing.assert_array_equal((np.array([[1, 2, 4]]) @ mapping.toarray())[0], [3, 4, 0])


def test_foreign_genes_are_refused():
    with pytest.raises(InputError, match="same species"):
        align_genes(rna(names=["X", "Y", "Z", "TF"]).var, GENES, 0.5, "s", "here")


@pytest.mark.parametrize("kind", ["float16", "float64", "uint8", "int64", "bool"])
def test_counts_are_read_whatever_their_numbers_are_kept_as(tmp_path, kind):
    values = (np.arange(16).reshape(4, 4) % 2).astype(kind)
    obs, var = rna().obs, rna().var
    ad.AnnData(values, obs=obs, var=var).write_h5ad(tmp_path / "s.h5ad")
    sheet = row(path=str(tmp_path / "s.h5ad"), atac_path="none")
    cells = ingestion.ingest(sheet, GENES, WINDOWS)
    np.testing.assert_array_equal(cells.X.toarray()[1], [1, 0, 0])


@pytest.mark.parametrize("value", [-1.0, 0.5, np.nan])
def test_values_that_are_no_counts_are_refused(value):
    with pytest.raises(InputError, match="counts are not integers"):
        check_counts(np.array([[1.0, value]]), "file.h5ad")


def test_counts_too_large_to_keep_are_refused():
    with pytest.raises(
        InputError, match=r"a count of 3e\+09 exceeds the largest allowed, 2,147,483,647"
    ):
        check_counts(np.array([[1.0, 3e9]]), "file.h5ad")


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_counts_of_a_file_are_read_in_blocks(tmp_path, form, monkeypatch):
    monkeypatch.setattr(checks, "VALUES_AT_ONCE", 7)
    values = np.random.default_rng(0).poisson(0.7, (9, 5)).astype(np.float32)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        write_elem(file, "X", form(values))
        counts = check_counts(open_values(file["X"]), "file.h5ad")
        np.testing.assert_array_equal(counts.toarray(), values)
        assert counts.dtype == np.int32 and counts.format == "csr" and counts.data.all()
        values[-1, -1] = 0.5
        write_elem(file, "bad", form(values))
        with pytest.raises(InputError, match="counts are not integers .found 0.5"):
            check_counts(open_values(file["bad"]), "file.h5ad")
        if isinstance(file["X"], h5py.Group):
            file["X/indices"][-1] = 99
            with pytest.raises(ValueError, match="indices"):
                check_counts(open_values(file["X"]), "file.h5ad")


def test_only_what_is_used_of_an_h5ad_is_read(tmp_path):
    table = rna()
    table.raw = table.copy()
    table.layers["other"], table.obsp["near"] = table.X, sparse.identity(4, format="csr")
    table.write_h5ad(tmp_path / "s.h5ad")
    with h5py.File(tmp_path / "s.h5ad", "a") as file:
        for name in ("layers/other/data", "obsp/near/data", "raw/X/data"):
            del file[name]
    sheet = row(path=str(tmp_path / "s.h5ad"), atac_path="none", rna_layer="X")
    np.testing.assert_array_equal(ingestion.ingest(sheet, GENES, WINDOWS).X.toarray()[1], [5, 6, 4])


def test_an_h5ad_of_anndata_before_0_7_is_read(tmp_path):
    table = rna()
    with h5py.File(tmp_path / "s.h5ad", "w") as file:
        file["X"] = table.X.toarray()
        for name, index in (("obs", table.obs_names), ("var", table.var_names)):
            file[name] = np.array([(x.encode(),) for x in index], dtype=[("index", "S9")])
    sheet = row(path=str(tmp_path / "s.h5ad"), atac_path="none")
    cells = ingestion.ingest(sheet, GENES, WINDOWS)
    np.testing.assert_array_equal(cells.X.toarray()[1], [5, 6, 4])
    assert list(cells.obs["barcode"]) == BARCODES


def logged(table):
    """What scanpy and CELLxGENE keep: logarithms in X, counts of more genes in .raw."""
    table.raw = table.copy()
    table = table[:, :3].copy()
    table.X = table.X.log1p()
    return table


@pytest.mark.parametrize("rna_layer", ["", "raw"])
def test_counts_in_raw_are_read_where_x_holds_none(tmp_path, rna_layer):
    logged(rna()).write_h5ad(tmp_path / "s.h5ad")
    sheet = row(path=str(tmp_path / "s.h5ad"), atac_path="none", rna_layer=rna_layer)
    cells = ingestion.ingest(sheet, GENES, WINDOWS)
    np.testing.assert_array_equal(cells.X.toarray()[1], [5, 6, 4])
    found = {f.check: f for f in preflight.examine_sample(sheet, GENES, WINDOWS, THRESHOLDS)}
    assert found["RNA counts"].found.startswith("in raw/X of ")
    assert found["genes"].found.startswith("3 of 4 genes")


def test_counts_in_x_are_read_though_raw_has_some(tmp_path):
    table = rna()
    table.raw = table.copy()
    table.X = table.X * 2
    table.write_h5ad(tmp_path / "s.h5ad")
    files = {"path": str(tmp_path / "s.h5ad"), "atac_path": "none"}
    for layer, factor in (("", 2), ("X", 2), ("raw", 1)):
        cells = ingestion.ingest(row(**files, rna_layer=layer), GENES, WINDOWS)
        np.testing.assert_array_equal(cells.X.toarray()[1], factor * np.array([5, 6, 4]))


def test_a_place_that_is_all_zero_is_passed_over(tmp_path):
    table = rna()
    table.layers["counts"], table.layers["spliced"] = table.X * 2, table.X * 0
    table.X = table.X * 0
    table.write_h5ad(tmp_path / "s.h5ad")
    sheet = row(path=str(tmp_path / "s.h5ad"), atac_path="none")
    cells = ingestion.ingest(sheet, GENES, WINDOWS)
    np.testing.assert_array_equal(cells.X.toarray()[1], [10, 12, 8])
    found = {f.check: f for f in preflight.examine_sample(sheet, GENES, WINDOWS, THRESHOLDS)}
    assert found["RNA counts"].found.startswith("in layers/counts of ")


def test_an_x_of_0_and_1_gives_way_to_counts(tmp_path, caplog):
    table = rna()
    counts = table.X.copy()
    table.raw = table.copy()
    table.X = (counts > 0).astype(np.float32)
    table.write_h5ad(tmp_path / "s.h5ad")
    sheet = row(path=str(tmp_path / "s.h5ad"), atac_path="none")
    with caplog.at_level("INFO", logger="scdyn"):
        cells = ingestion.ingest(sheet, GENES, WINDOWS)
    np.testing.assert_array_equal(cells.X.toarray()[1], [5, 6, 4])
    assert "X is binary; using the counts in .raw" in caplog.text
    found = {f.check: f for f in preflight.examine_sample(sheet, GENES, WINDOWS, THRESHOLDS)}
    assert found["RNA counts"].found.startswith("in raw/X of ")
    asked = {**sheet, "rna_layer": "X"}
    assert ingestion.ingest(asked, GENES, WINDOWS).X.max() == 1
    # Nothing tells that a layer of any other name is of RNA.
    del table.raw
    table.layers["promoter"] = counts
    table.write_h5ad(tmp_path / "s.h5ad")
    assert ingestion.ingest(sheet, GENES, WINDOWS).X.max() == 1
    table.layers["raw_counts"] = counts
    table.write_h5ad(tmp_path / "s.h5ad")
    words = (
        r"X is binary \(only 0 and 1\), but there are counts in raw_counts; name one of these, or X"
    )
    with pytest.raises(InputError, match=words) as caught:
        ingestion.ingest(sheet, GENES, WINDOWS)
    (finding,) = preflight.examine_sample(sheet, GENES, WINDOWS, THRESHOLDS)
    assert not finding.passed and finding.found == str(caught.value)


def test_counts_are_looked_for_where_a_layer_of_their_usual_name_holds_none(tmp_path):
    table = rna()
    table.layers["counts"], table.layers["raw_counts"] = table.X * 2, table.X * 3
    table.X = table.X.log1p()
    table.layers["spliced"] = table.X.copy()  # as scVelo leaves it
    table.write_h5ad(tmp_path / "s.h5ad")
    sheet = row(path=str(tmp_path / "s.h5ad"), atac_path="none")
    cells = ingestion.ingest(sheet, GENES, WINDOWS)
    np.testing.assert_array_equal(cells.X.toarray()[1], [10, 12, 8])
    found = {f.check: f for f in preflight.examine_sample(sheet, GENES, WINDOWS, THRESHOLDS)}
    assert found["RNA counts"].found.startswith("in layers/counts of ")
    del table.layers["counts"]
    table.write_h5ad(tmp_path / "s.h5ad")
    words = (
        r"in spliced and X are not integers .* name the layer with raw counts \(raw_counts here\)"
    )
    with pytest.raises(InputError, match=words):
        ingestion.ingest(sheet, GENES, WINDOWS)
    (finding,) = preflight.examine_sample(sheet, GENES, WINDOWS, THRESHOLDS)
    assert not finding.passed and "(raw_counts here)" in finding.found
    cells = ingestion.ingest({**sheet, "rna_layer": "raw_counts"}, GENES, WINDOWS)
    np.testing.assert_array_equal(cells.X.toarray()[1], [15, 18, 12])


def test_a_named_file_beats_a_layer_that_only_stands_in(tmp_path):
    table = rna()
    table.layers["spliced"], table.layers["unspliced"] = table.X * 2, table.X * 3
    table.write_h5ad(tmp_path / "v.h5ad")
    peaks(BARCODES).write_h5ad(tmp_path / "atac.h5ad")
    files = {"path": str(tmp_path / "v.h5ad"), "atac_path": str(tmp_path / "atac.h5ad")}
    for layer, source, said in (
        ("", "peaks", "summed from the peaks of"),
        ("unspliced", "promoter layer", "counts of the layer unspliced"),
    ):
        sheet = row(**files, promoter_layer=layer)
        cells = ingestion.ingest(sheet, GENES, WINDOWS)
        assert set(cells.obs["promoter_source"]) == {source}
        found = {f.check: f for f in preflight.examine_sample(sheet, GENES, WINDOWS, THRESHOLDS)}
        assert found["promoters"].found.startswith(said)
    content = mudata.MuData({"rna": table, "atac": peaks(BARCODES)})
    content.write(tmp_path / "s.h5mu")
    sheet = row(kind="h5mu", path=str(tmp_path / "s.h5mu"))
    cells = ingestion.ingest(sheet, GENES, WINDOWS)
    assert set(cells.obs["promoter_source"]) == {"peaks"}


def test_preflight_refuses_normalised_values_without_reading_them_all(tmp_path):
    table = rna()
    table.X = table.X.log1p()
    table.write_h5ad(tmp_path / "s.h5ad")
    sheet = row(path=str(tmp_path / "s.h5ad"), atac_path="none")
    (finding,) = preflight.examine_sample(sheet, GENES, WINDOWS, THRESHOLDS)
    assert not finding.passed and "raw counts are needed" in finding.found


def test_every_dropped_cell_has_its_reasons():
    metrics = pd.DataFrame(
        {
            "rna_counts": [1000, 10, 1000, 1000, 1000],
            "rna_genes": [500, 5, 500, 500, 500],
            "mito_share": [0.0, 0.0, 0.5, 0.0, 0.0],
            "promoter_counts": [900, 900, 900, 0, 900],
            "doublet_score": [0.0, 0.0, 0.0, 0.0, 0.9],
        }
    )
    table = qc.apply_bounds(metrics, QualitySettings(preset="cells", n_mads=None))
    assert table["kept"].tolist() == [True, False, False, False, False]
    assert table["reason"].tolist() == [
        "",
        "under 500 RNA counts; under 200 genes",
        "over 0.2 mitochondrial",
        "under 200 promoter counts",
        "doublet score over 0.3",
    ]
    either = qc.apply_bounds(metrics, QualitySettings(preset="cells", n_mads=None, keep="either"))
    assert either["kept"].tolist() == [True, True, True, True, False]


def test_cells_of_rna_alone_are_judged_by_it_alone():
    cells = ad.AnnData(
        sparse.csr_matrix(np.full((60, 3), 9, dtype=np.int32)),
        obs=pd.DataFrame({"sample": "s", "promoter_source": "none"}, index=map(str, range(60))),
        var=GENES[["is_mt"]],
        layers={"promoter": sparse.csr_matrix((60, 3), dtype=np.int32)},
    )
    bounds = QualitySettings(
        min_rna_counts=20, min_genes=3, max_mito_share=1.0, max_doublet_score=None
    )
    kept, table = qc.filter_cells(cells, bounds, 0)
    assert kept.n_obs == 60
    assert not [name for name in table if name.startswith("promoter_") and name[9:] != "source"]


def draw_counts(n_cells, n_genes, depth=2, seed=0):
    """Counts of three kinds of cells."""
    rng = np.random.default_rng(seed)
    kinds = rng.lognormal(0, 1.5, (3, n_genes))
    return rng.poisson(kinds[rng.integers(0, 3, n_cells)] * depth)


@pytest.mark.parametrize(("n_genes", "depth"), [(400, 2), (4000, 0.1)])
def test_doublet_scores_are_scanpys(n_genes, depth, monkeypatch):
    monkeypatch.setattr(doublets, "CELLS_AT_ONCE", 90)  # several blocks, the last one shorter
    counts = draw_counts(300, n_genes, depth)
    counts[:20] += counts[100:120]
    table = ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)))
    table.obs_names = table.obs_names.astype(str)
    sc.pp.scrublet(table, threshold=1.0, random_state=3, verbose=False)
    expected, found = table.obs["doublet_score"].to_numpy(), doublets.run_scrublet(table.X, 3)
    # A doublet of a cell with itself is as near to the cell as the cell is: scanpy takes either for
    # the cell itself, as their distances are rounded.
    first, second = doublets.draw_pairs(300, 3).T
    is_clear = ~np.isin(np.arange(300), first[first == second])
    assert 290 < is_clear.sum() < 300
    np.testing.assert_array_equal(found[is_clear], expected[is_clear])
    np.testing.assert_allclose(found, expected, atol=0.01)
    rows = np.arange(0, 300, 2)
    of_rows = doublets.run_scrublet(sparse.csr_matrix(counts[rows]), 3)
    np.testing.assert_array_equal(
        doublets.run_scrublet(sparse.csr_matrix(counts), 3, rows), of_rows
    )


@pytest.mark.parametrize("most", [3000, 20])
def test_variable_genes_are_scanpys(most, monkeypatch):
    monkeypatch.setattr(doublets, "VARIABLE_GENES", most)
    counts = sparse.csr_matrix(draw_counts(200, 2000, 0.5))
    is_used = counts.getnnz(0) > 0
    table = ad.AnnData(counts[:, is_used].astype(np.float32))
    sc.pp.normalize_total(table)
    sc.pp.log1p(table)
    sc.pp.highly_variable_genes(table)
    rows, totals = np.arange(200), np.asarray(counts.sum(1)).ravel()
    moments = doublets.compute_moments(counts, rows, totals, np.median(totals))
    chosen = doublets.choose_variable(*(values[is_used] for values in moments))
    variable = table.var.reset_index(drop=True).query("highly_variable")["dispersions_norm"]
    assert list(chosen) == sorted(variable.nlargest(most).index)
    assert len(chosen) == min(most, len(variable)) < 2000


def test_cells_of_a_large_library_are_scored_among_drawn_ones(monkeypatch, caplog):
    caplog.set_level("INFO", "scdyn")
    counts = draw_counts(600, 400)
    counts[:60] = counts[200:260] + counts[300:360]
    whole = doublets.run_scrublet(sparse.csr_matrix(counts), 3)
    assert "drawn" not in caplog.text
    monkeypatch.setattr(doublets, "MOST_CELLS", 300)
    scores = doublets.run_scrublet(sparse.csr_matrix(counts), 3)
    assert "doublets are simulated from 300 drawn cells of 600" in caplog.text
    np.testing.assert_array_equal(scores, doublets.run_scrublet(sparse.csr_matrix(counts), 3))
    assert np.corrcoef(scores, whole)[0, 1] > 0.6
    is_drawn = doublets.mark_drawn_cells(600, 3)
    assert is_drawn.sum() == 300
    drawn = doublets.run_scrublet(sparse.csr_matrix(counts[is_drawn]), 3)
    np.testing.assert_array_equal(scores[is_drawn], drawn)
    # Doublets stand out among drawn cells and among the others.
    for part in (is_drawn, ~is_drawn):
        is_doublet = np.arange(600)[part] < 60
        assert scores[part][is_doublet].mean() > 1.3 * scores[part][~is_doublet].mean()


def test_more_counts_than_int32_can_number_stand_before_a_library(tmp_path):
    """The counts of the first cell are a hole in a file, which takes no room."""
    counts = sparse.csr_matrix(draw_counts(300, 400), dtype=np.int32)
    n_before = 2**31 + 5
    arrays = {}
    for name, kind in (("data", np.int32), ("indices", np.int64)):
        path = tmp_path / name
        arrays[name] = np.memmap(path, kind, "w+", shape=n_before + counts.nnz)
        arrays[name][n_before:] = getattr(counts, name)
    behind = sparse.csr_matrix((301, 400), dtype=np.int32)
    behind.data, behind.indices = arrays["data"], arrays["indices"]
    behind.indptr = np.concatenate([[0], n_before + counts.indptr.astype(np.int64)])
    scores = doublets.run_scrublet(behind, 3, np.arange(1, 301))
    assert scores.any()
    np.testing.assert_array_equal(scores, doublets.run_scrublet(counts, 3))


def test_more_pairs_than_int32_can_number():
    pairs = doublets.draw_pairs(50_000, 3)
    assert pairs.shape == (100_000, 2) and len(np.unique(pairs, axis=0)) == 100_000
    assert 0 <= pairs.min() < 10 and 49_990 < pairs.max() < 50_000


def test_libraries_are_told_by_the_number_behind_the_barcode():
    names = pd.Series([f"{i}-{1 + i % 2}" for i in range(200)])
    assert qc.assign_libraries(names, 50).value_counts().tolist() == [100, 100]
    assert qc.assign_libraries(names, 150).nunique() == 1
    assert qc.assign_libraries(pd.Series(["a", "b"]), 1).tolist() == ["1", "1"]


@pytest.mark.parametrize(("n_cells", "n_genes"), [(300, 24), (20, 400), (300, 2), (12, 6), (3, 3)])
def test_doublets_are_scored_on_a_small_panel_and_in_few_cells(n_cells, n_genes):
    rng = np.random.default_rng(0)
    kinds = rng.lognormal(0, 1.5, (3, n_genes))
    counts = rng.poisson(kinds[rng.integers(0, 3, n_cells)] * 4) + 1
    scores = doublets.run_scrublet(counts, 3)
    assert scores.shape == (n_cells,) and np.isfinite(scores).all()
    assert scores.any() or n_cells == 3
    assert (doublets.run_scrublet(np.ones((30, 5)), 3) == 0).all()  # no gene varies


@pytest.mark.parametrize(("n_cells", "n_genes"), [(300, 1), (1, 30), (0, 30), (2, 0)])
def test_where_no_doublet_can_be_scored_the_log_says_so(n_cells, n_genes, caplog):
    caplog.set_level("INFO", "scdyn")
    counts = np.random.default_rng(0).poisson(5, (n_cells, n_genes))
    assert (doublets.run_scrublet(counts, 3) == np.zeros(n_cells)).all()
    assert "doublet scores are zero:" in caplog.text


def test_what_fragments_tell_bounds_cells_that_have_them():
    metrics = pd.DataFrame(
        {
            "rna_counts": 1000, "rna_genes": 500, "mito_share": 0.0, "promoter_counts": 900,
            "tss_enrichment": [9.0, 1.0, 9.0, 9.0], "nucleosome_signal": [0.5, 0.5, 7.0, 0.5],
            "promoter_share": [0.4, 0.4, 0.4, 0.01], "doublet_score": 0.0,
            "promoter_doublet_score": [0.0, 0.0, 0.0, 0.9],
        }
    )  # fmt: skip
    bounds = QualitySettings(
        n_mads=None, min_tss_enrichment=4, max_nucleosome_signal=4, min_promoter_share=0.1,
        max_promoter_doublet_score=0.5,
    )  # fmt: skip
    assert qc.apply_bounds(metrics, bounds)["reason"].tolist() == [
        "",
        "TSS enrichment under 4",
        "nucleosome signal over 4",
        "promoter share under 0.1; promoter doublet score over 0.5",
    ]
    of_peaks = metrics.drop(columns=["tss_enrichment", "nucleosome_signal", "promoter_share"])
    assert qc.apply_bounds(of_peaks, bounds)["kept"].tolist() == [True, True, True, False]


def test_counts_far_from_the_median_are_out_and_empty_barcodes_do_not_widen_it():
    rng = np.random.default_rng(0)
    counts = np.r_[rng.lognormal(8, 0.3, 300), np.full(100, 2.0), 100_000.0, 501.0]
    metrics = pd.DataFrame(
        {"rna_counts": counts, "rna_genes": 900, "mito_share": 0.0, "promoter_counts": 900}
    )
    bounds = QualitySettings(n_mads=5.0, max_doublet_score=None)
    table = qc.apply_bounds(metrics, bounds)
    assert table["kept"].dtype == bool
    assert table["kept"][:300].all()
    assert not table["kept"][300:].any()
    assert table["reason"].iloc[-1] == "RNA counts over 5 MADs from the median"


def test_too_few_good_cells_stop_with_what_each_bound_dropped():
    cells = ad.AnnData(
        sparse.csr_matrix(np.ones((60, 3), dtype=np.int32)),
        obs=pd.DataFrame(
            {"sample": "s", "promoter_source": "fragments", "barcode": "A-1"}, map(str, range(60))
        ),
        var=GENES[["is_mt"]],
        layers={"promoter": sparse.csr_matrix(np.ones((60, 3), dtype=np.int32))},
    )
    with pytest.raises(InputError) as caught:
        qc.filter_cells(cells, QualitySettings(preset="cells"), 0)
    assert str(caught.value) == (
        "sample s: 0 of 60 cells pass quality control, fewer than ingest.qc.min_cells = 50: 60 are "
        "under 500 RNA counts (min_rna_counts), 60 are under 200 genes (min_genes), 60 are over "
        "0.2 mitochondrial (max_mito_share), 60 are under 200 promoter counts "
        "(min_promoter_counts); relax these bounds of ingest.qc if the cells are good. "
        "[SCD-QC]"
    )


def test_every_reason_has_the_key_of_its_bound():
    metrics = pd.DataFrame(
        {
            "rna_counts": [1, *range(1000, 1040), 99_999], "rna_genes": [1] + [900] * 41,
            "mito_share": [1] + [0.0] * 41, "promoter_counts": [1, *range(1000, 1040), 99_999],
            "tss_enrichment": [0] + [9] * 41, "nucleosome_signal": [9] + [0] * 41,
            "promoter_share": [0] + [1] * 41, "doublet_score": [1] + [0] * 41,
            "promoter_doublet_score": [1] + [0] * 41,
        }
    )  # fmt: skip
    bounds = QualitySettings(
        min_tss_enrichment=4, max_nucleosome_signal=4, min_promoter_share=0.1,
        max_promoter_doublet_score=0.5,
    )  # fmt: skip
    said = qc.describe_drops(qc.apply_bounds(metrics, bounds))
    named = [words.partition(")")[0] for words in said.split("(")[1:]]
    assert (
        {*named}
        == {*QualitySettings.model_fields} - {"preset", "keep", "min_cells"}
        == {*qc.KEYS.values()}
    )
    assert named.count("n_mads") == 2


@pytest.mark.parametrize(("n_mito", "said"), [(20, True), (8, False)])
def test_whole_cells_under_the_bound_of_nuclei_are_warned_of(caplog, n_mito, said):
    counts = np.ones((60, 3), dtype=np.int32)
    counts[n_mito:, 2] = 0
    cells = ad.AnnData(
        sparse.csr_matrix(counts),
        obs=pd.DataFrame(
            {"sample": "s", "promoter_source": "none", "barcode": "A-1"}, map(str, range(60))
        ),
        var=pd.DataFrame({"is_mt": [False, False, True]}),
        layers={"promoter": sparse.csr_matrix(np.zeros((60, 3), dtype=np.int32))},
    )
    bounds = QualitySettings(
        min_rna_counts=1, min_genes=1, n_mads=None, max_doublet_score=None, max_mito_share=0.05,
        min_cells=30,
    )  # fmt: skip
    with caplog.at_level("WARNING"):
        kept, _ = qc.filter_cells(cells, bounds, 0)
    assert kept.n_obs == 60 - n_mito
    warned = f"s: {n_mito} of 60 cells have a mitochondrial share above 0.05" in caplog.text
    assert warned == said


def write_fragments(path, rows):
    with gzip.open(path, "wt") as handle:
        handle.writelines("\t".join(map(str, row)) + "\n" for row in rows)


def test_fragments_are_paired_whatever_tools_made_of_the_barcodes(tmp_path):
    cells = ["ACGTACGTAA", "CCGTACGTAA", "GGGTACGTAA"]
    rna([f"{cell}_rna" for cell in cells]).write_h5ad(tmp_path / "rna.h5ad")
    rows = [("chr1", 100 + i, 1200, f"{cells[i]}-1", 1) for i in (2, 0, 2)]
    write_fragments(tmp_path / "f.tsv.gz", rows)
    files = {"path": str(tmp_path / "rna.h5ad"), "fragments": str(tmp_path / "f.tsv.gz")}
    cells = ingestion.ingest(row(**files), GENES, WINDOWS)
    np.testing.assert_array_equal(
        cells.layers["promoter"].toarray(), [[1, 1, 0], [0, 0, 0], [2, 2, 0]]
    )
    assert list(cells.obs["fragments"]) == [1, 0, 2]
    with pytest.raises(InputError, match="2 of 3 RNA barcodes"):
        ingestion.ingest(row(**files), GENES, WINDOWS, 0.5, 0.9)


def write_10x(folder, table, name, features):
    """Cell Ranger's mtx folder of a table, in ``folder``."""
    place = folder / name
    place.mkdir(parents=True)
    scipy.io.mmwrite(place / "matrix.mtx", sparse.coo_matrix(table.X.T.astype(int)))
    (place / "barcodes.tsv").write_text("".join(f"{b}\n" for b in table.obs_names))
    rows = ("\t".join(row) + "\n" for row in features)
    (place / ("peaks.bed" if "peak" in name else "features.tsv")).write_text("".join(rows))


def write_gex(folder, barcodes=BARCODES):
    table = rna(barcodes)
    features = [(name, name, "Gene Expression") for name in table.var_names]
    write_10x(folder, table, "filtered_feature_bc_matrix", features)


def test_gex_and_atac_outputs_make_one_sample(tmp_path):
    write_gex(tmp_path / "gex")
    table = peaks(BARCODES[::-1])
    places = [name.replace(":", "-").split("-") for name in table.var_names]
    write_10x(tmp_path / "atac", table, "filtered_peak_bc_matrix", places)
    files = {"path": str(tmp_path / "gex"), "atac_path": str(tmp_path / "atac")}
    cells = ingestion.ingest(row(kind="10x", **files), GENES, WINDOWS)
    assert set(cells.obs["promoter_source"]) == {"peaks"}
    np.testing.assert_array_equal(cells.layers["promoter"].toarray()[0], [4, 0, 40])
    write_fragments(
        tmp_path / "atac" / "fragments.tsv.gz", [("chr1", 1, 9, b, 1) for b in BARCODES]
    )
    cells = ingestion.ingest(row(kind="10x", **files), GENES, WINDOWS)
    assert set(cells.obs["promoter_source"]) == {"fragments"}
    with pytest.raises(InputError, match="has peaks but no genes; in the sample sheet"):
        ingestion.ingest(row(kind="10x", path=files["atac_path"]), GENES, WINDOWS)


def test_several_libraries_of_a_sample_are_joined(tmp_path):
    for library in "ab":
        write_gex(tmp_path / f"lane_{library}" / "outs")
        fragments = tmp_path / f"lane_{library}" / "outs" / "atac_fragments.tsv.gz"
        start = 100 if library == "a" else 1100  # in the window of TF, or of Beta
        write_fragments(fragments, [("chr1", start, start + 9, b, 1) for b in BARCODES])
    sheet = row(kind="10x", path=str(tmp_path / "lane_*"))
    cells = ingestion.ingest(sheet, GENES, WINDOWS)
    names = [f"s_{b[:2]}-{library}" for library in (1, 2) for b in BARCODES]
    assert list(cells.obs_names) == names
    assert list(cells.obs["barcode"])[-1] == "TT-2"
    np.testing.assert_array_equal(
        cells.layers["promoter"].toarray()[[0, 7]], [[2, 0, 0], [0, 2, 0]]
    )
    np.testing.assert_array_equal(cells.X.toarray()[:4], cells.X.toarray()[4:])


def test_patterns_that_find_nothing_or_unequal_numbers_are_refused(tmp_path):
    for name in ("a_1", "a_2", "b_1"):
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="no file matches"):
        find_libraries(row(path=str(tmp_path / "c_*")))
    with pytest.raises(InputError, match="2 libraries, but column atac_path"):
        find_libraries(row(path=str(tmp_path / "a_*"), atac_path=str(tmp_path / "b_*")))
    (tmp_path / "[x]").mkdir()
    assert len(find_libraries(row(path=str(tmp_path / "[x]")))) == 1


def test_rna_only_is_said_by_the_sheet_and_known_of_each_cell(tmp_path):
    rna().write_h5ad(tmp_path / "rna.h5ad")
    files = {"path": str(tmp_path / "rna.h5ad")}
    with pytest.raises(InputError, match="write 'none' into atac_path"):
        ingestion.ingest(row(**files), GENES, WINDOWS)
    cells = ingestion.ingest(row(**files, atac_path="none"), GENES, WINDOWS)
    assert set(cells.obs["promoter_source"]) == {"none"}
    assert cells.layers["promoter"].nnz == 0
    with pytest.raises(InputError, match="but fragments or promoter_layer is set"):
        find_libraries(row(**files, atac_path="none", fragments="f.tsv.gz"))
    peaks(BARCODES[:3]).write_h5ad(tmp_path / "atac.h5ad")
    sheet = row(**files, atac_path=str(tmp_path / "atac.h5ad"))
    cells = ingestion.ingest(sheet, GENES, WINDOWS)
    assert list(cells.obs["promoter_source"]) == ["peaks", "peaks", "peaks", "none"]


def test_counts_are_read_from_the_layers_that_the_sheet_names(tmp_path):
    table = rna()
    table.layers["raw"] = table.X.copy()
    table.layers["open"] = table.X * 2
    table.X = table.X.copy()
    table.X.data += 0.5
    table.write_h5ad(tmp_path / "s.h5ad")
    path = str(tmp_path / "s.h5ad")
    layers = {"rna_layer": "raw", "promoter_layer": "open"}
    cells = ingestion.ingest(row(path=path, **layers), GENES, WINDOWS)
    assert cells.X[1].toarray().tolist() == [[5, 6, 4]]
    assert cells.layers["promoter"][1].toarray().tolist() == [[10, 12, 8]]
    assert set(cells.obs["promoter_source"]) == {"promoter layer"}
    with pytest.raises(InputError, match="has no layer 'row' .layers: X, open, raw"):
        ingestion.ingest(
            row(path=path, rna_layer="row", atac_path="none"), GENES, WINDOWS, 0.5, 0.5
        )


PLACES = np.arange(8.0).reshape(4, 2)
AS_TABLE = pd.DataFrame(PLACES, BARCODES, ["col", "row"])
SPATIAL = {
    "array": (PLACES.astype("float32"), ""),
    "of three columns": (np.c_[PLACES, PLACES[:, 0]], ""),
    "table": (AS_TABLE, ""),
    "table with gaps": (AS_TABLE.astype("Int64").mask(AS_TABLE == 3), ""),
    "one column": (PLACES[:, :1], "has fewer than two columns"),
    "table of one column": (AS_TABLE[["row"]], "has fewer than two columns"),
    "no column": (PLACES[:, :0], "has fewer than two columns"),
    "sparse": (sparse.csr_matrix(PLACES), "is not numeric"),
    "words": (AS_TABLE.assign(row="left"), "is not numeric"),
}


@pytest.mark.parametrize("form", SPATIAL)
def test_positions_are_kept_as_numbers_and_left_out_if_they_are_none(form, tmp_path, caplog):
    spatial, why = SPATIAL[form]
    table = rna()
    table.obsm["spatial"] = spatial
    table.write_h5ad(tmp_path / "s.h5ad")
    path = str(tmp_path / "s.h5ad")
    cells = ingestion.ingest(row(path=path, atac_path="none"), GENES, WINDOWS)
    if why:
        assert f"{path}: obsm['spatial'] {why}; ignoring the positions" in caplog.text
        assert not cells.obsm
    else:
        expected = np.where(PLACES == 3, np.nan, PLACES) if "gaps" in form else PLACES
        assert isinstance(cells.obsm["spatial"], np.ndarray)
        np.testing.assert_array_equal(cells.obsm["spatial"][:, :2], expected)
    obs = cells.obs.drop(columns="promoter_source")
    known = annotate(obs, "s", {}, "", 0.5, cells.obsm.get("spatial"))
    assert {"x", "y"} <= set(known) or why


def test_what_a_file_says_of_its_cells_is_kept_in_plain_types(tmp_path):
    table = rna()
    table.obs["cell_type"] = pd.array(["x", "y", "nan", None], dtype="string")
    table.obs["age"] = pd.array([1, None, 2, 3], dtype="Int64")
    table.obs["ok"] = pd.array([True, None, False, True], dtype="boolean")
    table.obs["sample"], table.obs["fragments"], table.obs["score"] = "theirs", 5, 0.5
    with ad.settings.override(allow_write_nullable_strings=True):
        table.write_h5ad(tmp_path / "s.h5ad", convert_strings_to_categoricals=False)
    sheet = row(path=str(tmp_path / "s.h5ad"), atac_path="none")
    cells = ingestion.ingest(sheet, GENES, WINDOWS)
    cells.write_h5ad(tmp_path / "out.h5ad")
    obs = ad.read_h5ad(tmp_path / "out.h5ad").obs.astype(object)
    assert list(obs["cell_type"].dropna()) == ["x", "y"]
    assert list(obs["age"].fillna("none")) == ["1", "none", "2", "3"]
    assert list(obs["ok"].fillna("none")) == ["True", "none", "False", "True"]
    assert set(obs["sample"]) == {"s"} and set(obs["sample_in_file"]) == {"theirs"}
    assert set(obs["fragments_in_file"]) == {5} and set(obs["score"]) == {0.5}
    assert list(obs["barcode"]) == BARCODES


def test_libraries_that_say_unlike_things_of_their_cells(tmp_path, caplog):
    caplog.set_level("INFO", logger="scdyn")
    for number, week in [(2, 22), (10, "postnatal")]:
        table = rna()
        table.obs["week"] = week
        table.write_h5ad(tmp_path / f"lane{number}.h5ad")
    path = str(tmp_path / "lane*.h5ad")
    cells = ingestion.ingest(row(path=path, atac_path="none"), GENES, WINDOWS)
    assert list(cells.obs["week"]) == ["22"] * 4 + ["postnatal"] * 4
    assert list(cells.obs_names)[::4] == ["s_AA-1", "s_AA-2"]
    cells.write_h5ad(tmp_path / "out.h5ad")
    order = f"s: 2 libraries; -1 {tmp_path}/lane2.h5ad, -2 {tmp_path}/lane10.h5ad"
    assert order in caplog.text
    rna(["AA-1", "AA-1", "CC-1", "GG-1"]).write_h5ad(tmp_path / "twice.h5ad")
    sheet = row(path=str(tmp_path / "twice.h5ad"), atac_path="none")
    with pytest.raises(InputError, match="twice.h5ad: duplicate barcode AA-1"):
        ingestion.ingest(sheet, GENES, WINDOWS)
