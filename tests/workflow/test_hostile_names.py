"""Folders, files and labels whose names a shell, a path or a page would act on: they are names.

The first half of the small study is run in such a folder, on such files, up to the rules that call
programs by a shell (pySCENIC). Two minutes.
"""

import csv
import html
import re
import shutil
import subprocess

import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY, snakemake
from study_summary import read

# Runs half a study.
pytestmark = pytest.mark.slow

CALL = "$(touch pwned)`touch pwned`;touch pwned;&|>pwned"
FOLDER = f"a b'c\"{CALL}\\"
SCRIPT = "<script>document.title='pwned'</script>"
LABELS = {
    "progenitor": f"../../pwned {CALL}",
    "somite": SCRIPT,
    "neural_tube": "</script>" + SCRIPT,
    "endothelium": "/pwned/$x_{$",
}
TARGETS = [
    "results/grn/embryo/regulons.loom",
    "results/ingest/wildtype_1.qc.svg",
    "results/corpus/embryo/cells.parquet",
    "results/preflight.html",
]


def on_hostile_files(folder):
    """Change the study to one of files that were brought along, by names of their own."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    place = folder / f"it's in here {CALL.replace('/', '')}"
    shutil.copytree(folder / "results/simulation", place)
    shutil.rmtree(folder / "results")

    def brought(name):
        path = place / f"$(touch pwned) {name}"
        (place / name).rename(path)
        return str(path.relative_to(folder))

    cells = pd.read_csv(place / "cell_metadata.tsv", sep="\t")
    cells["cell_type"] = cells["cell_type"].map(LABELS)
    assert cells["cell_type"].notna().any()
    cells.to_csv(place / "cell_metadata.tsv", sep="\t", index=False)
    rows = pd.read_csv(folder / "samples.tsv", sep="\t", dtype=str, keep_default_na=False)
    rows["path"] = [brought(sample) for sample in rows["sample"]]
    rows["metadata"] = brought("cell_metadata.tsv")
    rows["genotype"] = f"<1 `'\"{CALL}"
    rows.to_csv(folder / "samples.tsv", sep="\t", index=False, quoting=csv.QUOTE_MINIMAL)
    del config["simulation"]
    config["models"]["small"]["cells"] = {}  # no sample has the genotype any more
    config["reference"] = {"annotation": brought("genes.gtf.gz"), "tfs": brought("tfs.txt")}
    config["grn"] |= {
        "method": "fast", "seeds": [1], "left_out_share": 0,
        "rankings": [brought("motifs.genes_vs_motifs.rankings.feather")],
        "annotations": brought("motifs.annotation.tbl"),
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / FOLDER
    folder.mkdir()
    for name in ("samples.tsv", "config.yaml"):
        shutil.copy(REPOSITORY / "tests/workflow" / name, folder)
    run = snakemake(folder, folder / "config.yaml", "results/preflight.tsv")
    assert run.returncode == 0, run.stdout[-3000:]
    on_hostile_files(folder)
    run = snakemake(folder, folder / "config.yaml", *TARGETS)
    assert run.returncode == 0, run.stdout[-3000:]
    return folder


def test_nothing_is_run_and_all_is_made(study):
    for target in TARGETS:
        assert (study / target).stat().st_size
    for place in (study.parent, REPOSITORY, REPOSITORY.parent):
        assert not list(place.glob("pwned*")) and not list(place.glob("*/pwned*"))
    assert not [path for path in study.rglob("*") if path.name == "pwned"]


def test_no_label_names_a_file(study):
    made = [str(path.relative_to(study)) for path in (study / "results").rglob("*")]
    assert len(made) > 30
    assert not [path for path in made if not re.fullmatch(r"[A-Za-z0-9_./-]+", path)]


def test_labels_arrive_as_they_are(study):
    cells = pd.DataFrame(read(study / "results/corpus/embryo/cells.parquet"))
    assert set(cells["cell_type"]) <= {*LABELS.values(), "unassigned", ""}
    assert SCRIPT in set(cells["cell_type"]) and set(cells["genotype"]) == {f"<1 `'\"{CALL}"}


def test_the_figure_of_a_logarithmic_axis_has_numbers(study):
    assert "mathdefault" not in (study / TARGETS[1]).read_text()


def test_nothing_runs_in_the_report(study):
    options = [*TARGETS, "--report", "report.html"]
    run = snakemake(study, study / "config.yaml", *options)
    assert run.returncode == 0, run.stdout[-3000:]
    page = (study / "report.html").read_text()
    assert SCRIPT not in page and CALL in page
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium to open the report in; its text was looked at")
    # By a plain name, which is the browser's to open.
    shutil.copy(study / "report.html", study.parent / "report.html")
    dumped = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu"),
            *("--virtual-time-budget=5000", "--dump-dom"),
            (study.parent / "report.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    assert len(dumped) > 1000
    title = re.search(r"<title>(.*?)</title>", dumped, re.S)
    assert title and html.unescape(title[1]) != "pwned"
