"""The simulated study: reproducible, mechanistic, and readable by others' readers."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.feather
import pysam
import pytest
import scanpy

from scdyn.errors import InputError
from scdyn.io.files import sha256
from scdyn_simulate import dynamics as simulate_dynamics
from scdyn_simulate import network as simulate_network
from scdyn_simulate.layout import SAMPLES
from scdyn_simulate.parameters import Simulation
from scdyn_simulate.study import simulate_study

TINY = Simulation(
    seed=7, n_cells=270, n_genes=220, n_tfs=20, n_lncrnas=6, n_decoy_motifs=30, fragments=1200
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulation") / "study"
    simulate_study(TINY, folder)
    return folder


@pytest.fixture(scope="module")
def network() -> simulate_network.Network:
    return simulate_network.build_network(TINY, np.random.default_rng(3))


@pytest.fixture(scope="module")
def truth(study: Path) -> pd.DataFrame:
    return pd.read_csv(study / "truth" / "cells.tsv", sep="\t")


@pytest.fixture(scope="module")
def annotation(study: Path) -> pd.DataFrame:
    with gzip.open(study / "genes.gtf.gz", "rt") as handle:
        rows = [line.rstrip("\n").split("\t") for line in handle if not line.startswith("#")]
    table = pd.DataFrame(rows, columns="chrom source type start end a strand b text".split())
    table[["start", "end"]] = table[["start", "end"]].astype(int)
    for key in ("gene_id", "gene_type", "gene_name", "transcript_id"):
        table[key] = table["text"].str.extract(f'{key} "([^"]*)"')
    return table


@pytest.fixture(scope="module")
def fragments(study: Path) -> pd.DataFrame:
    return read_fragments(study / "wildtype_1" / "atac_fragments.tsv.gz")


def read_fragments(path: Path) -> pd.DataFrame:
    names = ["chrom", "start", "end", "barcode", "support"]
    return pd.read_csv(path, sep="\t", comment="#", header=None, names=names)


def read_matrix(study: Path, sample: str):
    if sample.startswith("knockout"):
        folder = study / sample / "filtered_feature_bc_matrix"
        return scanpy.read_10x_mtx(folder, gex_only=False)
    return scanpy.read_10x_h5(study / sample / "filtered_feature_bc_matrix.h5", gex_only=False)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(study, tmp_path):
    simulate_study(TINY, tmp_path / "again")
    simulate_study(dataclasses.replace(TINY, seed=8), tmp_path / "other")
    files = {p.relative_to(study) for p in study.rglob("*") if p.is_file()}
    assert files == {
        p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file()
    }
    for file in files:
        assert sha256(study / file) == sha256(tmp_path / "again" / file), file
    for file in ("truth/edges.tsv", "wildtype_2/atac_fragments.tsv.gz", "genes.gtf.gz"):
        assert sha256(study / file) != sha256(tmp_path / "other" / file), file


def test_a_failed_run_leaves_what_stood_there(study, tmp_path, monkeypatch):
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "old.txt").write_text("old")
    monkeypatch.setattr("scdyn_simulate.files.write_cells", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        simulate_study(TINY, folder)
    assert [p.name for p in tmp_path.rglob("*")] == ["study", "old.txt"]


@pytest.mark.parametrize(
    ("change", "word"),
    [({"n_tfs": 5}, "n_tfs"), ({"n_genes": 90}, "n_genes"), ({"n_cells": 3}, "n_cells")],
)
def test_sizes_without_an_embryo_are_refused_by_name(change, word):
    with pytest.raises(InputError, match=f"^{word} is"):
        dataclasses.replace(TINY, **change)


def test_the_knocked_out_master_takes_its_programme_with_it(network):
    cells = simulate_dynamics.simulate_cells(TINY, network, SAMPLES, np.random.SeedSequence(11))
    table, rna = cells.table, cells.rna
    would_be = (table["intended_fate"] == "somite") & (table["stage"] == "mature")
    knockout = table["sample"] == 2
    programme = [network.tf(s) for s in ("Som2", "Som3")]
    lost = rna[programme][:, (would_be & knockout).to_numpy()].mean()
    kept = rna[programme][:, (would_be & ~knockout).to_numpy()].mean()
    assert kept > 4 * lost
    assert set(table["fate"][would_be & knockout]) == {"neural_tube"}
    assert set(table["fate"][would_be & ~knockout]) == {"somite"}
    # And the ectopic cells are neural through the neural programme.
    neural = [network.tf(s) for s in ("Neu1", "Neu2", "Neu3")]
    ectopic = rna[neural][:, (would_be & knockout).to_numpy()].mean()
    assert ectopic > 4 * rna[neural][:, (would_be & ~knockout).to_numpy()].mean()


def test_without_a_knockout_actual_and_intended_fates_are_the_same(network):
    cells = simulate_dynamics.simulate_cells(
        TINY, network, ("a", "b", "c"), np.random.SeedSequence(11)
    )
    assert (cells.table["fate"] == cells.table["intended_fate"]).all()
    assert (cells.table["fate"][cells.table["sample"] == 2] == "somite").any()


def test_a_factor_works_through_its_targets_only(network):
    # With no edge from Som1 to its programme, the programme stays off in all.
    weights = network.weights.copy()
    programme = [network.tf(s) for s in ("Som2", "Som3")]
    weights[:, programme] = 0
    cut = dataclasses.replace(network, weights=weights)
    rna = simulate_dynamics.simulate_cells(TINY, cut, SAMPLES, np.random.SeedSequence(11)).rna
    assert rna[programme].mean() < 0.15


def test_a_promoter_opens_before_its_gene_is_transcribed(network):
    # One cell type watched closely: all cells lateral, captured from 0 to 12.
    n = TINY.n_cells
    table = pd.DataFrame(
        {
            "stage": "mature",
            "signal": 3.0,
            "leave": 0.0,
            "time": np.linspace(0, 12, n),
        }
    )
    still = dataclasses.replace(TINY, rna_noise=0.0, drive_sd=0.0)
    rng = np.random.default_rng(5)
    noise = simulate_dynamics.draw_noise(still, network, n, rng)
    works = np.ones((network.n_tfs, n))
    run = simulate_dynamics.run_tfs(still, network, table, works, noise, record=True)
    openness, rna = simulate_dynamics.run_targets(
        still, network, table, run.history, np.random.SeedSequence(1)
    )
    switched_on = np.flatnonzero(openness[:, -1] - openness[:, 0] > 0.3)
    assert len(switched_on) >= 8

    def half_time(curve: np.ndarray) -> float:
        middle = (curve[0] + curve[-1]) / 2
        return table["time"].to_numpy()[np.argmax(curve > middle)]

    lags = [half_time(rna[g]) - half_time(openness[g]) for g in switched_on]
    assert min(lags) > 0
    # The lag is the life of the RNA, to the coarseness of a half-time.
    assert 0.5 * TINY.rna_time < np.mean(lags) < 1.5 * TINY.rna_time


def test_early_progenitors_are_undecided_and_both_fates_occur(truth):
    progenitors = truth[(truth["state"] == "progenitor") & truth["sample"].str.startswith("wild")]
    assert progenitors["fate"].isin(["somite", "neural_tube"]).mean() > 0.97
    assert progenitors["fate"].value_counts(normalize=True).min() > 0.25
    # The signal says something of the fate, but not everything.
    agrees = ((progenitors["signal"] > 0) == (progenitors["fate"] == "somite")).mean()
    assert 0.6 < agrees < 0.95


def test_masters_are_the_strongest_drivers(study):
    drivers = pd.read_csv(study / "truth" / "drivers.tsv", sep="\t")
    for _, group in drivers.groupby("fate"):
        strongest = group.loc[group["effect"].idxmin()]
        assert strongest["role"] == "master"
        assert strongest["effect"] < -0.25


def test_edges_are_signed_and_name_genes_of_the_annotation(study, annotation):
    edges = pd.read_csv(study / "truth" / "edges.tsv", sep="\t")
    coding = set(annotation["gene_name"][annotation["gene_type"] == "protein_coding"])
    assert set(edges["tf"]) | set(edges["target"]) <= coding
    assert len(coding) == TINY.n_genes
    assert set(edges["sign"]) == {-1, 1}
    assert (edges["weight"] > 0).all()
    assert not edges.duplicated(["tf", "target"]).any()
    assert not edges["target"].str.startswith("mt-").any()


def test_the_annotation_is_consistent(annotation, study):
    genes = annotation[annotation["type"] == "gene"].set_index("gene_id")
    assert genes.index.str.fullmatch(r"ENSSIMG\d{11}\.\d+").all()
    assert genes.index.is_unique
    assert set(genes["strand"]) == {"+", "-"}
    assert set(genes["gene_type"]) == {"protein_coding", "lncRNA"}
    assert (genes["gene_name"].str.startswith("mt-") == (genes["chrom"] == "chrM")).all()
    assert (genes["chrom"] == "chrM").sum() == 13
    transcripts = annotation[annotation["type"] == "transcript"]
    sizes = transcripts.groupby("gene_id").size()
    assert sizes.max() <= 4
    assert sizes.nunique() == 4
    exons = annotation[annotation["type"] == "exon"].groupby("transcript_id")
    span = transcripts.set_index("transcript_id")
    assert (exons["start"].min() == span["start"].sort_index()).all()
    assert (exons["end"].max() == span["end"].sort_index()).all()
    assert (annotation["end"] - annotation["start"] >= 20).all()
    for _, group in annotation[annotation["type"] == "exon"].groupby("transcript_id"):
        ordered = group.sort_values("start")
        assert (ordered["start"].to_numpy()[1:] > ordered["end"].to_numpy()[:-1]).all()
    tss = transcripts["start"].where(transcripts["strand"] == "+", transcripts["end"])
    assert (tss.groupby(transcripts["gene_id"]).nunique() > 1).sum() > 20
    listed = (study / "tfs.txt").read_text().split()
    assert len(set(listed) - set(genes["gene_name"])) == 3
    assert len(set(listed) & set(genes["gene_name"])) == TINY.n_tfs
    # The order of ids tells nothing of function.
    symbols = genes.sort_index()["gene_name"].tolist()
    assert symbols != sorted(symbols)


@pytest.mark.parametrize("strand", ["+", "-"])
def test_promoter_fragments_lie_upstream_of_tss_on_both_strands(strand, annotation, fragments):
    transcripts = annotation[(annotation["type"] == "transcript") & (annotation["chrom"] != "chrM")]
    single = transcripts[~transcripts["gene_id"].duplicated(keep=False)]
    single = single[single["strand"] == strand]
    tss = (single["start"] if strand == "+" else single["end"]) - 1
    assert len(single) > 15
    offsets = []
    for chrom, position in zip(single["chrom"], tss, strict=True):
        here = fragments[fragments["chrom"] == chrom]
        middle = (here["start"] + here["end"]) / 2 - position
        offsets.append(middle[middle.abs() < 1000] * (1 if strand == "+" else -1))
    offsets = pd.concat(offsets)
    # Drawn around -100 bp in the direction of transcription, amid even background.
    assert -140 < offsets.mean() < -40
    around = (offsets.abs() < 500).mean()
    assert around > 0.8


def test_fragments_are_sorted_indexed_and_paired_with_metrics(study, fragments):
    for sample in SAMPLES:
        path = study / sample / "atac_fragments.tsv.gz"
        table = read_fragments(path)
        chroms = table["chrom"].drop_duplicates().tolist()
        assert chroms == sorted(chroms)
        assert all(g["start"].is_monotonic_increasing for _, g in table.groupby("chrom"))
        assert (table["end"] - table["start"] >= 25).all()
        assert (table["start"] >= 0).all()
        assert (table["support"] >= 1).all()
        metrics = pd.read_csv(study / sample / "per_barcode_metrics.csv").set_index("barcode")
        per_barcode = table["barcode"].value_counts()
        assert (metrics["atac_fragments"] == per_barcode.reindex(metrics.index).fillna(0)).all()
    path = study / "wildtype_1" / "atac_fragments.tsv.gz"
    with gzip.open(path, "rt") as handle:
        assert handle.readline().startswith("# id=wildtype_1")
    with pysam.TabixFile(str(path)) as handle:
        found = sum(1 for _ in handle.fetch("chr2", 100_000, 300_000))
    expected = fragments.query("chrom == 'chr2' and start < 300_000 and end > 100_000")
    assert found == len(expected) > 0


def test_fragment_lengths_have_two_modes(fragments):
    lengths = fragments["end"] - fragments["start"]
    free, between, mono = (lengths.between(*b).mean() for b in ((60, 90), (125, 155), (185, 215)))
    assert free > mono > 2 * between


@pytest.mark.parametrize("sample", SAMPLES)
def test_matrices_open_in_scanpy_and_agree_with_fragments(sample, study, annotation, truth):
    data = read_matrix(study, sample)
    genes = data[:, data.var["feature_types"] == "Gene Expression"]
    peaks = data[:, data.var["feature_types"] == "Peaks"]
    rows = annotation[annotation["type"] == "gene"]
    assert genes.var_names.tolist() == rows["gene_name"].tolist()
    # Ids stand without version here and with version in the annotation.
    assert genes.var["gene_ids"].tolist() == rows["gene_id"].str.split(".").str[0].tolist()
    assert data.obs_names.tolist() == sorted(truth["barcode"][truth["sample"] == sample])
    assert data.obs_names.str.fullmatch(r"[ACGT]{16}-1").all()
    metrics = pd.read_csv(study / sample / "per_barcode_metrics.csv").set_index("barcode")
    assert metrics.index[metrics["is_cell"] == 1].tolist() == data.obs_names.tolist()
    umis = np.asarray(genes.X.sum(axis=1)).ravel()
    assert (umis == metrics.loc[data.obs_names, "gex_umis_count"]).all()
    fragments = read_fragments(study / sample / "atac_fragments.tsv.gz")
    peak = peaks.var_names[np.asarray(peaks.X.sum(axis=0)).argmax()]
    chrom, span = peak.split(":")
    first, last = map(int, span.split("-"))
    here = fragments[(fragments["chrom"] == chrom) & fragments["barcode"].isin(data.obs_names)]
    cuts = (
        here["start"].between(first, last - 1).sum()
        + (here["end"] - 1).between(first, last - 1).sum()
    )
    assert cuts == peaks[:, peak].X.sum()


def test_barcodes_of_one_modality_and_uncalled_ones_are_there(study, truth):
    for sample in SAMPLES:
        metrics = pd.read_csv(study / sample / "per_barcode_metrics.csv").set_index("barcode")
        cells = truth[truth["sample"] == sample].set_index("barcode").join(metrics)
        assert (cells.loc[cells["modality"] == "rna", "atac_fragments"] == 0).all()
        assert (cells.loc[cells["modality"] == "atac", "gex_umis_count"] < 20).all()
        assert (metrics.loc[metrics["is_cell"] == 0, "atac_fragments"] > 200).any()
    assert set(truth["modality"]) == {"both", "rna", "atac"}
    poor = truth["is_poor"] == 1
    assert 0 < poor.mean() < 0.12
    assert 0 < truth["is_doublet"].mean() < 0.12


def test_the_laboratory_knows_types_of_the_wild_type_only(study, truth):
    known = pd.read_csv(study / "cell_metadata.tsv", sep="\t")
    assert known.columns.tolist() == ["sample", "barcode", "cell_type", "x", "y"]
    knockout = known["sample"] == "knockout_1"
    assert set(known["cell_type"][knockout]) == {"unassigned"}
    assert known["barcode"].tolist() != truth["barcode"].tolist()
    both = known.merge(truth, on=["sample", "barcode"], validate="one_to_one")
    assert len(both) == len(known) == TINY.n_cells
    wildtype = both[both["sample"] != "knockout_1"]
    assert 0.9 < (wildtype["cell_type"] == wildtype["state"]).mean() < 1


def test_knockout_cells_lie_where_somites_would(study, truth):
    known = pd.read_csv(study / "cell_metadata.tsv", sep="\t")
    both = known.merge(truth, on=["sample", "barcode"])
    ectopic = both.query("sample == 'knockout_1' and intended_fate == 'somite'")
    ectopic = ectopic[ectopic["state"] == "neural_tube"]
    tube = both.query("sample != 'knockout_1' and state == 'neural_tube'")
    assert len(ectopic) > 10
    assert ectopic["x"].abs().min() > tube["x"].abs().median()
    assert (ectopic["x"] > 0).mean() == pytest.approx(0.5, abs=0.3)


def test_motif_rankings_favour_true_targets(study):
    path = study / "motifs.genes_vs_motifs.rankings.feather"
    ranks = pyarrow.feather.read_table(path).to_pandas()
    assert ranks.columns[-1] == "motifs"
    ranks = ranks.set_index("motifs")
    assert set(ranks.dtypes) == {np.dtype(np.int16)}
    assert (np.sort(ranks.to_numpy(), axis=1) == np.arange(TINY.n_genes)).all()
    notes = pd.read_csv(study / "motifs.annotation.tbl", sep="\t")
    edges = pd.read_csv(study / "truth" / "edges.tsv", sep="\t")
    places = [
        ranks.loc[motif, edges["target"][edges["tf"] == tf]].mean() / TINY.n_genes
        for motif, tf in zip(notes["#motif_id"], notes["gene_name"], strict=True)
    ]
    # 0.5 would be chance, 0.02 a motif without error.
    assert np.mean(places) == pytest.approx(0.2, abs=0.12)
    decoys = set(ranks.index) - set(notes["#motif_id"])
    assert len(decoys) == TINY.n_decoy_motifs
