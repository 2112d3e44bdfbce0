"""Public files: fetched whole, checked by hash, from anywhere that has them."""

import hashlib
import socket
from pathlib import Path

import pandas as pd
import pytest

from scdyn.errors import InputError
from scdyn.io import download
from scdyn.io.download import Resource, annotation_of, compare_builds, fetch, read_catalogue

FILE = Path(__file__).parents[3] / "resources" / "catalogue.tsv"
CONTENT = b"Tbx6\nSox2\n"
HASH = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "mirror" / "allTFs mm.txt"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize("as_uri", [True, False])
def test_a_file_is_fetched_with_its_hash_beside_it(tmp_path, source, as_uri):
    target = tmp_path / "out" / "tfs.txt"
    found = fetch(Resource(source.as_uri() if as_uri else str(source), HASH.upper()), target)
    assert found == HASH and target.read_bytes() == CONTENT
    assert (tmp_path / "out" / "tfs.txt.sha256").read_text() == f"{HASH}  tfs.txt\n"


def test_a_file_whose_hash_is_not_known_is_said_to_be_so(tmp_path, source, caplog):
    fetch(Resource(str(source)), tmp_path / "tfs.txt")
    assert f"'tfs.txt: {HASH}' under resources.sha256" in caplog.text


@pytest.mark.parametrize(
    ("url", "sha256", "words"),
    [
        ("{source}", "0" * 64, "is not the file that was asked for .*expected 000"),
        ("{source}.not", "", "cannot be fetched .*snakemake resources"),
        ("http://example.org/tfs.txt", "", "only https://"),
        ("ftp://example.org/tfs.txt", "", "only https://"),
        ("https://127.0.0.1:9/tfs.txt", "", "cannot be fetched .*resources.mirror"),
    ],
)
def test_what_cannot_be_trusted_or_had_leaves_no_file(
    tmp_path, source, monkeypatch, url, sha256, words
):
    monkeypatch.setattr(download, "RETRIES", 0)
    target = tmp_path / "out" / "tfs.txt"
    with pytest.raises(InputError, match=words):
        fetch(Resource(url.format(source=source), sha256), target)
    assert not target.parent.exists() or not list(target.parent.iterdir())


def test_a_server_that_falls_silent_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    monkeypatch.setattr(download, "RETRIES", 0)
    with socket.create_server(("localhost", 0)) as silent:  # takes the call, and says nothing
        url = f"https://localhost:{silent.getsockname()[1]}/tfs.txt"
        with pytest.raises(InputError, match="cannot be fetched .*timed out"):
            fetch(Resource(url), tmp_path / "tfs.txt")
    assert not list(tmp_path.iterdir())


CATALOGUE = read_catalogue(FILE)
RANKINGS = "{}_10kbp_up_10kbp_down_full_tx_v10_clust.genes_vs_motifs.rankings.feather"


@pytest.mark.parametrize("reference", ["GRCh38-2020-A", "GRCh38-2024-A", "mm10-2020-A"])
def test_files_of_one_reference_of_cell_ranger_go_together(reference):
    (annotation,) = [name for name, one in CATALOGUE.items() if one.reference == reference]
    species, genome = CATALOGUE[annotation].species, CATALOGUE[annotation].genome
    others = [
        name
        for name, one in CATALOGUE.items()
        if one.species == species and one.kind != "annotation" and one.genome in ("", genome)
    ]
    assert {CATALOGUE[name].kind for name in others} == {"tfs", "rankings", "motifs"}
    paths = [f"resources/downloads/{name}" for name in (annotation, *others)]
    assert compare_builds(CATALOGUE, [*paths, "my/own.feather"]) == ""


def test_an_annotation_of_another_build_than_the_rankings_is_warned_of():
    found = compare_builds(
        CATALOGUE, ["d/gencode.vM33.annotation.gtf.gz", "allTFs_mm.txt", RANKINGS.format("mm10")]
    )
    assert "gencode.vM33.annotation.gtf.gz is of mm39 and mm10_10kbp" in found
    assert "gencode.vM23.annotation.gtf.gz (mm10-2020-A)" in found and "vM36" not in found
    assert compare_builds(CATALOGUE, ["my.gtf", RANKINGS.format("mm10")]) == ""
    assert compare_builds(CATALOGUE, []) == ""


def test_files_of_two_species_are_refused():
    with pytest.raises(
        InputError, match="v32.* is for human but allTFs_mm.txt for mouse; name anno"
    ):
        compare_builds(CATALOGUE, ["gencode.v32.annotation.gtf.gz", "allTFs_mm.txt"])


def test_the_catalogue_tells_what_each_file_is():
    for name, one in CATALOGUE.items():
        assert one.kind in {"annotation", "tfs", "rankings", "motifs"}, name
        assert one.species == {"h": "human", "m": "mouse"}[one.genome[0]] if one.genome else True
        assert bool(one.genome) == (one.kind in {"annotation", "rankings"}), name
        assert not one.reference or one.kind == "annotation"


def test_the_catalogue_is_of_https_addresses_and_a_mirror_takes_their_place():
    path = "resources/catalogue.tsv"
    catalogue = read_catalogue(path)
    assert all(resource.url.startswith("https://") for resource in catalogue.values())
    assert all(resource.url.endswith(f"/{name}") for name, resource in catalogue.items())
    at_hand = read_catalogue(path, "/data/mirror/", {"allTFs_mm.txt": HASH})
    found = at_hand["allTFs_mm.txt"]
    assert (found.url, found.sha256) == ("/data/mirror/allTFs_mm.txt", HASH)
    with pytest.raises(InputError, match="names 'TFs.txt', which is not in"):
        read_catalogue(path, None, {"TFs.txt": HASH})


@pytest.mark.parametrize(
    ("genome", "expected"),
    [
        ("mm10-2020-A", "vM23"), ("refdata-cellranger-arc-mm10-2020-A-2.0.0", "vM23"),
        ("GRCh38-2024-A", "v44"), ("GRCh38", "v32"), ("mm10", "vM23"), ("GRCm39-2024-A", "vM33"),
        ("hg19-3.0.0", ""), ("sim", ""), ("", ""),
    ],
)  # fmt: skip
def test_the_annotation_of_a_build_is_named(genome, expected):
    rows = [
        ("v32", "hg38", "GRCh38-2020-A"), ("v44", "hg38", "GRCh38-2024-A"), ("v47", "hg38", ""),
        ("vM23", "mm10", "mm10-2020-A"), ("vM25", "mm10", ""), ("vM33", "mm39", "GRCm39-2024-A"),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["name", "genome", "reference"])
    table["name"] = "gencode." + table["name"] + ".annotation.gtf.gz"
    table.loc[len(table)] = ["mm10_motifs.feather", "mm10", "mm10-2020-A"]
    name = f"resources/downloads/gencode.{expected}.annotation.gtf.gz"
    assert annotation_of(genome, table) == (name if expected else "")


def test_our_catalogue_has_annotations_of_the_builds_it_is_asked_for():
    table = pd.read_csv(FILE, sep="\t", dtype=str, keep_default_na=False)
    for genome in ("mm10-2020-A", "GRCh38-2020-A", "GRCm39-2024-A"):
        assert annotation_of(genome, table).endswith(".annotation.gtf.gz")
