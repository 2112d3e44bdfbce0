"""After every kind of change one call plans what follows from it, and a second call nothing.

But for the last test, the study's files hold their names alone and its results are touched, not
computed: a plan goes by names, times, params and sets of inputs, and Snakemake records these when
it touches a result, too.
"""

import os
import re
import shutil
import time

import pytest
import yaml
from conftest import snakemake

TRAINING = {"epochs": 1, "batch_size": 128, "learning_rate": 0.001}
OF_HEAD = {"batch_size": 8, "learning_rate": 0.001}
CONFIG = {
    "samples": "samples.tsv",
    "reference": {"annotation": "genes.gtf", "tfs": "tfs.txt"},
    # Nothing is asked of the second; its samples and their labels are none of the first's.
    "corpora": {"all": {"samples": ["A", "B"]}, "other": {"samples": ["O"]}},
    "grn": {"seeds": [1, 2], "left_out_share": 0},
    "models": {"m": {"corpus": "all", "cells": {"condition": ["control"]}, "training": TRAINING}},
    "tasks": {
        "t": {
            "model": "m",
            "label": "cell_type",
            "train": {"condition": ["control"]},
            "predict": {"condition": ["treated"]},
            "folds": 2,
            "seeds": [1],
            "baselines": ["majority", "logistic_regression"],
            "training": OF_HEAD,
        }
    },
    "studies": {
        "s": {
            "kind": "perturbation",
            "task": "t",
            "control": {"condition": ["control"]},
            "perturbed": {"condition": ["treated"]},
        }
    },
}
SHEET = """sample\tkind\tpath\tmetadata\tcondition
A\t10x\tA/outs\tA.csv\tcontrol
B\t10x\tB/outs\tB.csv\ttreated
O\t10x\tO/outs\tO.csv\tcontrol
"""
# What follows from what, stage by stage.
FIGURES = {"make_perturbation": 1}
SCORES = {"score": 1, "write_provenance": 1}
EXPLANATION = {
    **dict.fromkeys(("explain", "rank_drivers", "check_explanation", "perturb_in_silico"), 1),
    "plot_explanation": 1,
}
EVALUATION = {"evaluate_task": 1, **FIGURES, **SCORES}
TASK = {
    **{"split_cells": 1, "fit_baselines": 2, "fit_weights": 2, "encode_cells": 1, "finetune": 2},
    **EXPLANATION,
    **EVALUATION,
}
LABELS = {
    **dict.fromkeys(("join_cells", "compare_regulons", "gather_spaces", "judge_embedding"), 1),
    **TASK,
}
COUNTS = {
    **LABELS,
    **dict.fromkeys(("make_corpus", "compute_pca", "choose_cells", "time_inference"), 1),
    "merge_adjacencies": 1,
    **dict.fromkeys(("make_regulons", "score_regulons", "write_tokens", "pretrain"), 1),
    **dict.fromkeys(("plot_training", "embed"), 1),
    "infer_adjacencies": 2,
}
# Of the corpus that no model reads.
OF_OTHER = {
    **dict.fromkeys(("join_cells", "compare_regulons", "make_corpus", "compute_pca"), 1),
    "choose_cells": 1,
    **dict.fromkeys(("time_inference", "merge_adjacencies", "make_regulons", "score_regulons"), 1),
    "write_tokens": 1,
    "infer_adjacencies": 2,
}
EXAMINED = {"examine_metadata": 1, "gather_preflight": 1}
ONE_SAMPLE = {"examine_sample": 1, "ingest_sample": 1, "plot_qc": 1}


def both(one, other):
    """Jobs of two corpora together."""
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def dry_run(folder):
    run = snakemake(folder, folder / "config.yaml", "--dry-run")
    assert run.returncode == 0, run.stdout[-3000:]
    return run.stdout


def jobs(listed):
    """Rules that a dry run lists, with how many jobs each."""
    if "Nothing to be done" in listed:
        return {}
    stats = listed.partition("Job stats:")[2].partition("total")[0]
    found = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", stats, re.M)}
    found.pop("all", None)
    return found


def finish(folder, listed):
    """Leave the study as one call would: what is listed is there, newer than its inputs.

    Nothing else is touched, so that a job that was needed and not listed still waits.
    """
    made = [
        name
        for outputs in re.findall(r"^    output: (.+)$", listed, re.M)
        for name in outputs.split(", ")
    ]
    if not made:
        return
    for name in made:
        path = folder / name
        if path.suffix not in ("", ".zarr") or "checkpoints" in name:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name}\n")
        else:  # of a folder, such as tokens
            path.mkdir(parents=True, exist_ok=True)
            (path / "file").write_text(f"{name}\n")
        # Numbers that the resources of jobs are read from.
        if path.suffix == ".zarr":
            (path / "zarr.json").write_text('{"attributes": {"scdyn": {"n_cells": 1}}}')
        if path.name in ("pilot.json", "manifest.json"):
            path.write_text('{"job_memory_mb": 1, "job_minutes": 1, "n_cells": 1}')
    # By force: what is newer than its inputs would be left without a record.
    run = snakemake(folder, folder / "config.yaml", "--touch", "--force", *made)
    assert run.returncode == 0, run.stdout[-3000:]
    assert jobs(run.stdout) == jobs(listed)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    (folder / "samples.tsv").write_text(SHEET)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    for name in ("genes.gtf", "tfs.txt", "A.csv", "B.csv", "O.csv"):
        (folder / name).write_text(f"{name}\n")
    for sample in "ABCO":
        (folder / sample / "outs").mkdir(parents=True)
        for name in ("filtered_feature_bc_matrix.h5", "atac_fragments.tsv.gz"):
            (folder / sample / "outs" / name).write_text(f"{sample} {name}\n")
    finish(folder, dry_run(folder))
    assert not jobs(dry_run(folder))
    return folder


@pytest.fixture
def study(finished, tmp_path):
    """A finished study of one's own, with the times of its files."""
    folder = tmp_path / "study"
    shutil.copytree(finished, folder, symlinks=True)
    return folder


def configure(folder, change):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    change(config)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def write(folder, name, text):
    time.sleep(0.01)
    (folder / name).write_text(text)
    now = time.time()
    os.utime(folder / name, (now, now))


def sheet(folder, *change):
    write(folder, "samples.tsv", SHEET.replace(*change))


def samples(folder, *names):
    configure(folder, lambda config: config["corpora"]["all"].update(samples=[*names]))


CHANGES = {
    "a label of another corpus": (
        lambda f: write(f, "O.csv", "another\n"),
        {**EXAMINED, "join_cells": 1, "compare_regulons": 1},
    ),
    "a label": (lambda f: write(f, "A.csv", "another\n"), {**EXAMINED, **LABELS}),
    "a column of the metadata": (lambda f: write(f, "B.csv", "more\n"), {**EXAMINED, **LABELS}),
    "a covariate": (lambda f: sheet(f, "\ttreated", "\tknockout"), LABELS),
    "a covariate that chooses the cells to pretrain on": (
        lambda f: sheet(f, "\ttreated", "\tcontrol"),
        {**LABELS, "pretrain": 1, "plot_training": 1, "embed": 1},
    ),
    "a covariate more": (
        lambda f: write(
            f,
            "samples.tsv",
            SHEET.replace("n\n", "n\tage\n").replace("l\n", "l\t1\n").replace("d\n", "d\t2\n"),
        ),
        both(LABELS, {"join_cells": 1, "compare_regulons": 1}),
    ),
    "a sample added": (
        lambda f: [
            sheet(f, "A\t10x", "C\t10x\tC/outs\tA.csv\tcontrol\nA\t10x"),
            samples(f, "C", "A", "B"),
        ],
        {**EXAMINED, **ONE_SAMPLE, **COUNTS},
    ),
    "a sample removed": (
        lambda f: [sheet(f, SHEET.splitlines(keepends=True)[2], ""), samples(f, "A")],
        {**EXAMINED, **COUNTS},
    ),
    "a matrix replaced in place": (
        lambda f: write(f, "A/outs/filtered_feature_bc_matrix.h5", "another\n"),
        {**EXAMINED, **ONE_SAMPLE, **COUNTS},
    ),
    "a matrix replaced by an older one": (
        lambda f: [
            (f / "A/outs/filtered_feature_bc_matrix.h5").write_text("the one of last year\n"),
            os.utime(f / "A/outs/filtered_feature_bc_matrix.h5", (1e9, 1e9)),
        ],
        {**EXAMINED, **ONE_SAMPLE, **COUNTS},
    ),
    "a label in an older table": (
        lambda f: [
            (f / "A.csv").write_text("the labels of last year\n"),
            os.utime(f / "A.csv", (1e9, 1e9)),
        ],
        {**EXAMINED, **LABELS},
    ),
    "fragments replaced in place": (
        lambda f: write(f, "A/outs/atac_fragments.tsv.gz", "others\n"),
        {"gather_preflight": 1, **ONE_SAMPLE, **COUNTS},
    ),
    # Snakemake would take results for current whose input is not there.
    "a path that leads nowhere": (
        lambda f: sheet(f, "A/outs", "D/outs"),
        {**EXAMINED, **ONE_SAMPLE, **COUNTS},
    ),
    "a table of cells that is not there": (
        lambda f: (f / "A.csv").unlink(),
        {**EXAMINED, **LABELS},
    ),
    "an index added": (lambda f: write(f, "A/outs/atac_fragments.tsv.gz.tbi", ""), {}),
    "a bound of QC": (
        lambda f: configure(f, lambda c: c.update(ingest={"qc": {"min_genes": 7}})),
        both({"ingest_sample": 3, "plot_qc": 3, **COUNTS}, OF_OTHER),
    ),
    # Snakemake takes a rule's params as a set of values without names.
    "two settings that change places": (
        lambda f: configure(f, lambda c: c["reference"].update(upstream=500, downstream=1500)),
        both(
            {
                "examine_sample": 3,
                "gather_preflight": 1,
                "ingest_sample": 3,
                "plot_qc": 3,
                **COUNTS,
            },
            OF_OTHER,
        ),
    ),
    "the order of the sheet and of a corpus": (
        lambda f: [
            write(f, "samples.tsv", "".join(sorted(SHEET.splitlines(keepends=True), reverse=True))),
            samples(f, "B", "A"),
        ],
        {"write_provenance": 1},
    ),
    "a variant": (
        lambda f: configure(
            f, lambda c: c["tasks"]["t"].update(variants={"rna": {"modalities": "rna"}})
        ),
        {"gather_preflight": 1, "encode_cells": 1, "finetune": 2, **EVALUATION},
    ),
    "a variant of the training": (
        lambda f: configure(
            f, lambda c: c["tasks"]["t"].update(variants={"slow": {"learning_rate": 0.0001}})
        ),
        {"gather_preflight": 1, "finetune": 2, **EVALUATION},
    ),
    "a seed": (
        lambda f: configure(f, lambda c: c["tasks"]["t"].update(seeds=[1, 2])),
        {
            **{"gather_preflight": 1, "fit_baselines": 2, "finetune": 2},
            **EXPLANATION,
            **EVALUATION,
        },
    ),
    "a baseline": (
        lambda f: configure(f, lambda c: c["tasks"]["t"]["baselines"].append("knn")),
        {"fit_baselines": 2, **EVALUATION},
    ),
    "no baselines": (
        lambda f: configure(f, lambda c: c["tasks"]["t"].update(baselines=[])),
        EVALUATION,
    ),
    "a share of the labels": (
        lambda f: configure(f, lambda c: c["tasks"]["t"].update(label_shares=[0.5])),
        {"gather_preflight": 1, "fit_baselines": 2, "finetune": 2, **EVALUATION},
    ),
    "the weights of classes": (
        lambda f: configure(f, lambda c: c["tasks"]["t"].update(class_weights="none")),
        {name: n for name, n in TASK.items() if name not in ("split_cells", "encode_cells")}
        | {"gather_preflight": 1},
    ),
    "gpus and nodes": (
        lambda f: configure(f, lambda c: c["models"]["m"].update(gpus=4, nodes=2)),
        {"write_provenance": 1},
    ),
    "micro_batch and compiled": (
        lambda f: configure(
            f,
            lambda c: [
                c[kind][name]["training"].update(micro_batch=2, compiled=False)
                for kind, name in (("models", "m"), ("tasks", "t"))
            ],
        ),
        {"write_provenance": 1},
    ),
    "device": (
        lambda f: configure(f, lambda c: c.update(device="cpu")),
        {"write_provenance": 1},
    ),
    "a setting of how cells are explained": (
        lambda f: configure(f, lambda c: c["tasks"]["t"].update(steps=4)),
        {**EXPLANATION, **FIGURES, **SCORES},
    ),
    "a setting of a figure": (
        lambda f: configure(f, lambda c: c["studies"]["s"].update(replicate="condition")),
        {**FIGURES, "write_provenance": 1},
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_one_call_plans_what_follows_and_a_second_nothing(study, name):
    change, expected = CHANGES[name]
    change(study)
    listed = dry_run(study)
    assert jobs(listed) == expected
    finish(study, listed)
    assert not jobs(dry_run(study))


def test_a_job_that_the_first_call_left_out_is_planned_by_the_second(study):
    """Else the test above could not fail."""
    change, _ = CHANGES["a variant"]
    change(study)
    lines = dry_run(study).splitlines(keepends=True)
    left_out = ("write_provenance", "provenance.json")
    finish(study, "".join(li for li in lines if not any(name in li for name in left_out)))
    assert jobs(dry_run(study)) == {"write_provenance": 1}


@pytest.mark.parametrize("key", ["annotation", "tfs"])
def test_a_file_that_the_config_names_and_that_is_not_there_is_refused(study, key):
    configure(study, lambda c: c["reference"].update({key: "nowhere.gtf"}))
    run = snakemake(study, study / "config.yaml", "--dry-run")
    assert run.returncode != 0
    assert f"config.yaml: reference.{key}: nowhere.gtf: no such file" in run.stdout


def test_gene_sets_that_are_not_there_are_refused_unless_a_rule_makes_them(study):
    sets = {"gene_sets": "nowhere.gmt"}
    configure(study, lambda c: c["tasks"]["t"].update(sets))
    run = snakemake(study, study / "config.yaml", "--dry-run")
    assert run.returncode != 0
    assert "config.yaml: tasks.t.gene_sets: nowhere.gmt: no such file" in run.stdout
    sets["gene_sets"] = "results/grn/other/regulons.gmt"
    configure(study, lambda c: c["tasks"]["t"].update(sets))
    (study / sets["gene_sets"]).unlink()
    planned = jobs(dry_run(study))
    assert planned["make_regulons"] == planned["rank_drivers"] == 1


def test_a_model_of_cells_chosen_by_label_follows_the_labels(study):
    configure(study, lambda c: c["models"]["m"].update(cells={"cell_type": ["neuron"]}))
    listed = dry_run(study)
    assert "pretrain" in jobs(listed)
    finish(study, listed)
    assert not jobs(dry_run(study))
    write(study, "A.csv", "another\n")
    planned = jobs(dry_run(study))
    assert planned["pretrain"] == 1
    assert not set(planned) & {"ingest_sample", "make_corpus", "make_regulons", "write_tokens"}


@pytest.mark.parametrize(("key", "remade"), [("sample", 0), ("donor", 0), ("tissue", 1)])
def test_a_model_follows_the_batches_that_it_is_given(study, key, remade):
    """A corrected label does not pretrain again, if the sample sheet has the batches."""
    rows = [f"{row}\t{donor}" for row, donor in zip(SHEET.splitlines(), "-xyx", strict=True)]
    write(study, "samples.tsv", "\n".join(["\t".join([SHEET.splitlines()[0], "donor"]), *rows[1:]]))
    configure(study, lambda c: c["models"]["m"].update(batch_key=key))
    listed = dry_run(study)
    assert jobs(listed)["pretrain"] == 1
    finish(study, listed)
    assert not jobs(dry_run(study))
    write(study, "A.csv", "another\n")
    assert jobs(dry_run(study)).get("pretrain", 0) == remade


@pytest.mark.slow
def test_a_corrected_label_reaches_the_splits_by_one_call_and_no_count_is_remade(
    small_study, tmp_path
):
    folder = tmp_path / "study"
    shutil.copytree(small_study, folder, symlinks=True)
    target, table = "results/finetune/fate/splits.tsv", "results/simulation/cell_metadata.tsv"
    header, *rows = (folder / table).read_text().splitlines(keepends=True)
    wrong = next(row for row in rows if row.startswith("wildtype_1") and "\tsomite\t" in row)
    write(
        folder,
        table,
        header
        + "".join(r for r in rows if r != wrong)
        + wrong.replace("\tsomite\t", "\tneural_tube\t"),
    )
    cell = "_".join(wrong.split("\t")[:2])
    run = snakemake(folder, folder / "config.yaml", target)
    assert run.returncode == 0, run.stdout[-3000:]
    ran = set(re.findall(r"^(?:local)?rule (\w+):", run.stdout, re.M))
    assert ran == {"examine_metadata", "join_cells", "split_cells"}
    labels = dict(line.split("\t")[:2] for line in (folder / target).read_text().splitlines())
    before = dict(line.split("\t")[:2] for line in (small_study / target).read_text().splitlines())
    assert {name for name in labels if labels[name] != before.get(name)} <= {cell}
    if cell in labels:
        assert labels[cell] == "neural_tube"
    assert "Nothing to be done" in snakemake(folder, folder / "config.yaml", target).stdout
