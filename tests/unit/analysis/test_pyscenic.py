"""pySCENIC's programs: what is asked of them, and what becomes of one that cannot go on.

That ``pyscenic ctx`` itself finds the same as ``scdyn.grn.motifs`` is tested by
tests/workflow.
"""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import sparse

from scdyn.errors import InputError
from scdyn.grn import pyscenic
from scdyn.grn.motifs import Modules

# Stands in for pySCENIC: it is no part of this environment, and fails only by chance.
PROGRAM = """#!{python}
import os, signal, sys, time
output = sys.argv[sys.argv.index("--output") + 1]
print("at work", flush=True)
{body}
open(output, "w").write("whole")
"""
WAITS_FOR_A_DEAD_WORKER = """
if not os.fork():
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(600)
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    def make(body):
        path = tmp_path / "bin" / "pyscenic"
        path.parent.mkdir()
        path.write_text(PROGRAM.format(python=sys.executable, body=body))
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(path.parent))

    return make


def test_what_it_writes_appears_whole(program, tmp_path):
    program("")
    pyscenic.run("ctx", ["modules.yaml"], tmp_path / "out.tsv")
    assert (tmp_path / "out.tsv").read_text() == "whole"


@pytest.mark.parametrize(
    "body, sentence",
    [
        (WAITS_FOR_A_DEAD_WORKER, "ctx: a worker process died, .* output: at work"),
        ("sys.exit(3)", r"ctx failed \(3\): at work"),
        ("print('Unable to process: ran out of memory')", "ctx ran out of memory; see the log"),
    ],
)
def test_it_fails_where_pyscenic_would_wait_for_ever_or_leave_modules_out(
    program, tmp_path, body, sentence
):
    program(body)
    with pytest.raises(RuntimeError, match=sentence):
        pyscenic.run("ctx", [], tmp_path / "out.tsv")
    assert not (tmp_path / "out.tsv").exists()


def make_modules(genes, *sizes):
    """Modules of a TF "no", of the first genes each."""
    table = pd.DataFrame(
        {"regulon": "no(+)", "tf": "no", "module": "top50"}, index=range(len(sizes))
    )
    members = np.arange(len(genes)) < np.array(sizes, dtype=int).reshape(-1, 1)
    return Modules(table, sparse.csr_matrix(members), pd.Index(genes))


def test_modules_of_all_runs_are_numbered_and_any_symbol_is_kept(tmp_path):
    genes = ["NA", "1e3", "it's", 'a "b"', "back\\slash", "#x: {y}", "\u00e9"]
    path = tmp_path / "modules.yaml"
    runs = {"1": make_modules(genes, 7), "left_out": make_modules(genes, 2)}
    named = pyscenic.write_modules(runs, path)
    assert named.to_numpy().tolist() == [["1", "no(+)", "top50"], ["left_out", "no(+)", "top50"]]

    class Reader(yaml.SafeLoader):
        """Takes the calls that the file asks pySCENIC's reader for as they stand."""

    Reader.add_constructor(
        "tag:yaml.org,2002:python/object/apply:ctxcore.genesig.Regulon",
        lambda reader, node: reader.construct_mapping(node, deep=True)["kwds"],
    )
    Reader.add_constructor(
        "tag:yaml.org,2002:python/tuple", lambda reader, node: reader.construct_sequence(node)
    )
    Reader.add_constructor(
        "tag:yaml.org,2002:python/object/apply:re.split",
        lambda reader, node: reader.construct_sequence(node)[1].split("\t"),
    )
    with path.open(encoding="utf-8") as file:
        read = yaml.load(file, Loader=Reader)
    assert [module["gene2weight"] for module in read] == [genes, genes[:2]]
    assert [module["context"] for module in read] == [["module 0"], ["module 1"]]
    assert {module["transcription_factor"] for module in read} == {"no"}


def test_runs_without_modules_have_no_motifs_and_need_no_pyscenic(monkeypatch):
    monkeypatch.setenv("PATH", "")
    none = make_modules(["a", "b"])
    found = pyscenic.find_motifs(
        {"1": none, "2": none}, [], "motifs.tbl",
        rank_threshold=150, auc_threshold=0.05, nes_threshold=3.0, threads=1,
    )  # fmt: skip
    assert list(found) == ["1", "2"] and all(table.empty for table in found.values())
    assert list(found["1"]) == list(pyscenic.FOUND_COLUMNS)


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("db.genes_vs_motifs.rankings.feather", "cannot be read as a cisTarget ranking database"),
        (
            "db.feather",
            "pySCENIC accepts only ranking .* .genes_vs_motifs.rankings.feather",
        ),
    ],
)
def test_what_pyscenic_cannot_read_is_refused_before_it_starts(
    tmp_path, monkeypatch, name, sentence
):
    monkeypatch.setenv("PATH", "")
    path = tmp_path / name
    path.write_text("no database")
    with pytest.raises(InputError, match=f"{name}: {sentence}"):
        pyscenic.find_motifs(
            {}, [path], "motifs.tbl",
            rank_threshold=150, auc_threshold=0.05, nes_threshold=3.0, threads=1,
        )  # fmt: skip


@pytest.mark.parametrize("module", ["inference", "pyscenic", "regulons"])
def test_the_environment_of_pyscenic_needs_no_anndata_and_no_pydantic(module):
    code = "import sys; sys.modules.update(anndata=None, pydantic=None)\n"
    code += f"import scdyn.grn.{module}"
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": "workflow/scripts"}, check=True)
