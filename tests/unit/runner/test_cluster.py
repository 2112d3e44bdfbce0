"""Resources that rules ask for, the Slurm profile, projects of their own, the image."""

import os
import re
import shutil
import subprocess

import pytest
import rule_resources

ROOT = rule_resources.ROOT
INSTRUCTION = re.compile(r"(FROM|LABEL|RUN|COPY) \S+")


def test_memory_and_time_grow_with_each_attempt_except_where_they_are_constant():
    first, third = (
        rule_resources.read_resources(rule_resources.plan_jobs(attempt)) for attempt in (1, 3)
    )
    constant = {rule for rule in first if first[rule] == third[rule]} - {"infer_adjacencies"}
    assert constant == {"plot_qc", "plot_training", "plot_explanation"}
    assert third["write_tokens"].memory_mb == 3 * first["write_tokens"].memory_mb
    assert third["pretrain"].runtime == 3 * first["pretrain"].runtime


@pytest.mark.parametrize("width, threads", [(64, 1), (96, 8)])
def test_a_large_model_is_fine_tuned_by_several_threads(tmp_path, width, threads):
    larger = tmp_path / "larger.yaml"
    larger.write_text(f"models: {{hybrid: {{width: {width}}}}}\n")
    done = subprocess.run(
        ["snakemake", "--dry-run", "--cores=64", "--directory", ROOT, "--nolock",
         "results/finetune/fate/scdynomics_random_start/seed1_fold0/model",
         "--forcerun", "finetune",
         "--configfile", ROOT / "config/demo/config.yaml", larger],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert rule_resources.read_resources(done.stdout)["finetune"].threads == threads


def test_only_local_rules_ask_for_nothing():
    # Each rule's text, to the next one; local ones say so, targets have no output.
    text = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    parts = re.split(r"^ *rule (\w+):\n", text, flags=re.M)[1:]
    rules = dict(zip(parts[::2], parts[1::2], strict=True))
    expected = {n for n, body in rules.items() if "output:" in body and "localrule" not in body}
    assert set(rule_resources.read_resources(rule_resources.plan_jobs(1))) == expected


def link(folder):
    return subprocess.run(
        ["make", "slurm-profile"], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "XDG_CONFIG_HOME": str(folder)},
    ).stdout  # fmt: skip


def test_the_profile_is_linked_where_there_is_none(tmp_path):
    assert "now leads to" in link(tmp_path)
    assert (tmp_path / "snakemake/slurm").resolve() == ROOT / "profiles/slurm"
    assert "left as it is" in link(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "file", "link", "broken link"])
def test_the_profile_is_never_linked_over_another(tmp_path, kind):
    place = tmp_path / "snakemake/slurm"
    place.parent.mkdir()
    other = tmp_path / "other"
    if kind == "folder":
        place.mkdir()
        (place / "config.yaml").write_text("executor: slurm\n")
    elif kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to(other)
        if kind == "link":
            other.mkdir()
    before = os.lstat(place)
    assert "is there already and is left as it is" in link(tmp_path)
    after = os.lstat(place)
    # Not the time of access, which looking at it changes.
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    if kind == "folder":
        assert [path.name for path in place.iterdir()] == ["config.yaml"]


def test_a_project_needs_its_config_alone_and_leaves_the_checkout_as_it_is(tmp_path):
    (tmp_path / "config").mkdir()
    shutil.copy(ROOT / "tests/workflow/samples.tsv", tmp_path / "config")
    text = (ROOT / "tests/workflow/config.yaml").read_text()
    text = text.replace("samples: samples.tsv", "samples: config/samples.tsv")
    (tmp_path / "config/config.yaml").write_text(text)
    planned = subprocess.run(
        ["snakemake", "--snakefile", ROOT / "Snakefile", "--dry-run"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "output: results/ingest/wildtype_1.zarr" in planned.stdout
    assert str(ROOT / "results") not in planned.stdout


def test_the_image_has_the_environments_of_envs():
    configs = [ROOT / name for name in rule_resources.CONFIGS]
    written = subprocess.run(
        ["snakemake", "--configfile", *configs, "--containerize"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    text = (ROOT / "Dockerfile").read_text()
    assert text == written, "run make Dockerfile"
    # Docker joins lines that end in a backslash, and leaves comments out.
    lines = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", " ").splitlines()
    assert all(INSTRUCTION.match(line) for line in lines if line)
    copied = re.findall(r"^COPY (\S+) (\S+)$", text, re.M)
    assert all((ROOT / source).exists() for source, _ in copied)
    environments = {path.stem for path in (ROOT / "envs").glob("*.yaml")} - {"runner"}
    assert {source for source, _ in copied} == {f"envs/{name}.yaml" for name in environments}
    for _, target in copied:
        assert f"--prefix {os.path.dirname(target)} --file {target}" in text
