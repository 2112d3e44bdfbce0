"""Outputs that are cut short or emptied after they were written."""

import os

import pytest
from conftest import EXPLAIN, GRN, STAGES, TASK, differences, remove, snakemake, state

MODEL, ENCODED = f"{TASK}/scdynomics/seed1_fold0/model", f"{TASK}/encoded/scdynomics.zarr"
# An output of every rule, and one of fine-tuning by which a head alone is trained.
TARGETS = {**STAGES, "finetune_head": MODEL}
TOKENS, SAMPLE = "results/tokens/embryo", "results/ingest/wildtype_1.zarr"
# What is damaged, the rule that reads it next, and what is removed to have it made anew.
DAMAGED = {
    "counts": (f"{SAMPLE}/X/data/c/0", "compute_pca", SAMPLE),
    "manifest": ("results/corpus/embryo/manifest.json", "compute_pca", None),
    "cells": ("results/corpus/embryo/cells.parquet", "split_cells", None),
    "read_by_snakemake": (f"{GRN}/pilot.json", "infer_adjacencies", None),
    "tokens": (f"{TOKENS}/meta.json", "embed", TOKENS),
    "arrays": (f"{GRN}/adjacencies.npz", "make_regulons", None),
    "vocabulary": (f"{TOKENS}/vocabulary.tsv", "explain", TOKENS),
    "model": ("results/pretrain/small/model.safetensors", "embed", None),
    "encoded": (f"{ENCODED}/obsm/X_encoded/c/0/0/0", "finetune_head", ENCODED),
    "head": (f"{MODEL}/head.safetensors", "explain", MODEL),
    "table": (f"{TASK}/splits.tsv", "fit_baselines", None),
    "predictions": (f"{MODEL}/predictions.parquet", "evaluate_task", MODEL),
    "parquet": (f"{TASK}/baselines/0.parquet", "evaluate_task", None),
    "json": (f"{EXPLAIN}/runs.json", "check_explanation", None),
}
QUICK = {"counts", "tokens", "table"}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[] if k in QUICK else pytest.mark.slow) for k in DAMAGED]
)
def test_a_damaged_output_is_refused_by_name_and_made_anew(kind, study, stages):
    damaged, reader, removed = DAMAGED[kind]
    target = TARGETS[reader]
    remove(study / target)
    size = (study / damaged).stat().st_size
    for left in (size // 2, 0):
        os.truncate(study / damaged, left)
        before = state(study)
        run = snakemake(study, target, "--notemp")
        assert run.returncode != 0
        said = [line for line in run.stdout.splitlines() if "Error: " in line and "remove" in line]
        assert len(said) == 1 and (removed or damaged) in said[0], run.stdout[-3000:]
        after = state(study)
        assert {name for name in after if before.get(name) != after[name]} == set()
    remove(study / (removed or damaged))
    run = snakemake(study, target, "--notemp")
    assert run.returncode == 0, run.stdout[-3000:]
    assert differences(stages, study) == []
