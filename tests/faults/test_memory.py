"""Jobs that run out of memory."""

from pathlib import Path

import pytest
from conftest import STAGES, log_of, remove, snakemake, state

HEAVY = [
    "ingest_sample", "make_corpus", "compute_pca", "choose_cells", "infer_adjacencies",
    "merge_adjacencies",
    "find_motifs", "make_regulons", "score_regulons", "write_tokens", "pretrain", "embed",
    "gather_spaces", "encode_cells", "finetune", "fit_baselines", "fit_weights", "evaluate_task",
    "explain", "rank_drivers", "check_explanation", "perturb_in_silico", "make_development",
    "make_perturbation",
]  # fmt: skip
QUICK = {"make_corpus", "finetune"}


@pytest.mark.parametrize(
    "rule", [pytest.param(r, marks=[] if r in QUICK else pytest.mark.slow) for r in HEAVY]
)
def test_too_little_memory_ends_a_rule_in_one_sentence_and_leaves_nothing(rule, study):
    target = STAGES[rule]
    remove(study / target)
    before = state(study)
    short = {
        "PYTHONPATH": str(Path(__file__).parent / "short_of_memory"),
        "FAULTS_LOG": log_of(rule, target),
        "FAULTS_ROOM": str(2**21),
    }
    # Snakemake would keep PYTHONPATH from the jobs.
    run = snakemake(study, target, "--notemp", "--conda-not-block-search-path-envvars", **short)
    assert run.returncode != 0
    # Some rules are tried again, and say it again.
    said = {line for line in run.stdout.splitlines() if line.startswith("Error: out of memory")}
    assert said and all("--set-resources" in sentence for sentence in said), run.stdout[-3000:]
    after = state(study)
    assert {name for name in after if before.get(name) != after[name]} == set()
