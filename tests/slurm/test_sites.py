"""Other profiles, partitions, GPUs by gres, several nodes; on copies of the finished study."""

import json
import re
import shutil
import signal
import socket

import pytest
import yaml
from conftest import REPOSITORY

EMBEDDING = "results/embed/small/embryo.zarr"
FIGURE = "results/ingest/wildtype_1.qc.svg"
PARTITIONS = {
    "cpu": {"max_runtime": 2880, "max_mem_mb": 500000, "max_threads": 16},
    "gpu": {"max_runtime": 1440, "max_mem_mb": 250000, "max_threads": 16, "max_gpu": 1},
}


@pytest.fixture
def study(record, tmp_path):
    """A finished study that lacks one output of a GPU and one of a CPU rule."""
    folder = shutil.copytree(record.folder, tmp_path / "study", symlinks=True)
    shutil.rmtree(folder / EMBEDDING)
    (folder / FIGURE).unlink()
    return folder


def write_profile(folder, **settings):
    """Lay out a facility's own profile named slurm; returns where Snakemake looks for it."""
    profile = folder / "snakemake/slurm"
    profile.mkdir(parents=True)
    (profile / "config.yaml").write_text(
        yaml.safe_dump({"executor": "slurm", "jobs": 10} | settings)
    )
    return folder


def jobs_of(slurm, before):
    return {job.rule: job for job in slurm.jobs() if job.number > before}


def test_a_facilitys_own_profile_works_and_its_partitions_are_chosen_by_what_jobs_ask(
    slurm, study, run_in, tmp_path
):
    partitions = tmp_path / "partitions.yaml"
    partitions.write_text(yaml.safe_dump({"partitions": PARTITIONS}))
    profiles = write_profile(
        tmp_path / "xdg",
        **{"slurm-partition-config": str(partitions), "slurm-jobname-prefix": "facility"},
    )
    before = len(slurm.jobs())
    run = run_in(study, EMBEDDING, FIGURE, "--rerun-triggers", "mtime", profiles=profiles)
    run.finish(300)
    assert "SLURM run ID: facility_" in run.said()
    jobs = jobs_of(slurm, before)
    found = {rule: (job.partition, job.n_gpus, job.state) for rule, job in jobs.items()}
    assert found == {"embed": ("gpu", 1, "COMPLETED"), "plot_qc": ("cpu", 0, "COMPLETED")}


def test_gpus_are_asked_for_by_gres_and_partitions_by_name_as_the_profiles_page_says(
    slurm, study, run_in, tmp_path
):
    page = (REPOSITORY / "profiles/slurm/README.md").read_text()
    by_gres, by_name = (
        yaml.safe_load(page.split(f"<!-- {name} -->\n\n```yaml\n")[1].split("```")[0])
        for name in ("gres", "partition")
    )
    asked = {
        rule: by_gres["set-resources"][rule] | {"slurm_partition": "gpu"}
        for rule in by_name["set-resources"]
    }
    profiles = write_profile(
        tmp_path / "xdg",
        **{"set-resources": asked, "default-resources": {"slurm_partition": "cpu"}},
    )
    before = len(slurm.jobs())
    run_in(
        study, EMBEDDING, FIGURE, "--rerun-triggers", "mtime", profiles=profiles
    ).finish(300)  # fmt: skip
    jobs = jobs_of(slurm, before)
    found = {rule: (job.partition, job.n_gpus, job.state) for rule, job in jobs.items()}
    assert found == {"embed": ("gpu", 1, "COMPLETED"), "plot_qc": ("cpu", 0, "COMPLETED")}


def pretrain(record, run_in, folder, *options, training=None, **settings):
    """Pretrain in a copy of the study with other settings; returns the run."""
    shutil.copytree(record.folder, folder, symlinks=True)
    shutil.rmtree(folder / "results/pretrain/small")
    (folder / "results/logs/pretrain/small.log").unlink()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["models"]["small"] |= settings
    config["models"]["small"]["training"] |= training or {}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    target = "results/pretrain/small/model.safetensors"
    return run_in(folder, target, "--rerun-triggers", "mtime", *options)


def has_a_name():
    """Tell whether this machine's name leads to it, as a node's must for others to find it."""
    try:
        return bool(socket.gethostbyname(socket.gethostname()))
    except OSError:
        return False


@pytest.mark.skipif(not has_a_name(), reason="the name of this machine leads nowhere")
def test_pretraining_over_two_nodes_gives_the_loss_of_one_that_adds_up(
    slurm, record, run_in, tmp_path
):
    before = len(slurm.jobs())
    one, two = tmp_path / "one", tmp_path / "two"
    runs = [
        # As many cells at once as each of two has; 16 are compared with each other.
        pretrain(record, run_in, one, training={"batch_size": 32, "micro_batch": 16}),
        pretrain(record, run_in, two, training={"batch_size": 32}, nodes=2),
    ]
    for run in runs:
        run.finish(400)
    jobs = {job.n_nodes: job for job in slurm.jobs() if job.number > before}
    assert (jobs[2].state, jobs[2].nodes, jobs[2].n_gpus) == ("COMPLETED", "node[1-2]", 2)
    assert (jobs[1].state, jobs[1].n_gpus) == ("COMPLETED", 1)
    log = (two / "results/logs/pretrain/small.log").read_text()
    assert "starting 1 processes on each of 2 nodes" in log
    alone, together = (
        json.loads((folder / "results/pretrain/small/scores.json").read_text())
        for folder in (one, two)
    )
    assert together == pytest.approx(alone, rel=1e-4)


def test_pretraining_that_meets_its_time_limit_is_saved_and_goes_on(
    slurm, record, run_in, tmp_path
):
    before = len(slurm.jobs())
    log = tmp_path / "study/results/logs/pretrain/small.log"
    limit = ("--set-resources", "pretrain:runtime=1+9*(attempt-1)")
    run = pretrain(record, run_in, tmp_path / "study", *limit, training={"epochs": 100_000})

    def timed_out():  # whether or not its second job was submitted by then
        jobs = [job for job in slurm.jobs() if job.number > before and job.rule == "pretrain"]
        return any(job.state == "TIMEOUT" for job in jobs)

    run.until(timed_out, "time limit", 200)
    stopped = run.until(
        lambda: re.search(r"stopped by a signal after step (\d+) of", log.read_text()),
        "sentence of what was saved", 15,
    )  # fmt: skip

    def goes_on():
        # Removed when the second job begins.
        said = log.read_text() if log.exists() else "stopped"
        return "stopped" not in said and re.search(r"epoch \d+: step (\d+)", said)

    first = run.until(goes_on, "second job", 120)
    run.end(signal.SIGINT)
    assert int(first[1]) > int(stopped[1]) > 100
