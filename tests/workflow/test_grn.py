"""Gene regulatory networks: in parts, yet those of pySCENIC; killed, yet whole."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY, snakemake

IN_ENV = REPOSITORY / "tests" / "in_env.sh"
# The matrix as pySCENIC reads it, and the TFs.
WRITE = """
import sys
import loompy, numpy as np
sys.path.insert(0, "workflow/scripts")
from scdyn.grn.expression import read_expression
e = read_expression(sys.argv[1])
cells = np.arange(e.values.shape[0]).astype(str)
loompy.create(sys.argv[2], e.values.T.tocoo(), {"Gene": np.array(e.genes)}, {"CellID": cells})
open(sys.argv[3], "w").write("\\n".join(e.genes[i] for i in e.tfs))
"""
# Activities in pySCENIC's loom and in ours: the largest difference, and the largest activity.
COMPARE = """
import sys, json
import anndata, h5py, numpy as np
ours = anndata.read_zarr(sys.argv[2])
with h5py.File(sys.argv[1]) as loom:
    theirs = loom["col_attrs/RegulonsAUC"][:]
    cells = [c.decode() for c in loom["col_attrs/CellID"][:]]
    names, mine = ours.var_names, ours[cells].X
    scope = {n.replace("_(", "(").replace(" ", ""): n for n in theirs.dtype.names}
    off = [np.abs(theirs[scope[n]] - mine[:, i]).max() for i, n in enumerate(names)]
print(json.dumps([len(cells), len(names), float(max(off)), float(mine.max())]))
"""


def edges(*paths):
    """(TF, target) to importance."""
    found = {}
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            importance, tfs, targets = (file[key] for key in ("importance", "tfs", "targets"))
        for tf, target in np.argwhere(importance).tolist():
            edge = tfs[tf], targets[target]
            assert edge not in found
            found[edge] = importance[tf, target]
    return found


def edges_of_pyscenic(path):
    """(TF, target) to importance, of arboreto's table."""
    with open(path) as file:
        rows = csv.DictReader(file, delimiter="\t")
        return {(row["TF"], row["target"]): float(row["importance"]) for row in rows}


def in_grn(*command, environment="grn"):
    done = subprocess.run(
        [IN_ENV, environment, *command], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_parts_together_are_the_adjacencies_of_pyscenic(small_study, tmp_path):
    grn = small_study / "results" / "grn" / "embryo"
    parts = [path for path in (grn / "runs" / "1").iterdir() if "-of-" in path.name]
    assert len(parts) == 3
    matrix, tfs, of_pyscenic = (tmp_path / name for name in ("m.loom", "tfs.txt", "edges.tsv"))
    in_grn("python", "-c", WRITE, grn / "expression.h5ad", matrix, tfs)
    in_grn(
        "arboreto_with_multiprocessing.py", matrix, tfs, "--method", "grnboost2", "--seed", "1",
        "--num_workers", "2", "--output", of_pyscenic,
    )  # fmt: skip
    expected = edges_of_pyscenic(of_pyscenic)
    assert edges(*parts) == pytest.approx(expected, rel=1e-5)
    assert edges(grn / "runs" / "1" / "adjacencies.npz") == pytest.approx(expected, rel=1e-5)
    assert len(expected) > 1000


def annotate_all(table, output):
    """Annotate every motif for every TF: pySCENIC then keeps each motif's targets with it.

    Where only some of a module's motifs are annotated it does not (aertslab/pySCENIC#635).
    """
    with open(table) as file:
        header, *rows = csv.reader(file, delimiter="\t")
    motif, tf = header.index("#motif_id"), header.index("gene_name")
    named = {row[motif]: row for row in rows}
    tfs = sorted({row[tf] for row in rows})
    with open(output, "w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(header)
        for row in named.values():
            writer.writerows([*row[:tf], name, *row[tf + 1 :]] for name in tfs)


def motifs_of(path):
    """(Regulon, module, database, motif) to the rest of its row."""
    with open(path) as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    found = {}
    for row in rows:
        key = tuple(row.pop(name) for name in ("regulon", "module", "database", "motif"))
        assert key not in found
        found[key] = row | {"targets": row["targets"].split(",")}
    return found


@pytest.mark.slow
def test_motifs_and_their_targets_are_those_of_pyscenic(small_study, tmp_path):
    """Both choices of ``grn.motifs``, through their rules, for all runs; a minute."""
    folder = tmp_path / "motifs"
    shutil.copytree(small_study, folder, symlinks=True)
    annotate_all(folder / "results/simulation/motifs.annotation.tbl", folder / "all.tbl")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["grn"] |= {
        "annotations": "all.tbl", "rank_threshold": 150, "min_targets": 10,
        "mask_dropouts": True, "repressing": True,
    }  # fmt: skip
    runs = ("1", "2", "left_out")
    targets = [f"results/grn/embryo/runs/{run}/motifs.tsv" for run in runs]
    found = {}
    for choice, rule in (("fast", "find_motifs"), ("pyscenic", "find_motifs_by_pyscenic")):
        config["grn"]["motifs"] = choice
        (folder / "chosen.yaml").write_text(yaml.safe_dump(config))
        for target in targets:
            (folder / target).unlink()
        done = snakemake(folder, folder / "chosen.yaml", *targets, "--rerun-triggers", "mtime")
        assert done.returncode == 0, done.stdout[-4000:]
        # pySCENIC starts, and reads the databases, once for all runs.
        assert done.stdout.count(f"rule {rule}:") == (3 if choice == "fast" else 1)
        found[choice] = [motifs_of(folder / target) for target in targets]
    for ours, theirs in zip(found["fast"], found["pyscenic"], strict=True):
        assert {key[0][-3:] for key in theirs} == {"(+)", "(-)"} and len(theirs) > 50
        assert ours == theirs
    assert found["pyscenic"][0] != found["pyscenic"][1]


def test_activities_are_those_of_pyscenic(small_study):
    grn = small_study / "results" / "grn" / "embryo"
    paths = grn / "regulons.loom", grn / "auc.zarr"
    found = in_grn("python", "-c", COMPARE, *paths, environment="analysis")
    n_cells, n_regulons, largest_difference, largest = json.loads(found)
    assert n_cells > 50 and n_regulons > 1 and largest > 0.05
    assert largest_difference < 1e-6


def test_runs_are_timed_before_they_begin_and_their_jobs_ask_for_what_they_need(small_study):
    found = json.loads((small_study / "results/grn/embryo/pilot.json").read_text())
    assert found["seconds_a_gene"] > 0 and found["job_memory_mb"] > 50
    log = (small_study / "results/logs/time_inference/embryo.log").read_text()
    assert re.search(r"\(grnboost2\) of \d+ genes .* on one core: 9 jobs", log)


def kill_first(folder, word, killed):
    """Send SIGKILL to the first process of a folder's script, as an out-of-memory killer does."""
    while not killed:
        found = subprocess.run(["pgrep", "-f", f"scripts/tmp.*{word}"], capture_output=True)
        for pid in map(int, found.stdout.split()):
            try:
                if os.readlink(f"/proc/{pid}/cwd") == str(folder):
                    time.sleep(1)  # in the middle of its work
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
            except OSError:
                continue
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_part_is_done_again_alone_with_more_memory(small_study, tmp_path):
    folder = tmp_path / "killed"
    shutil.copytree(small_study, folder, symlinks=True)
    run = folder / "results/grn/embryo/runs/1"
    before = edges(run / "adjacencies.npz")
    for name in ("adjacencies.npz", "1-of-3.npz"):
        (run / name).unlink()
    killed = []
    killer = threading.Thread(target=kill_first, args=(folder, "infer_adjacencies", killed))
    killer.start()
    target = "results/grn/embryo/runs/1/adjacencies.npz"
    done = snakemake(folder, folder / "config.yaml", target, "--rerun-triggers", "mtime")
    killed.append(None)
    killer.join()
    assert done.returncode == 0, done.stdout[-4000:]
    assert killed[0] and "Trying to restart job" in done.stdout
    asked = [
        int(re.search(r"mem_mb=(\d+)", part)[1])
        for part in done.stdout.split("localrule infer_adjacencies:")[1:]
    ]
    assert len(asked) == 2 and asked[1] > 1.8 * asked[0]
    assert edges(run / "adjacencies.npz") == before


def test_a_database_of_another_species_stops_the_study_at_once(small_study, tmp_path):
    folder = tmp_path / "species"
    folder.mkdir()
    for name in ("config.yaml", "samples.tsv"):
        shutil.copy(small_study / name, folder)
    (folder / "results").mkdir()
    shutil.copytree(small_study / "results/simulation", folder / "results/simulation")
    shutil.copytree(small_study / ".snakemake/metadata", folder / ".snakemake/metadata")
    gtf = folder / "results/simulation/genes.gtf.gz"
    # The annotation's genes are called as another species' would be.
    subprocess.run(
        f"zcat {gtf} | sed 's/gene_name \"Gene/gene_name \"GENE/' | gzip > {gtf}.new"
        f" && mv {gtf}.new {gtf}",
        shell=True, check=True,
    )  # fmt: skip
    target = "results/grn/embryo/expression.h5ad"
    done = snakemake(folder, folder / "config.yaml", target, "--rerun-triggers", "mtime")
    assert done.returncode != 0
    assert "another species, or ids in place of symbols?" in done.stdout, done.stdout[-3000:]
    assert not (folder / target).exists()
