"""``--config`` changes the study that is read, ``--configfile`` names another; results anywhere."""

import shutil
import subprocess

import pytest
import yaml
from conftest import REPOSITORY

TABLES = REPOSITORY / "tests/workflow"


def call(folder, *options):
    """Run the workflow as a user does who has edited ``config/config.yaml``."""
    return subprocess.run(
        [
            "snakemake",
            *options,
            "--snakefile", REPOSITORY / "Snakefile",
            "--sdm", "conda",
            "--conda-prefix", REPOSITORY / ".snakemake" / "conda",
            "--cores", "1",
        ],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


@pytest.fixture
def project(tmp_path):
    """A project whose default study has one sheet, with another sheet beside it."""
    (tmp_path / "config").mkdir()
    shutil.copy(TABLES / "config.yaml", tmp_path / "config")
    shutil.copy(TABLES / "samples.tsv", tmp_path)
    header, first, *_ = (TABLES / "samples.tsv").read_text().splitlines(keepends=True)
    (tmp_path / "other.tsv").write_text(header + first)
    return tmp_path


def planned(run):
    """Samples that are ingested, of a dry run's output."""
    assert run.returncode == 0, run.stdout[-3000:]
    return {
        line.split("sample=")[1].strip()
        for line in run.stdout.splitlines()
        if "wildcards: sample=" in line
    }


EVERYTHING = {"wildtype_1", "wildtype_2", "knockout_1"}
TARGET = "results/corpus/embryo/manifest.json"


@pytest.mark.parametrize(
    ("options", "samples"),
    [
        ([], EVERYTHING),
        (["--config", "seed=2"], EVERYTHING),
        (["--config", "samples=other.tsv"], {"wildtype_1"}),
        (["--config", "samples=other.tsv", "seed=2"], {"wildtype_1"}),
    ],
)
def test_config_changes_the_default_study(project, options, samples):
    run = call(project, TARGET, "--dry-run", "--force", *options)
    assert planned(run) == samples


def test_a_configfile_is_a_study_of_its_own(project):
    # It lacks what the default study has, and does not get it from there.
    (project / "my.yaml").write_text("samples: other.tsv\n")
    run = call(project, TARGET, "--dry-run", "--configfile", "my.yaml")
    assert run.returncode != 0
    assert "my.yaml: the key 'reference' is missing." in run.stdout


def test_several_configfiles_are_laid_over_each_other_and_config_over_them(project):
    content = yaml.safe_load((project / "config/config.yaml").read_text())
    (project / "config/config.yaml").unlink()
    (project / "my.yaml").write_text(yaml.safe_dump(content))
    (project / "more.yaml").write_text("samples: other.tsv\n")
    files = ["--configfile", "my.yaml", "more.yaml"]
    assert planned(call(project, TARGET, "--dry-run", "--force", *files)) == {"wildtype_1"}
    run = call(project, TARGET, "--dry-run", "--force", *files, "--config", "samples=samples.tsv")
    assert planned(run) == EVERYTHING


def test_what_config_changes_reaches_the_jobs_and_results_may_lie_anywhere(project):
    """For real: each job of a script reads the config anew, in a process of its own."""
    place = project / "scratch" / "proj-12" / "results.v2"
    path = project / "config/config.yaml"
    config = path.read_text().replace("results/simulation", f"{place}/simulation")
    path.write_text(config.replace("results/grn", f"{place}/grn"))
    sheet = (project / "other.tsv").read_text()
    (project / "other.tsv").write_text(sheet.replace("results/simulation", f"{place}/simulation"))
    options = ["--config", "samples=other.tsv", f"results={place}"]
    target = f"{place}/ingest/wildtype_1.qc.svg"
    run = call(project, target, *options)
    assert run.returncode == 0, run.stdout[-3000:]
    assert [path.name for path in (place / "ingest").glob("*.preflight.tsv")] == [
        "wildtype_1.preflight.tsv"
    ]
    assert not (project / "results").exists()
    run = call(project, target, *options)
    assert "Nothing to be done" in run.stdout, run.stdout[-3000:]
    run = call(project, target, *options, "--report", "report.html")
    assert run.returncode == 0, run.stdout[-3000:]
    assert (project / "report.html").stat().st_size
