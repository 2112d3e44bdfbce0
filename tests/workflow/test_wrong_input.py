"""What a careless user gets: one sentence, no output, and every shipped config can be planned."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, snakemake

TRAINING = {"epochs": 1, "batch_size": 1, "learning_rate": 1}
MISMATCHED = REPOSITORY.parent / "shared/data/multiome/bmmc_mismatched"


SHIPPED = sorted(
    path for path in (REPOSITORY / "config").glob("**/*.yaml") if "samples:" in path.read_text()
)


@pytest.mark.parametrize("name", [str(path.relative_to(REPOSITORY)) for path in SHIPPED])
def test_every_shipped_config_can_be_planned(tmp_path, name):
    config = yaml.safe_load((REPOSITORY / name).read_text())
    folder = tmp_path / "a" / "b"  # real data lie beside the checkout
    sheet = folder / config["samples"]
    sheet.parent.mkdir(parents=True)
    shutil.copy(REPOSITORY / config["samples"], sheet)
    # A plan needs its inputs to exist, not to be read.
    header, *rows = [line.split("\t") for line in sheet.read_text().splitlines()]
    paths = [
        cell
        for row in rows
        for key, cell in zip(header, row, strict=True)
        if key in ("path", "atac_path", "metadata") and cell != "none"
    ]
    grn = config.get("grn", {})
    paths += [config["reference"][key] for key in ("annotation", "tfs")]
    paths += grn.get("rankings", []) + [grn[key] for key in ("annotations",) if key in grn]
    for path in sorted(paths, key=len, reverse=True):  # a folder's files before the folder
        if "simulation" not in path and not (folder / path).exists():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()
    run = snakemake(folder, REPOSITORY / name, "--dry-run")
    assert run.returncode == 0, run.stdout[-3000:]
    assert "finetune" in run.stdout


def pair_study(folder, rna, atac):
    """Write a study of one sample whose modalities lie in two files."""
    (folder / "samples.tsv").write_text(
        f"sample\tkind\tpath\tatac_path\npair\th5ad\t{rna}\t{atac}\n"
    )
    reference = REPOSITORY.parent / "shared/data/reference"
    config = {
        "samples": "samples.tsv",
        "reference": {
            "annotation": str(reference / "hg38_genes.bed.gz"),
            "tfs": str(reference / "hs_hgnc_tfs.txt"),
        },
        "corpora": {"all": {}},
        "models": {"m": {"corpus": "all", "training": TRAINING}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder / "config.yaml"


@pytest.mark.skipif(not MISMATCHED.exists(), reason="needs ../shared/data")
def test_modalities_of_other_cells_end_in_a_sentence_about_barcodes(tmp_path):
    config = pair_study(tmp_path, MISMATCHED / "rna.h5ad", MISMATCHED / "atac.h5ad")
    run = snakemake(tmp_path, config, "results/corpus/all/manifest.json", "results/preflight.tsv")
    assert run.returncode != 0
    assert "only 22 of 500 RNA barcodes" in run.stdout
    assert "use files of the same cells" in run.stdout
    assert "Traceback" not in run.stdout
    assert not list((tmp_path / "results/ingest").glob("*.zarr"))
    assert "False" in (tmp_path / "results/preflight.tsv").read_text()


@pytest.mark.skipif(not MISMATCHED.exists(), reason="needs ../shared/data")
def test_one_bad_sample_is_named_in_a_table_of_all_and_the_others_are_ingested(tmp_path):
    config = pair_study(tmp_path, MISMATCHED / "rna.h5ad", MISMATCHED / "atac.h5ad")
    with (tmp_path / "samples.tsv").open("a") as sheet:
        sheet.write("alone\th5ad\talone.h5ad\tnone\n")
    shutil.copy(MISMATCHED / "rna.h5ad", tmp_path / "alone.h5ad")
    run = snakemake(tmp_path, config, "preflight")
    assert run.returncode != 0
    assert run.stdout.count("use files of the same cells") == 2  # gathered, then refused
    table = (tmp_path / "results/preflight.tsv").read_text()
    assert "alone\tcells" in table and table.count("\tFalse") == 1
    # Looked at again, for the cause may be gone without a change of a file; and the table is made
    # though a sample is refused.
    (tmp_path / "results/preflight.tsv").unlink()
    run = snakemake(tmp_path, config, "results/corpus/all/manifest.json", "results/preflight.tsv")
    assert run.returncode != 0
    assert set(re.findall(r"rule examine_sample:.*?sample=(\w+)", run.stdout, re.S)) == {"pair"}
    assert (tmp_path / "results/preflight.tsv").read_text().count("\tFalse") == 1
    assert (tmp_path / "results/ingest/alone.zarr").exists()
    assert not (tmp_path / "results/corpus/all/manifest.json").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pretrian": {}}, "unknown key 'pretrian'"),
        ({"samples": "nowhere.tsv"}, "nowhere.tsv: cannot be read as a sample sheet"),
    ],
)
def test_a_faulty_config_ends_in_one_sentence(tmp_path, change, words):
    shutil.copy(REPOSITORY / "config/demo/samples.tsv", tmp_path)
    config = yaml.safe_load((REPOSITORY / "tests/workflow/config.yaml").read_text()) | change
    path = Path(tmp_path / "config.yaml")
    path.write_text(yaml.safe_dump(config))
    run = snakemake(tmp_path, path, "--dry-run")
    assert run.returncode != 0
    assert words in run.stdout
    assert "Traceback" not in run.stdout


def test_public_files_are_fetched_ahead_from_a_mirror_and_held_to_their_hash(tmp_path):
    mirror = tmp_path / "a mirror"
    mirror.mkdir()
    names = ["gencode.vM25.annotation.gtf.gz", "allTFs_mm.txt"]
    for name in names:
        (mirror / name).write_text(name)
    (tmp_path / "samples.tsv").write_text("sample\tkind\tpath\ns\t10x\tnot/there\n")
    paths = [f"resources/downloads/{name}" for name in names]
    config = {
        "samples": "samples.tsv",
        "reference": {"annotation": paths[0], "tfs": paths[1]},
        "resources": {"mirror": mirror.as_uri()},
        "corpora": {"c": {}},
        "models": {"m": {"corpus": "c", "training": TRAINING}},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    run = snakemake(tmp_path, tmp_path / "config.yaml", "resources")
    assert run.returncode == 0, run.stdout[-3000:]
    assert [(tmp_path / path).read_text() for path in paths] == names
    (tmp_path / paths[1]).unlink()
    config["resources"]["sha256"] = {names[1]: "0" * 64}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    run = snakemake(tmp_path, tmp_path / "config.yaml", "resources")
    assert run.returncode != 0
    assert "is not the file that was asked for" in run.stdout
    assert not (tmp_path / paths[1]).exists()
