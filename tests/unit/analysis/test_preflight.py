"""What is seen of input before it is read: other genomes, other cells, missing files."""

import gzip
import re

import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.io
import small_input as small
from scipy import sparse

from scdyn import machine
from scdyn.errors import InputError
from scdyn.io import fragments, tenx
from scdyn.io.files import write_table
from scdyn.io.sample_files import FILES, LAYERS, Matrix
from scdyn.plotting.pages import render_findings
from scdyn.pp import ingestion, preflight, preflight_findings
from scdyn.pp.reference import make_promoter_windows
from scdyn.settings import InputThresholds, ModelSettings
from scdyn.tasks.cost import examine_models

GENES = pd.DataFrame(
    {
        "gene_id": small.IDS, "symbol": small.SYMBOLS, "chrom": "chr1", "strand": "+",
        "tss": [str(start) for start in small.STARTS],
    }
)  # fmt: skip
WINDOWS = make_promoter_windows(GENES, 1500, 500)
THRESHOLDS = InputThresholds()


def examine(**row):
    empty = dict.fromkeys([*FILES, *LAYERS, "metadata"], "")
    row = {"sample": "s", "kind": "10x", **empty, **{k: str(v) for k, v in row.items()}}
    return preflight.examine_sample(row, GENES, WINDOWS, THRESHOLDS)


def refused(findings):
    return [finding.found for finding in findings if not finding.passed]


def scattered(cells, shift=0):
    """Fragments of which most lie in promoters, moved by ``shift``."""
    rng = np.random.default_rng(0)
    rows = [(c, s + shift, e + shift, b, n) for c, s, e, b, n in small.fragment_rows(cells)]
    elsewhere = rng.integers(1, 200_000, 60)
    return rows + [("chr1", int(s), int(s) + 100, cells[0], 1) for s in elsewhere]


def genes_h5(folder):
    values = small.counts()[0]
    kinds = ["Gene Expression"] * 6
    return small.write_h5(folder / "s.h5", values=values, names=small.SYMBOLS, kinds=kinds)


def test_a_good_sample_passes_with_what_was_seen(tmp_path):
    path = small.write_fragments(tmp_path / "f.tsv.gz", scattered(small.barcodes()))
    findings = examine(path=genes_h5(tmp_path), fragments=path)
    assert not refused(findings)
    found = {finding.check: finding.found for finding in findings}
    assert found["genes"] == "6 of 6 genes are in the vocabulary of 6"
    assert found["cells"].startswith("40 barcodes")
    assert found["barcodes"].startswith("40 of 40 RNA barcodes")
    words = r"fragments are in promoters \d+\.\d times as often as expected by chance"
    assert re.match(words, found["genome build"])


def test_rna_only_is_found_and_no_promoters_are_looked_for(tmp_path):
    findings = examine(path=genes_h5(tmp_path), atac_path="none")
    assert not refused(findings)
    found = {finding.check: finding.found for finding in findings}
    assert found["promoters"] == "not measured, according to the sample sheet (RNA only)"
    assert "genome build" not in found


@pytest.mark.parametrize(
    ("shift", "chrom", "words"),
    [
        (5000, "chr1", "times as often as expected by chance"),
        (0, "scaffold_1", "is on chromosomes scaffold_1, the annotation has"),
    ],
)
def test_another_build_is_seen_by_where_open_chromatin_lies(tmp_path, shift, chrom, words):
    rows = scattered(small.barcodes(), shift)
    rows = [(chrom, *row[1:]) for row in rows]
    path = small.write_fragments(tmp_path / "f.tsv.gz", rows)
    (sentence,) = refused(examine(path=genes_h5(tmp_path), fragments=path))
    assert words in sentence and "same genome build" in sentence


def test_peaks_of_the_matrix_tell_the_build_too_and_it_is_named(tmp_path):
    moved = [f"chr1:{start + 4000}-{start + 4200}" for start in small.STARTS]
    path = small.write_h5(tmp_path / "s.h5", names=small.SYMBOLS + moved)
    (sentence,) = refused(examine(path=path))
    assert "the file was made with mm10" in sentence


def test_the_annotation_of_the_other_build_is_named(tmp_path):
    moved = [f"chr1:{start + 4000}-{start + 4200}" for start in small.STARTS]
    sheet_row = small.sheet_row(path=small.write_h5(tmp_path / "s.h5", names=small.SYMBOLS + moved))
    catalogue = pd.DataFrame({"name": ["gencode.vM25.annotation.gtf.gz"], "what": ["genes, mm10"]})
    findings = preflight.examine_sample(sheet_row, GENES, WINDOWS, THRESHOLDS, catalogue=catalogue)
    named = "name resources/downloads/gencode.vM25.annotation.gtf.gz as reference.annotation"
    assert named in refused(findings)[0]


def test_sizes_are_looked_at_before_counts_are_read(tmp_path):
    folder = small.write_mtx(tmp_path / "m")
    scipy.io.mmwrite(folder / "matrix.mtx", sparse.coo_matrix(small.counts()[0]))
    (sentence,) = refused(examine(path=folder, atac_path="none"))
    assert "transposed" in sentence


def test_the_header_of_fragments_names_the_genome_and_chromosomes_go_by_any_name(tmp_path):
    rows = [("1", *row[1:]) for row in scattered(small.barcodes())]
    path = small.write_fragments(tmp_path / "f.tsv.gz", rows)
    text = "# id=x\n# reference_path=/refs/GRCh38-2024-A\n" + gzip.open(path, "rt").read()
    with gzip.open(path, "wt") as handle:
        handle.write(text)
    found = {f.check: f.found for f in examine(path=genes_h5(tmp_path), fragments=path)}
    assert found["genome build"].endswith("as expected by chance, made with GRCh38-2024-A")
    assert found["promoters"] == f"counted from {path}"


def test_other_cells_and_missing_files_are_seen(tmp_path):
    others = small.barcodes(seed=9)
    path = small.write_fragments(tmp_path / "f.tsv.gz", scattered(others))
    (sentence,) = refused(examine(path=genes_h5(tmp_path), fragments=path))
    assert "no barcodes in common between RNA and ATAC" in sentence
    (sentence,) = refused(examine(path=tmp_path / "nowhere.h5"))
    assert "no such file" in sentence
    with gzip.open(path, "wt") as handle:
        handle.write("# nothing but a header\n")
    (sentence,) = refused(examine(path=genes_h5(tmp_path), fragments=path))
    assert "contains no fragments" in sentence


def test_h5ad_pairs_are_examined_without_their_counts(tmp_path):
    small.table().write_h5ad(tmp_path / "rna.h5ad")
    peaks = small.table(small.counts()[1], small.PEAKS, small.barcodes(seed=4))
    peaks.write_h5ad(tmp_path / "atac.h5ad")
    row = {"kind": "h5ad", "path": tmp_path / "rna.h5ad", "atac_path": tmp_path / "atac.h5ad"}
    (sentence,) = refused(examine(**row))
    assert "only 0 of 40 RNA barcodes" in sentence


def test_all_that_is_wrong_is_counted_and_the_first_is_said(tmp_path):
    found = [
        preflight_findings.Finding("study", "disk", "room", passed=False),
        preflight_findings.Finding("NA", "files", "a.h5: no such file [SCD-PATH]", passed=False),
        preflight_findings.Finding("b", "files", "b.h5: no such file [SCD-PATH]", passed=False),
    ]
    write_table(tmp_path / "here.tsv", preflight_findings.make_table(found))
    with pytest.raises(
        InputError, match=r"a.h5: no such file \(1 more in .*here.tsv\) \[SCD-PATH\]"
    ):
        preflight_findings.require_passed(tmp_path / "here.tsv")
    other = preflight_findings.Finding("c", "files", "10x")
    page = render_findings(preflight_findings.make_table([*found, other]))
    assert "b.h5: no such file" in page and page.count('<tr class="refused">') == 3
    write_table(tmp_path / "here.tsv", preflight_findings.make_table(found[:1]))
    preflight_findings.require_passed(tmp_path / "here.tsv")


def test_each_library_of_a_sample_is_examined(tmp_path):
    for name in ("lane1", "lane3"):
        (tmp_path / f"{name}.h5").write_bytes(b"no matrix")
    genes_h5(tmp_path).rename(tmp_path / "lane2.h5")
    first, second = refused(examine(path=tmp_path / "lane*.h5", atac_path="none"))
    assert "lane1" in first and "lane3" in second


def test_a_full_disk_is_refused(tmp_path, monkeypatch):
    (tmp_path / "big").write_bytes(b"x" * 1000)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: type("", (), {"free": 100}))
    (sentence,) = refused(preflight.examine_machine([tmp_path], tmp_path / "not" / "there"))
    assert "make room" in sentence
    with pytest.raises(InputError, match="make room"):
        preflight.require_room([tmp_path], tmp_path)


def test_enrichment_is_one_for_places_drawn_at_random():
    rng = np.random.default_rng(0)
    places = pd.DataFrame({"chrom": "chr1", "start": rng.integers(0, 70_000, 20_000)})
    assert fragments.compute_promoter_enrichment(places, WINDOWS) == pytest.approx(1, abs=0.1)


def test_models_and_tasks_are_priced_and_never_refused(tmp_path, monkeypatch):
    model = ModelSettings(corpus="all", size="full")
    genes = pd.DataFrame({"gene_id": [f"g{i}" for i in range(22_000)]})
    genes["is_tf"] = np.arange(22_000) < 1_500
    path = genes_h5(tmp_path)
    row = {"sample": "s", "kind": "10x", **dict.fromkeys([*FILES, *LAYERS, "metadata"], "")}
    assert len(preflight.list_barcodes({**row, "path": str(path)})) == 40
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (finding,) = examine_models({"full": model}, {}, {"all": 100_000_000}, genes)
    assert finding.passed and (finding.subject, finding.check) == ("models.full", "time")
    assert finding.found.startswith("pretraining on 100,000,000 cells, 10 epochs: about ")
    assert "a model of this size needs a GPU" in finding.found


def test_what_is_seen_of_gpus_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "list_gpus", list)
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(machine, "FIRST_GPU", tmp_path / "nvidia0")
    monkeypatch.delenv(machine.VISIBLE, raising=False)
    monkeypatch.setenv(machine.VARIABLE, "auto")
    assert preflight.describe_gpus() == "none found; using the CPU"
    monkeypatch.setenv(machine.VARIABLE, "gpu")
    refuses = "; device is gpu in the config, so training will fail on this machine"
    assert preflight.describe_gpus() == f"none found{refuses}"
    assert all(finding.passed for finding in preflight.examine_machine([], tmp_path))
    monkeypatch.setenv(machine.VARIABLE, "auto")
    machine.DRIVER.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.82.01\n")
    assert (
        preflight.describe_gpus() == "NVIDIA driver 470.82.01 is installed, but no GPU is visible"
    )
    monkeypatch.setenv(machine.VARIABLE, "gpu")
    assert preflight.describe_gpus().endswith(f"but no GPU is visible{refuses}")
    monkeypatch.setattr(machine, "list_gpus", lambda: ["GPU-a", "GPU-b"])
    assert preflight.describe_gpus() == "2 found, NVIDIA driver 470.82.01"
    monkeypatch.setenv(machine.VARIABLE, "cpu")
    assert preflight.describe_gpus() == "not used: device is cpu in the config"


def test_fragments_that_lie_nowhere_are_seen_before(tmp_path):
    rows = [(c, s, s, b, n) for c, s, _, b, n in scattered(small.barcodes())]
    path = small.write_fragments(tmp_path / "f.tsv.gz", rows)
    (sentence,) = refused(examine(path=genes_h5(tmp_path), fragments=path))
    assert "fragments have an invalid start or end" in sentence


def change_mtx(folder, change):
    """Change the lines of a matrix; the header's three stay."""
    lines = (folder / "matrix.mtx").read_text().splitlines(keepends=True)
    n_header = next(i for i, line in enumerate(lines) if not line.startswith("%")) + 1
    (folder / "matrix.mtx").write_text("".join(change(lines[:n_header], lines[n_header:])))


def cut_packed(folder):
    """Pack a matrix, and cut it short."""
    packed = gzip.compress((folder / "matrix.mtx").read_bytes())
    (folder / "matrix.mtx.gz").write_bytes(packed[: len(packed) // 2])
    (folder / "matrix.mtx").unlink()


@pytest.mark.parametrize("kind", ["mtx", "h5", "h5ad"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda counts: -counts, "not integers"),
        (lambda counts: counts * 0.7, "not integers"),
        (lambda counts: counts * 10**9, "the largest allowed, 2,147,483,647"),
        (lambda counts: counts * 0, "the count matrix is empty"),
        (lambda counts: counts[:0], "the count matrix is empty"),
    ],
)
def test_values_that_ingestion_would_refuse_are_seen_before(tmp_path, kind, change, words):
    values = change(small.counts()[0])
    cells = small.barcodes()[: len(values)]
    if kind == "mtx":
        path = small.write_mtx(tmp_path / "m", values, cells)
    elif kind == "h5":
        kinds = ["Gene Expression"] * 6
        path = small.write_h5(tmp_path / "s.h5", values, small.SYMBOLS, kinds, cells)
    else:
        path = tmp_path / "s.h5ad"
        small.table(values, cells=cells).write_h5ad(path)
    sheet_kind = "h5ad" if kind == "h5ad" else "10x"
    (sentence,) = refused(examine(path=path, kind=sheet_kind, atac_path="none"))
    assert words in sentence


def test_a_matrix_that_was_cut_short_is_seen_before(tmp_path, monkeypatch):
    folder = small.write_mtx(tmp_path / "m")
    change_mtx(folder, lambda header, lines: header + lines[:-5])
    (sentence,) = refused(examine(path=folder, atac_path="none"))
    assert (
        "has 235 entries or some out of range, but its header declares 240 in a matrix of 6 x 40"
        in sentence
    )
    small.write_mtx(tmp_path / "whole")
    for size in (7, 50, 2**20):
        monkeypatch.setattr(tenx, "BYTES_SEEN", size)
        for end in ("\n", ""):
            text = (tmp_path / "whole" / "matrix.mtx").read_text().strip() + end
            (tmp_path / "whole" / "matrix.mtx").write_text(text)
            assert not refused(examine(path=tmp_path / "whole", atac_path="none"))
    cut_packed(small.write_mtx(tmp_path / "n"))
    (sentence,) = refused(examine(path=tmp_path / "n", atac_path="none"))
    assert "not a readable 10x matrix" in sentence


def test_a_barcode_twice_is_seen_before(tmp_path):
    cells = [*small.barcodes()[:39], small.barcodes()[0]]
    small.table(cells=cells).write_h5ad(tmp_path / "s.h5ad")
    folder = small.write_mtx(tmp_path / "m", cells=cells)
    for path, kind in ((folder, "10x"), (tmp_path / "s.h5ad", "h5ad")):
        (sentence,) = refused(examine(path=path, kind=kind, atac_path="none"))
        assert f"duplicate barcode {cells[0]}; give each library" in sentence


def test_promoter_counts_after_tf_idf_are_seen_before(tmp_path):
    table = small.table()
    table.layers["unspliced"] = table.X.log1p()
    table.write_h5ad(tmp_path / "s.h5ad")
    (sentence,) = refused(examine(path=tmp_path / "s.h5ad", kind="h5ad"))
    assert "s.h5ad, layer unspliced: the counts are not integers" in sentence
    peaks = small.table(small.counts()[1] * 0.3, small.PEAKS)
    peaks.write_h5ad(tmp_path / "p.h5ad")
    columns = {"path": tmp_path / "s.h5ad", "atac_path": tmp_path / "p.h5ad", "kind": "h5ad"}
    (sentence,) = refused(examine(**columns))
    assert "p.h5ad: the counts in X are not integers" in sentence
    mudata.MuData({"rna": small.table(), "atac": peaks}).write(tmp_path / "s.h5mu")
    (sentence,) = refused(examine(path=tmp_path / "s.h5mu", kind="h5mu"))
    assert "s.h5mu: the counts in X are not integers" in sentence
    values = np.concatenate([small.counts()[0], small.counts()[1] * 0.3], 1)
    (sentence,) = refused(examine(path=small.write_h5(tmp_path / "s.h5", values)))
    assert "s.h5: the counts are not integers" in sentence


def test_an_h5mu_of_peaks_is_examined_and_read_whatever_else_it_holds(tmp_path):
    small.table().write_h5ad(tmp_path / "rna.h5ad")
    peaks = small.table(small.counts()[1], small.PEAKS)
    others = small.table(cells=small.barcodes(seed=4))
    row = {"kind": "h5ad", "path": tmp_path / "rna.h5ad", "atac_path": tmp_path / "atac.h5mu"}
    counts = []
    for content in ({"atac": peaks}, {"rna": others, "atac": peaks}):
        mudata.MuData(content).write(tmp_path / "atac.h5mu")
        findings = examine(**row)
        assert not refused(findings)
        found = {finding.check: finding.found for finding in findings}
        assert found["barcodes"].startswith("40 of 40 RNA barcodes")
        assert found["genome build"].startswith("peaks are in promoters ")
        cells = ingestion.ingest(small.sheet_row(**row), GENES, WINDOWS, 0.5, 0.5)
        assert set(cells.obs["promoter_source"]) == {"peaks"}
        counts.append(cells.layers["promoter"].sum())
    assert counts[0] == counts[1] > 0
    mudata.MuData({"open": peaks}).write(tmp_path / "atac.h5mu")
    (sentence,) = refused(examine(**row))
    assert "atac.h5mu: has no modality 'atac', only open; rename one." in sentence
    with pytest.raises(InputError, match="has no modality 'atac', only open"):
        ingestion.read_peaks(Matrix(str(tmp_path / "atac.h5mu"), modality="atac"))


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_raw_counts_of_more_genes_than_the_promoter_layer_are_refused_before(form, tmp_path):
    table = small.table()
    table.raw = table.copy()
    table = table[:, :4].copy()
    table.layers["promoter"] = form(table.X.toarray())
    table.X = table.X.log1p()
    table.write_h5ad(tmp_path / "s.h5ad")
    (sentence,) = refused(examine(path=tmp_path / "s.h5ad", kind="h5ad"))
    assert sentence.endswith(
        "s.h5ad: the RNA counts in .raw have 6 genes, but the layer of promoter counts has 4; "
        "write both as layers with the same genes. [SCD-LAYER]"
    )
    with pytest.raises(SystemExit):
        small.ingest_sample(tmp_path, path=tmp_path / "s.h5ad", kind="h5ad")
    assert sentence in (tmp_path / "log.txt").read_text()


def test_genes_of_another_species_are_shown_beside_the_vocabularys(tmp_path):
    folder = small.write_mtx(tmp_path / "m", names=[name.upper() for name in small.SYMBOLS])
    (sentence,) = refused(examine(path=folder, atac_path="none"))
    assert f"{folder}: only 0 of 6 genes" in sentence
    assert "(TBX6, SOX2, MEIS2 here, Tbx6, Sox2, Meis2 in reference.annotation)" in sentence


def test_fragments_of_another_sample_are_told_though_they_have_the_barcodes(tmp_path):
    own, others = small.barcodes(), small.barcodes(seed=9)
    paths = {}
    for name, cells, background in (("own", own, others), ("other", others, own)):
        rows = [row for row in scattered(cells) for _ in range(9)]
        rows += [("chr1", 9900 + i, 9990 + i, cell, 1) for i, cell in enumerate(background)]
        paths[name] = small.write_fragments(tmp_path / f"{name}.tsv.gz", rows)
    path = genes_h5(tmp_path)
    assert not refused(examine(path=path, fragments=paths["own"]))
    (sentence,) = refused(examine(path=path, fragments=paths["other"]))
    assert (
        "they have 1 per cell, the same number of best barcodes 54; are these the fragm" in sentence
    )
    (tmp_path / "run").mkdir()
    with pytest.raises(SystemExit):
        small.ingest_sample(tmp_path / "run", path=path, fragments=paths["other"])
    assert sentence in (tmp_path / "run" / "log.txt").read_text()
    small.ingest_sample(tmp_path / "run", path=path, fragments=paths["own"])


def test_findings_are_gathered_once_each_with_what_does_not_pass_first():
    own = preflight_findings.make_table([preflight_findings.Finding("study", "disk", "room")])
    twice = pd.DataFrame(
        {
            "subject": ["a", "a"], "check": ["files", "cells"], "found": ["h5", "no labels"],
            "passed": ["True", "False"],
        }
    )  # fmt: skip
    table = preflight_findings.gather_findings(own, [twice, twice.iloc[1:]])
    assert table["found"].tolist() == ["no labels", "room", "h5"]
    assert table["passed"].tolist() == [False, True, True]


def test_a_panels_genes_and_cells_are_those_of_the_samples_that_can_be_read(tmp_path, caplog):
    good = small.sheet_row(path=genes_h5(tmp_path))
    bad = small.sheet_row(path=tmp_path / "none.h5")
    rows = [dict(good, sample="a"), dict(bad, sample="b")]
    assert preflight.genes_of_panel(rows) == preflight.list_measured_genes(rows[0])
    assert "sample b is left out" in caplog.text
    with pytest.raises(InputError, match=r"none\.h5"):
        preflight.genes_of_panel(rows[1:])
    n_cells = len(preflight.list_barcodes(rows[0]))
    again = [rows[0], dict(good, sample="c")]
    corpora = {"one": ["a"], "both": ["a", "c"]}
    assert preflight.count_cells(again, corpora) == {"one": n_cells, "both": 2 * n_cells}
