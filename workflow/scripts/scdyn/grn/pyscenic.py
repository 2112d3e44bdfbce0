"""pySCENIC's commands, run as separate programs."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd

from scdyn.errors import InputError
from scdyn.grn.databases import MAX_SIMILARITY_Q, MOTIF_COLUMNS, read_database
from scdyn.grn.motifs import FOUND_COLUMNS, Modules, count_recovery_ranks
from scdyn.io.files import atomic
from scdyn.log import logger

# Columns of the table that ``pyscenic ctx`` writes.
CTX_COLUMNS = (
    *("tf", "motif", "auc", "nes", "motif_similarity_qvalue", "orthologous_identity"),
    *("annotation", "context", "targets", "rank_at_max"),
)
CTX_HEADER_LINES = 3
# pySCENIC derives the type of a database from the end of its name.
DATABASE_NAMES = tuple(f".genes_vs_{what}.rankings.feather" for what in MOTIF_COLUMNS)
SECONDS_BETWEEN_LOOKS = 1.0
# pySCENIC logs this, leaves the module out and continues.
SHORT_OF_MEMORY = "ran out of memory"


def run(command: str, arguments: Sequence[str | int | float], output: str | Path) -> None:
    """Run a command of pySCENIC, and log its output.

    Parameters
    ----------
    command
        ``ctx`` or ``aucell``.
    arguments
        All arguments except ``--output``.
    output
        The file to write, atomically.

    Raises
    ------
    RuntimeError
        With the last line of its output, if it fails, one of its worker processes dies, or it
        leaves out a module because memory is short.
    """
    with atomic(output) as temporary:
        last, dead, short_of_memory = "", threading.Event(), False
        process = subprocess.Popen(
            ["pyscenic", command, *map(str, arguments), "--output", str(temporary)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # it runs one process per core
        )
        threading.Thread(target=kill_if_worker_dies, args=(process, dead), daemon=True).start()
        with process:
            for line in process.stdout or ():
                logger.debug("%s", line.rstrip())
                last = line.strip() or last
                short_of_memory |= SHORT_OF_MEMORY in line
        if dead.is_set():
            raise RuntimeError(
                f"pyscenic {command}: a worker process died, perhaps out of memory; last line of "
                f"its output: {last}"
            )
        if process.returncode:
            raise RuntimeError(f"pyscenic {command} failed ({process.returncode}): {last}")
        if short_of_memory:
            raise RuntimeError(f"pyscenic {command} {SHORT_OF_MEMORY}; see the log")


def kill_if_worker_dies(process: subprocess.Popen[str], dead: threading.Event) -> None:
    """Kill a program, and set ``dead``, when one of its worker processes has failed.

    ``pyscenic ctx`` would wait for the worker forever. A failed child counts only if it is still
    there at the second look, because children of other kinds (programs started by imports) are
    reaped at once. Needs Linux' /proc; does nothing without it.
    """
    failed: set[int] = set()
    while process.poll() is None:
        states = read_child_states(process.pid)
        before, failed = (
            failed,
            {pid for pid, (state, code) in states.items() if state == "Z" and code},
        )
        if failed & before:
            dead.set()
            for pid in (*states, process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return
        time.sleep(SECONDS_BETWEEN_LOOKS)


def read_child_states(pid: int) -> dict[int, tuple[str, int]]:
    """Look up the state ("Z": ended) and exit code of each child of a process."""
    states = {}
    with suppress(OSError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            with suppress(OSError):
                # Fields after the name, which is in brackets and may contain anything.
                fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
                states[child] = fields[0], int(fields[-1])
    return states


def find_motifs(
    modules: Mapping[str, Modules],
    rankings: Sequence[str | Path],
    annotations: str | Path,
    *,
    rank_threshold: int,
    auc_threshold: float,
    nes_threshold: float,
    threads: int,
) -> dict[str, pd.DataFrame]:
    """Find enriched motifs by ``pyscenic ctx``, in one call for the modules of all runs.

    Parameters
    ----------
    modules
        Modules by run, as :func:`scdyn.grn.motifs.make_modules` returns them.
    rankings, annotations, rank_threshold, auc_threshold, nes_threshold
        See :func:`scdyn.grn.motifs.find_motifs`.
    threads
        Worker processes, each with one database in memory; at least one per database.

    Returns
    -------
    dict
        Table by run, as :func:`scdyn.grn.motifs.find_motifs` returns it, with pySCENIC's targets
        (:mod:`scdyn.grn.motifs` describes the difference).

    Raises
    ------
    InputError
        If a database cannot be read, has a name that pySCENIC does not accept, or ranks too few
        genes for the thresholds.
    RuntimeError
        If pySCENIC fails.
    """
    for path in rankings:  # errors that would kill pySCENIC's workers
        if not str(path).endswith(DATABASE_NAMES):
            raise InputError(
                "MOTIFS",
                f"{path}: pySCENIC accepts only ranking databases whose name ends in "
                f"{' or '.join(DATABASE_NAMES)}; rename it, or set grn.motifs: fast.",
            )
        count_recovery_ranks(len(read_database(path)[0]), rank_threshold, auc_threshold)
    with tempfile.TemporaryDirectory() as folder:
        written, found = Path(folder, "modules.yaml"), Path(folder, "motifs.tsv")
        named = write_modules(modules, written)
        if named.empty:
            logger.warning("no run has a module with enough genes, so no motif is searched")
            return {name: pd.DataFrame(columns=list(FOUND_COLUMNS)) for name in modules}
        # fmt: off
        arguments: list[str | int | float] = [
            str(written), *map(str, rankings),
            "--annotations_fname", str(annotations),
            "--mode", "custom_multiprocessing",
            "--rank_threshold", rank_threshold,
            "--auc_threshold", auc_threshold,
            "--nes_threshold", nes_threshold,
            "--max_similarity_fdr", MAX_SIMILARITY_Q,
            "--num_workers", max(threads, len(rankings)),
        ]
        # fmt: on
        run("ctx", arguments, found)
        table = read_motifs(found)
    table = table.join(named, on="number")
    return {
        name: table.loc[table["run"] == name, list(FOUND_COLUMNS)].reset_index(drop=True)
        for name in modules
    }


def write_modules(modules: Mapping[str, Modules], path: Path) -> pd.DataFrame:
    """Write modules in the YAML format of ``pyscenic ctx`` 0.12.1, with a number as context.

    Of its other formats, GMT has no TFs and DAT is a pickle. The genes of a module are written as
    one string that is split on reading, because one YAML node per gene takes gigabytes of memory
    for thousands of modules.

    Returns
    -------
    DataFrame
        ``run``, ``regulon``, ``module``; the index is the number.
    """
    named: list[tuple[str, str, str]] = []
    with path.open("w", encoding="utf-8") as file:
        for name, of_run in modules.items():
            rows = zip(of_run.table.itertuples(index=False), of_run.members, strict=True)
            for (regulon, tf, way), members in rows:
                file.write(format_module(len(named), tf, of_run.genes[members.indices]))
                named.append((name, regulon, way))
    return pd.DataFrame(named, columns=["run", "regulon", "module"])


def format_module(number: int, tf: str, genes: Iterable[str]) -> str:
    """Format a module as one line of YAML."""
    quoted = (json.dumps(text, ensure_ascii=False) for text in (tf, "\t".join(genes)))
    return (
        "- !!python/object/apply:ctxcore.genesig.Regulon {{kwds: {{name: {0}, "
        'transcription_factor: {0}, context: !!python/tuple ["module {2}"], gene2occurrence: [], '
        'gene2weight: !!python/object/apply:re.split ["\\t", {1}]}}}}\n'
    ).format(*quoted, number)


def read_motifs(path: Path) -> pd.DataFrame:
    """Read the table that ``pyscenic ctx`` wrote for modules of :func:`write_modules`.

    Returns
    -------
    DataFrame
        ``number`` of the module, and the columns of ``motifs.tsv`` that do not follow from it.
    """
    table = pd.read_csv(
        path,
        sep="\t",
        skiprows=CTX_HEADER_LINES,
        names=list(CTX_COLUMNS),
        dtype={"tf": str, "motif": str, "context": str, "targets": str},
        keep_default_na=False,
        float_precision="round_trip",
    )
    # A context is such as frozenset({'module 3', 'the database'}).
    number = table["context"].str.extract(r"'module (\d+)'", expand=False)
    contexts = table["context"].str.removeprefix("frozenset(").str.removesuffix(")")
    databases = [
        next(iter(ast.literal_eval(context) - {f"module {n}"}))
        for context, n in zip(contexts, number, strict=True)
    ]
    targets = [",".join(name for name, _ in ast.literal_eval(pairs)) for pairs in table["targets"]]
    return table.drop(columns=["annotation", "context"]).assign(
        number=number.astype(int), database=databases, targets=targets
    )
