"""A finished small study, copies of it to break, and how to tell that two are the same."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from study_summary import read

REPOSITORY = Path(__file__).parents[2]
# What no two runs share: how long something took, and what it then needed.
COSTS = {"seconds", "cells_per_second", "peak_memory_gib"}
# These hold nothing else, or the time of day, or how much room the disk has.
NOT_COMPARED = {
    "preflight.tsv",
    "preflight.html",
    "pilot.json",
    "provenance.json",
    "provenance.html",
    "regulons.loom",
    "expression.loom",
}
# An output of every rule; those of peers and downloads are asked for by no small study.
GRN, TASK, EXPLAIN = "results/grn/embryo", "results/finetune/fate", "results/explain/fate"
STAGES = {
    "simulate_study": "results/simulation/tfs.txt",
    "build_vocabulary": "results/reference/genes.tsv",
    "examine_sample": "results/ingest/wildtype_1.preflight.tsv",
    "examine_metadata": "results/corpus/embryo.metadata.tsv",
    "gather_preflight": "results/preflight.tsv",
    "ingest_sample": "results/ingest/wildtype_1.zarr",
    "plot_qc": "results/ingest/wildtype_1.qc.svg",
    "make_corpus": "results/corpus/embryo/manifest.json",
    "compute_pca": "results/corpus/embryo/pca.zarr",
    "join_cells": "results/corpus/embryo/cells.parquet",
    "check_databases": "results/grn/databases.tsv",
    "choose_cells": f"{GRN}/expression.h5ad",
    "time_inference": f"{GRN}/pilot.json",
    "infer_adjacencies": f"{GRN}/runs/1/1-of-3.npz",
    "gather_run": f"{GRN}/runs/1/adjacencies.npz",
    "merge_adjacencies": f"{GRN}/adjacencies.tsv",
    "write_matrix": f"{GRN}/expression.loom",
    "find_motifs": f"{GRN}/runs/1/motifs.tsv",
    "make_regulons": f"{GRN}/regulons.tsv",
    "score_regulons": f"{GRN}/auc.zarr",
    "compare_regulons": f"{GRN}/regulons.svg",
    "export_loom": f"{GRN}/regulons.loom",
    "write_tokens": "results/tokens/embryo",
    "pretrain": "results/pretrain/small/model.safetensors",
    "plot_training": "results/pretrain/small/training.svg",
    "embed": "results/embed/small/embryo.zarr",
    "gather_spaces": "results/embed/small/embryo.spaces.h5ad",
    "judge_embedding": "results/embed/small/embryo.svg",
    "split_cells": f"{TASK}/splits.tsv",
    "encode_cells": f"{TASK}/encoded/scdynomics.zarr",
    # Of all parameters of the adapter, so that it takes a while.
    "finetune": f"{TASK}/scdynomics_nonlinear/seed1_fold0/model",
    "fit_baselines": f"{TASK}/baselines/0.parquet",
    "fit_weights": f"{TASK}/baselines/0.weights.tsv",
    "evaluate_task": f"{TASK}/predictions.parquet",
    "explain": f"{EXPLAIN}/attributions.tsv",
    "rank_drivers": f"{EXPLAIN}/rankings.tsv",
    "check_explanation": f"{EXPLAIN}/checks.json",
    "perturb_in_silico": f"{EXPLAIN}/in_silico.tsv",
    "plot_explanation": f"{EXPLAIN}/drivers.svg",
    "make_development": "results/studies/development/development.svg",
    "plot_driver_trends": "results/studies/development/drivers.svg",
    "make_spatial": "results/studies/spatial/spatial.svg",
    "make_perturbation": "results/studies/perturbation/perturbation.svg",
    "score": "results/scores.json",
    "list_packages": "results/provenance/torch.txt",
    "write_provenance": "results/provenance.json",
}


def command(folder, *options):
    """The command that a study in ``folder`` is run by; it goes on after it was killed."""
    return [
        "snakemake", *options,
        "--snakefile", REPOSITORY / "Snakefile",
        "--directory", folder,
        "--configfile", folder / "config.yaml",
        "--sdm", "conda",
        "--conda-prefix", REPOSITORY / ".snakemake" / "conda",
        "--cores", "2",
        "--rerun-incomplete",
        "--rerun-triggers", "mtime",
    ]  # fmt: skip


def snakemake(folder, *options, **environment):
    """Run a study; returns the finished process with its output as text."""
    return subprocess.run(
        command(folder, *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def log_of(rule, output):
    """The log of a rule's job."""
    names = {
        "ingest_sample": "wildtype_1", "plot_qc": "wildtype_1",
        "infer_adjacencies": "embryo_1_1-of-3", "gather_run": "embryo_1",
        "find_motifs": "embryo_1", "pretrain": "small", "plot_training": "small",
        "finetune": "fate_scdynomics_nonlinear_1_0", "fit_baselines": "fate_0",
        "encode_cells": "fate_scdynomics",
        "fit_weights": "fate_0",
    }  # fmt: skip
    parts = Path(output).parts
    stage = {"embed": "small_embryo", "finetune": "fate", "explain": "fate"}
    stage |= {"tokens": "embryo", "corpus": "embryo", "grn": "embryo"}
    stage |= {"studies": parts[2] if len(parts) > 3 else ""}
    name = names.get(rule) or stage.get(parts[1])
    alone = rule in ("check_databases", "simulate_study")
    return f"results/logs/{rule}.log" if alone or not name else f"results/logs/{rule}/{name}.log"


def lay_out(folder):
    """Put the small study's config and sheet into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.yaml", "samples.tsv"):
        shutil.copy(REPOSITORY / "tests/workflow" / name, folder)
    return folder


def remove(path):
    """Remove a file or a folder."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def copy_study(study, folder):
    """Copy a study with the times of its files."""
    shutil.copytree(study, folder, symlinks=True)
    return folder


def state(folder):
    """Size and time of every file of a study's results but the logs, by path."""
    found = {}
    for path in sorted((folder / "results").rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith("results/logs/"):
            found[name] = path.stat().st_size, path.stat().st_mtime_ns
    return found


def without_costs(value):
    """Leave out what no two runs share."""
    if isinstance(value, dict):
        return {key: without_costs(part) for key, part in value.items() if key not in COSTS}
    return [without_costs(part) for part in value] if isinstance(value, list) else value


def content(path):
    """What a file says, as far as two runs agree about it."""
    if path.suffix in (".tsv", ".parquet"):
        return [without_costs(row) for row in read(path)]
    if path.suffix == ".json":
        return without_costs(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [without_costs(json.loads(line)) for line in path.read_text().splitlines()]
    return path.read_bytes()


def close(one, other):
    """Tell whether two contents are the same, numbers within a millionth."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(close, one, other))
    try:
        return one == other or abs(float(one) - float(other)) <= 1e-6
    except (TypeError, ValueError):
        return False


def differences(study, other):
    """Files of the results that two studies do not share or that differ; [] if none."""
    names = [set(state(each)) for each in (study, other)]
    return sorted(
        name
        for name in names[0] | names[1]
        if Path(name).name not in NOT_COMPARED | {".snakemake_timestamp"}
        and not (
            name in names[0] & names[1]
            and (
                (study / name).read_bytes() == (other / name).read_bytes()
                or close(content(study / name), content(other / name))
            )
        )
    )  # fmt: skip


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The small study, run to its end once for all tests; they copy it and leave it as it is.

    SCDYN_FINISHED names a folder that has it already, which saves five minutes.
    """
    if "SCDYN_FINISHED" in os.environ:
        return Path(os.environ["SCDYN_FINISHED"])
    folder = lay_out(tmp_path_factory.mktemp("finished") / "study")
    run = snakemake(folder)
    assert run.returncode == 0, run.stdout[-6000:]
    return folder


@pytest.fixture(scope="session")
def stages(finished, tmp_path_factory):
    """The finished study, with what is removed once it was used: every rule can be run alone."""
    folder = copy_study(finished, tmp_path_factory.mktemp("stages") / "study")
    matrix = STAGES["write_matrix"]
    run = snakemake(folder, matrix, "--notemp")
    assert run.returncode == 0, run.stdout[-3000:]
    # As old as its input: nothing is made anew for it.
    made = (folder / STAGES["choose_cells"]).stat()
    os.utime(folder / matrix, ns=(made.st_atime_ns, made.st_mtime_ns))
    return folder


@pytest.fixture
def study(stages, tmp_path):
    """A copy to break."""
    return copy_study(stages, tmp_path / "study")
