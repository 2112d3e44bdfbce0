"""Two runs in one folder, and clocks that jump."""

import os
import subprocess
import time

from conftest import GRN, STAGES, command, differences, remove, snakemake

DAY = 24 * 3600


def test_a_second_run_in_a_folder_is_refused_and_the_first_is_not_disturbed(study, stages):
    target = STAGES["make_spatial"]
    remove(study / target)
    first = subprocess.Popen(
        command(study, target, "--notemp"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    while not any(study.glob(".snakemake/locks/*")):
        time.sleep(0.05)
    second = snakemake(study, target)
    assert second.returncode != 0
    assert "Directory cannot be locked" in second.stdout
    assert "--unlock" in second.stdout
    output, _ = first.communicate()
    assert first.returncode == 0, output[-3000:]
    assert differences(stages, study) == []


def test_inputs_from_the_future_stop_a_run_until_their_times_are_set_right(study, stages):
    target, source = STAGES["make_corpus"], study / STAGES["ingest_sample"]
    remove(study / target)
    future = time.time() + DAY
    os.utime(source, (future, future))
    run = snakemake(study, target)
    assert run.returncode != 0
    assert "older modification time" in run.stdout and "clock skew" in run.stdout
    assert not (study / target).exists()
    os.utime(source)
    run = snakemake(study, target)
    assert run.returncode == 0, run.stdout[-3000:]
    assert differences(stages, study) == []


def test_a_clock_set_back_costs_time_and_changes_nothing(study, stages):
    # As if the clock had been a day ahead until the cells were chosen.
    sources = [study / f"{GRN}/expression.h5ad", study / f"{GRN}/cells.tsv"]
    times = (time.time() - 3600, time.time() - 3600)
    for path in study.joinpath("results").rglob("*"):
        if path.is_file() and path not in sources:
            os.utime(path, (times[0] - DAY, times[1] - DAY))
    for source in sources:
        os.utime(source, times)
    plan = snakemake(study, f"{GRN}/runs/1/adjacencies.npz", "--dry-run").stdout
    assert "infer_adjacencies" in plan and "choose_cells" not in plan
    run = snakemake(study, f"{GRN}/runs/1/adjacencies.npz")
    assert run.returncode == 0, run.stdout[-3000:]
    assert differences(stages, study) == []
