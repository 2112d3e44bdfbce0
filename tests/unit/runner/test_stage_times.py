"""How long each stage of a run took, from Snakemake's records of its jobs."""

import json

from scdyn.plotting.stage_times import JobTime, read_jobs, summarise


def write(folder, name, rule, log, begun, ended):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"rule": rule, "log": [log], "starttime": begun, "endtime": ended}
    path.write_text(json.dumps(record))


def test_a_job_of_several_outputs_is_one_and_earlier_runs_are_left_out(tmp_path):
    write(tmp_path, "a", "pretrain", "m.log", 100.0, 160.0)
    write(tmp_path, "b", "pretrain", "m.log", 100.5, 161.0)
    write(tmp_path, "@long/c", "embed", "m.log", 161.0, 170.0)
    write(tmp_path, "d", "embed", "m.log", 10.0, 20.0)
    (tmp_path / "broken").write_text("{")
    write(tmp_path, "e", "running", "r.log", 100.0, None)
    expected = [JobTime("pretrain", 100.0, 161.0), JobTime("embed", 161.0, 170.0)]
    assert read_jobs(tmp_path, 50.0) == expected
    assert read_jobs(tmp_path / "nowhere", 0.0) == []


def test_stages_stand_in_their_order_with_what_took_most():
    jobs = [
        JobTime("pretrain", 0.0, 300.0), JobTime("embed", 300.0, 310.0),
        JobTime("ingest_sample", 0.0, 8.0), JobTime("ingest_sample", 0.0, 9.0),
    ]  # fmt: skip
    stages = {"ingest_sample": "ingest", "plot_qc": "ingest", "find_motifs": "grn",
              "pretrain": "pretrain", "embed": "pretrain"}  # fmt: skip
    assert summarise(jobs, stages).splitlines() == [
        "4 jobs in 5 min:",
        "  stage     jobs  total time  longest rule",
        "  ingest       2        17 s  ingest_sample",
        "  pretrain     2       5 min  pretrain",
    ]
    assert summarise([], stages) == ""
