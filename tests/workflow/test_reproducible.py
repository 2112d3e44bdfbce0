"""The small study again gives the same, and what it gave when golden.json was written."""

import json
import math
import shutil

import pytest
from conftest import REPOSITORY, snakemake
from study_summary import GOLDEN, differences, numbers, read, summary


def test_the_small_study_gives_what_it_gave(small_study, pytestconfig):
    found = summary(small_study / "results")
    if pytestconfig.getoption("--update-golden"):
        GOLDEN.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    golden = json.loads(GOLDEN.read_text())
    assert numbers(found).keys() == numbers(golden).keys()
    assert not differences(found, golden)


def test_nothing_is_all_zero_constant_or_not_a_number(small_study):
    results = small_study / "results"
    columns = {
        "grn/embryo/adjacencies.tsv": ["importance", "correlation"],
        "grn/embryo/regulons.tsv": ["weight"],
        "finetune/fate/predictions.parquet": ["p_somite", "familiarity"],
        "explain/fate/attributions.tsv": ["mean"],
        "explain/fate/drivers.tsv": ["mean"],
        "studies/development/development.tsv": ["pseudotime"],
    }
    for name, asked in columns.items():
        rows = read(results / name)
        for column in asked:
            values = [float(row[column]) for row in rows if row[column]]
            assert values and all(map(math.isfinite, values)), (name, column)
            assert len(set(values)) > 2, (name, column)
    golden = json.loads(GOLDEN.read_text())
    assert sum(value != 0 for value in golden["scores"].values()) > 0.8 * len(golden["scores"])
    assert len(golden["predicted"]) > 1 and all(golden["n_kept"].values())


@pytest.mark.slow
def test_a_second_run_gives_the_same_tokens_splits_and_scores(small_study, tmp_path):
    for name in ("samples.tsv", "config.yaml"):
        shutil.copy(REPOSITORY / "tests/workflow" / name, tmp_path)
    parts = ["tokens/embryo", "finetune/knockout/splits.tsv", "pretrain/small/scores.json",
             "finetune/knockout/scdynomics/seed1_fold0/model"]  # fmt: skip
    targets = [f"results/{part}" for part in parts]
    run = snakemake(tmp_path, tmp_path / "config.yaml", *targets)
    assert run.returncode == 0, run.stdout[-3000:]

    first, second = (folder / "results" for folder in (small_study, tmp_path))
    tokens = [f"tokens/embryo/{name}" for name in ("vocabulary.tsv", "regulons.tsv", "meta.json")]
    for file in [*tokens, parts[1]]:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
    scores = [json.loads((results / parts[2]).read_text()) for results in (first, second)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    called = [read(results / parts[3] / "predictions.parquet") for results in (first, second)]
    for one, other in zip(*called, strict=True):
        assert one["predicted"] == other["predicted"]
        assert float(one["p_somite"]) == pytest.approx(float(other["p_somite"]), abs=1e-6)
