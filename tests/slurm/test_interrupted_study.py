"""The small study on Slurm, with all that befalls a run on a cluster; it ends whole."""

import json
import subprocess

from conftest import REPOSITORY
from study_summary import GOLDEN, differences, summary


def test_its_tables_are_those_of_a_run_on_one_machine_and_nothing_is_left_to_do(record):
    found, golden = summary(record.folder / "results"), json.loads(GOLDEN.read_text())
    assert not differences(found, golden)
    assert len(found["scores"]) > 50
    done = subprocess.run(
        [
            "snakemake", "--dry-run", "--cores", "1", "--sdm", "conda",
            "--snakefile", REPOSITORY / "Snakefile",
            "--directory", record.folder,
            "--configfile", record.folder / "config.yaml",
            "--conda-prefix", REPOSITORY / ".snakemake" / "conda",
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    assert "Nothing to be done" in done.stdout + done.stderr, done.stdout[-3000:]


def test_gpu_rules_share_the_two_gpus_and_cpu_rules_run_beside_them(record):
    ran = [job for job in record.jobs if job.start > 0 and job.end > job.start]
    on_gpu = [job for job in ran if job.n_gpus]
    assert {job.rule for job in on_gpu} == {
        "pretrain", "embed", "encode_cells", "explain", "check_explanation", "perturb_in_silico"
    }  # fmt: skip
    # Here each fine-tuning trains a head alone.
    assert record.of("finetune")
    assert all(job.n_gpus == 1 for job in on_gpu)
    # How many of them ran when each began; one that ends in that second has gone already.
    together = [sum(o.start <= job.start < o.end for o in on_gpu) for job in on_gpu]
    assert max(together) == 2
    beside = [
        job for job in ran
        if not job.n_gpus and any(o.start <= job.start < o.end for o in on_gpu)
    ]  # fmt: skip
    assert beside


def test_jobs_asked_for_what_their_rules_say(record):
    pretrain = record.of("pretrain")[0]
    # A base, and a little for the few cells of the corpus.
    assert pretrain.n_cpus == 8 and 10_000 < pretrain.memory_mb < 10_100
    assert 5000 < record.of("choose_cells")[0].memory_mb < 5100


def test_a_cancelled_job_is_tried_again_with_more(record):
    cancelled = record.seen["cancelled"]
    # A third, if the controller went when the second began.
    first, second, *others = [
        job for job in record.of("finetune")
        if job.wildcards == cancelled.wildcards and job.number >= cancelled.number
    ]  # fmt: skip
    assert (first.state, [second, *others][-1].state) == ("CANCELLED", "COMPLETED")
    assert 2 * first.memory_mb - 1 <= second.memory_mb <= 2 * first.memory_mb


def test_a_job_out_of_memory_is_tried_again_with_more(record):
    first, *others = record.of("judge_embedding")
    assert first.state in ("FAILED", "OUT_OF_MEMORY") and first.memory_mb == 400
    assert others[-1].state == "COMPLETED" and others[-1].memory_mb >= 800
    logs = record.folder.glob(f".snakemake/slurm_logs/rule_judge_embedding/*/{first.number}.log")
    assert "exceeded memory limit" in next(logs).read_text()


def test_a_killed_run_leaves_its_jobs_and_a_lock_and_goes_on_after_both_are_removed(record):
    assert record.seen["left by SIGKILL"]
    assert "--unlock" in record.said["locked"]


def test_ctrl_c_ends_the_jobs_and_pretraining_goes_on_where_it_was(record):
    assert not record.seen["left by SIGINT"]
    assert "--unlock" not in record.said["interrupted"]
    states = [job.state for job in record.of("pretrain")]
    assert states == ["CANCELLED", "COMPLETED"]


def test_a_controller_that_comes_back_has_lost_nothing(record):
    jobs = record.of("finetune")
    again = [job for job in jobs if job.state not in ("COMPLETED", "CANCELLED")]
    # A job that was at its very start has no controller to ask, and is tried again.
    for job in again:
        logs = record.folder.glob(f".snakemake/slurm_logs/rule_finetune/*/{job.number}.log")
        assert "Unable to contact slurm controller" in next(logs).read_text()
    done = {job.wildcards for job in jobs if job.state == "COMPLETED"}
    assert {job.wildcards for job in again} <= done
