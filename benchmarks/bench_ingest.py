"""Speed and memory of ingestion: ``make bench-ingest``.

Counts fragments in promoters for three numbers of fragments, and runs the script of the rule
ingest_sample for three numbers of cells (22,000 genes, 150,000 peaks), and for promoter counts in a
layer. Each runs in a separate process, whose peak memory is reported; the inputs are generated.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import make_fragments
import make_sample
import pandas as pd
from bench import describe_machine, find_processor_instructions, read_commit
from run_rule import SCRIPTS, run_script

from scdyn.io.files import write_json, write_table
from scdyn.io.fragments import count_insertions
from scdyn.io.sample_files import FILES, LAYERS
from scdyn.pp.reference import make_promoter_windows, make_tss_rings

N_FRAGMENTS = (5_000_000, 15_000_000, 50_000_000)
N_CELLS = (25_000, 50_000, 100_000)
TURNS = 3


def count(folder: Path, n: int) -> dict[str, float]:
    """Count a file's insertions in promoters."""
    genes = make_fragments.genes()
    cells = pd.Index((folder / "cells.txt").read_text().split())
    begun = time.monotonic()
    counts, _ = count_insertions(
        folder / f"{n}.tsv.gz",
        make_promoter_windows(genes),
        len(genes),
        cells,
        rings=make_tss_rings(genes),
    )
    return {"seconds": time.monotonic() - begun, "result_gib": counts.nnz * 8 / 2**30}


def ingest(folder: Path, n: int, kind: str = "10x", suffix: str = "h5") -> dict[str, float]:
    """Ingest a sample with counts of genes and peaks."""
    row = dict.fromkeys([*FILES, *LAYERS, "metadata"], "")
    row |= {"sample": "s", "kind": kind, "path": str(folder / f"{n}.{suffix}")}
    qc = {"min_promoter_counts": 0, "max_mito_share": 1.0}
    begun = time.monotonic()
    examined = folder / f"{n}.preflight.tsv"
    examined.write_text("subject\tcheck\tfound\tpassed\n")
    of_row = {"files": [row["path"]], "preflight": str(examined)}
    run_script(
        "ingest_sample",
        folder,
        {"genes": str(folder / "genes.tsv"), "translation": [], **of_row},
        {"cells": str(folder / f"{n}.zarr"), "qc": str(folder / f"{n}.qc.tsv")},
        row=row,
        windows={"upstream": 1500, "downstream": 500},
        thresholds={},
        qc=qc,
        seed=1,
    )
    return {"seconds": time.monotonic() - begun}


def ingest_layer(folder: Path, n: int) -> dict[str, float]:
    """Ingest a sample with promoter counts in a layer."""
    return ingest(folder, n, "h5ad", "h5ad")


STEPS = {"count": count, "ingest": ingest, "ingest_layer": ingest_layer}


def measure(step: str, folder: Path, n: int) -> dict[str, float]:
    """Run a step in a separate process."""
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder), "--n", str(n)]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def bench_fragments(folder: Path) -> list[dict[str, float]]:
    """Measure the counting of fragments."""
    windows = make_promoter_windows(make_fragments.genes())
    rows = []
    for n in N_FRAGMENTS:
        cells = make_fragments.write(folder / f"{n}.tsv.gz", windows, n)
        (folder / "cells.txt").write_text("\n".join(cells))
        turns = [measure("count", folder, n) for _ in range(TURNS)]
        seconds = median(turn["seconds"] for turn in turns)
        row = {
            "what": "fragments to promoter counts", "n": n, "seconds": seconds,
            "per_second": n / seconds, "memory_gib": max(turn["memory_gib"] for turn in turns),
            "result_gib": turns[0]["result_gib"],
        }  # fmt: skip
        rows.append(row)
        print(
            f"{n:>12,} fragments  {seconds:7.1f} s  {n / seconds / 1e6:5.2f} M/s  "
            f"{row['memory_gib']:5.2f} GiB, of which the counts {row['result_gib']:.2f}",
            flush=True,
        )
        (folder / f"{n}.tsv.gz").unlink()
    return rows


def bench_samples(folder: Path) -> list[dict[str, float]]:
    """Measure the ingestion of samples."""
    write_table(folder / "genes.tsv", make_sample.make_vocabulary())
    rows = []
    make_sample.write_layers(folder / f"{N_CELLS[0]}.h5ad", N_CELLS[0])
    for n in N_CELLS:
        make_sample.write(folder / f"{n}.h5", n)
        for step in ("ingest", "ingest_layer") if n == N_CELLS[0] else ("ingest",):
            row = {"what": step, "n": n} | measure(step, folder, n)
            rows.append(row)
            print(
                f"{n:>12,} cells, {step:12}  {row['seconds']:7.1f} s  {row['memory_gib']:5.2f} GiB",
                flush=True,
            )
        (folder / f"{n}.h5").unlink()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="JSON of all rows")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        result = STEPS[options.step](options.folder, options.n)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(result | {"memory_gib": peak}))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = bench_fragments(Path(folder)) + bench_samples(Path(folder))
    write_json(
        options.output,
        {
            "machine": describe_machine() | {"instructions": find_processor_instructions()},
            "commit": read_commit(),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
