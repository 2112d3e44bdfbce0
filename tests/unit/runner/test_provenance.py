"""What made the results, read back from what was written, and told in words."""

import json
import subprocess
import sys
from pathlib import Path
from sysconfig import get_path

import pytest
import yaml

from scdyn import config as study
from scdyn.io import environment
from scdyn.io.artefacts import STAMP, make_stamp
from scdyn.io.files import sha256
from scdyn.plotting import provenance
from scdyn.settings import GrnSettings, QualitySettings

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def record(tmp_path):
    """Of the demo's config, with the packages that envs/ ask for."""
    content = yaml.safe_load((REPOSITORY / "config/demo/config.yaml").read_text())
    config = study.read_config(content, "config.yaml")
    lists = []
    for name in ("analysis", "grn", "torch"):
        pins = yaml.safe_load((REPOSITORY / f"envs/{name}.yaml").read_text())["dependencies"]
        lines = [line for part in pins if isinstance(part, dict) for line in part["pip"]]
        lists.append(tmp_path / f"{name}.txt")
        lists[-1].write_text("\n".join(["Python 3.11.2", *lines]) + "\n")
    models = []
    for name in config.models:
        models.append(tmp_path / "pretrain" / name / "config.json")
        models[-1].parent.mkdir(parents=True)
        models[-1].write_text(json.dumps({"device": "NVIDIA <H100>", STAMP: make_stamp()}))
    sheet = tmp_path / "samples.tsv"
    sheet.write_text("sample\tkind\tpath\n<script>\t10x\there\n")
    stamped = {"pretrain": models}
    return provenance.collect_provenance(
        config, sheet, lists, models, REPOSITORY, "9.27.1", stamped, [sheet]
    )


def test_packages_are_read_by_the_names_that_envs_has(tmp_path):
    (tmp_path / "list.txt").write_text("Python 3.11.2\nPyYAML==6.0.3\npydantic_core==2.5\n")
    found = environment.read_packages(tmp_path / "list.txt")
    assert found == {"python": "3.11.2", "pyyaml": "6.0.3", "pydantic-core": "2.5"}


def test_what_is_installed_is_what_pip_lists_whatever_a_path_adds(tmp_path, monkeypatch):
    extra = tmp_path / "extra-1.0.dist-info"
    extra.mkdir()
    (extra / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "list.txt").write_text(environment.list_packages())
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--format=freeze", "--path", get_path("purelib")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert set((tmp_path / "list.txt").read_text().splitlines()[1:]) == set(listed.splitlines())
    assert environment.read_packages(tmp_path / "list.txt")["snakemake"]


def test_methods_name_versions_seeds_and_devices(record):
    text = provenance.write_methods(record)
    for part in (
        "Snakemake 9.27.1", "PyTorch 2.13.0 on NVIDIA <H100>, seed 1",
        "taken out from those that were left (30% to 90%)", "from cell vectors that start as",
        "a head on the frozen encoder, with all counts of a cell and 2 times with 40% to 100% of",
        "and, per class, 10 marker genes chosen among the training cells; in 2 folds",
    ):  # fmt: skip
        assert part in text
    assert record["environments"]["grn"]["python"] == "3.11.2"
    assert set(record["sha256"]) == {path for path in record["sha256"] if path.endswith(".tsv")}
    assert all(value == sha256(path) for path, value in record["sha256"].items())


def test_methods_name_every_bound_of_a_cell(record):
    assert "cells were kept with at least" in provenance.write_methods(record)
    said = provenance.describe_qc(QualitySettings())
    assert said.endswith("5 MADs of the median and a doublet score (Scrublet) of at most 0.3")
    assert "enrichment" not in said and "nucleosome" not in said
    strict = QualitySettings(min_tss_enrichment=4, max_nucleosome_signal=2, min_promoter_share=0.1)
    said = provenance.describe_qc(strict.model_copy(update={"keep": "either", "n_mads": None}))
    for words in ("enrichment of at least 4", "signal of at most 2", "10% of the insertions"):
        assert words in said
    assert "MADs" not in said and said.endswith("passed in one of both modalities")


def test_methods_say_what_was_trained(record):
    model, task = (next(iter(record["config"][key].values())) for key in ("models", "tasks"))
    said = provenance.write_methods(record)
    assert "by predicting counts of a cell that were taken out" in said
    assert "of similar depth (weight 0.05) (PyTorch" in said and "hidden genes" not in said
    model["architecture"], task["encoder_rate"] = "paper", 1.0
    for changes, words in (
        ({"adapter": "lora", "rank": 4}, "with LoRA modules of rank 4 (peft"),
        ({"adapter": "none", "rank": 8}, "by training a head on the frozen encoder in"),
        ({"pretrained": False}, "by training all parameters from a random start in"),
    ):
        task |= changes
        assert words in provenance.write_methods(record)
    assert "marker genes" not in provenance.write_methods(record).split("task 'fate'")[1]
    assert "by predicting the bins of 15% hidden genes" in provenance.write_methods(record)


def test_methods_name_baselines_where_there_are_any(record):
    assert provenance.write_methods(record).count("it was compared with commonest class") == 2
    for task in record["config"]["tasks"].values():
        task["baselines"] = []
    text = provenance.write_methods(record)
    assert "compared with" not in text and "in the baselines that" not in text
    assert text.count("Classes were weighted by the inverse square root") == 2


def test_methods_name_the_program_that_found_the_motifs():
    grn = GrnSettings(rankings=["db.feather"], annotations="motifs.tbl")
    said = provenance.describe_grn(grn, {"pyscenic": "0.12.1"})
    assert "cisTarget's method in the workflow's own code, NES" in said and "pySCENIC" not in said
    grn = grn.model_copy(update={"motifs": "pyscenic"})
    said = provenance.describe_grn(grn, {"pyscenic": "0.12.1"})
    assert "motif enrichment (cisTarget by pySCENIC 0.12.1, NES at least 3)" in said


def test_the_page_escapes_what_it_is_given(record):
    page = provenance.render_provenance(record)
    assert "&lt;script&gt;" in page and "<script>" not in page
    assert "NVIDIA &lt;H100&gt;" in page


def test_the_page_says_in_full_what_is_the_same_in_several_places():
    shared = {"folds": [5, 3], "nested": {"seed": 1}}
    text = provenance.dump({"one": shared, "two": shared})
    assert text.count("nested:\n    seed: 1") == 2
    assert "&id0" not in text and "*id0" not in text


def test_a_study_of_the_present_version_says_nothing_and_a_mixed_one_what_to_remake(record):
    assert provenance.describe_versions(record) == ""
    assert "Versions of the code" not in provenance.render_provenance(record)
    record["written_by"]["ingest_sample"] = {"0.0.9+01234567, format 1": 2}
    said = provenance.describe_versions(record)
    assert said.startswith("Several versions")
    assert "0.0.9+01234567" in said and "--forcerun ingest_sample," in said
    assert "Versions of the code" in provenance.render_provenance(record)


def test_a_study_of_one_older_version_says_so_and_not_that_there_are_several(record):
    old, present = record["code"], "9.0.0+76543210, format 9"
    said = provenance.describe_versions(record | {"code": present})
    assert said == f"Version {old} wrote these results; version {present} wrote this page."
    # The present code is named as one to remake by, and not among those that wrote.
    record["written_by"]["ingest_sample"] = {"0.0.9+01234567, format 1": 2}
    said = provenance.describe_versions(record | {"code": present})
    assert present not in said.partition(". To remake")[0]
    assert "--forcerun pretrain ingest_sample," in said


def test_a_folder_without_git_has_no_commit(tmp_path):
    assert provenance.read_commit(tmp_path) == "unknown"
