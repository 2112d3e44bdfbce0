"""Costs: measured, and extrapolated to a large cohort.

For docs/own-data.md and docs/measured.md, from benchmarks/results/*.json. Extrapolations are
linear, as explained on the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from marks import make_table

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT / "config/real"
# The cohort to extrapolate to, and assumptions.
CELLS = 5_900_000
SAMPLE = 25_000
FRAGMENTS_PER_CELL = 20_000
GENES, TFS, METACELLS = 22_000, 1_500, 5_000
RNA_GENES_PER_CELL, PROMOTERS_PER_CELL = 2_500, 3_000
# Rules whose time and memory are extrapolated from the benchmark of scale, and single measurements.
SCALED = (
    "make_corpus", "compute_pca", "choose_cells", "score_regulons", "compare_regulons",
    "split_cells", "fit_baselines", "loader",
)  # fmt: skip
ALONE = ("ingest_sample", "add a sample, besides its ingestion", "open")
# Training of the paper.
EPOCHS = 10
PAPER_CELLS, PAPER_GPUS, PAPER_HOURS = 752_155, 8, 24
HOUR, DAY, GIB = 3600, 86_400, 2**30
# Speed of training on two cores, relative to one (scdyn.training.cost).
TWO_CORES = 1.75

Benchmarks = Mapping[str, Any]


def compute_rate(benchmarks: Benchmarks, what: str, size: str = "F") -> float:
    """Compute the cells per second of training or inference on two cores without AVX-512."""
    (part,) = [part for part in benchmarks["costs"] if part["instructions"] == "AVX2"]
    rows = {(row["what"], row["size"]): row["seconds"] for row in part["rows"]}
    return TWO_CORES / rows[what, size]


def extrapolate(benchmarks: Benchmarks, rule: str, key: str, cells: int) -> float:
    """Extrapolate along the line through a rule's two largest measurements."""
    rows = [row for row in benchmarks["scale"]["rows"] if row["rule"] == rule]
    (n, a), (m, b) = sorted((row["cells"], row[key]) for row in rows)[-2:]
    return b + (cells - m) * (b - a) / (m - n)


def estimate_grn_seconds(benchmarks: Benchmarks, method: str) -> float:
    """Estimate the seconds of one run at full size, in proportion to cells x TFs x genes.

    From the largest measured matrix. Most of the measured time of the ridge does not grow in
    proportion, so the estimate is an upper bound.
    """
    rows = {row["method"]: row for row in benchmarks["grn"]["rows"] if row["data"] == "cortex"}
    seconds = rows[method]["seconds"]
    if method == "fast":  # five runs minus one, to leave out the start of Python
        seconds = (rows["fast_of_five"]["seconds"] - seconds) / 4
    n, genes, tfs = rows[method]["shape"]
    return seconds * METACELLS * TFS * GENES / (n * tfs * genes)


def format_time(seconds: float) -> str:
    """Format a time."""
    if seconds < HOUR:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / HOUR:.1f} h" if seconds < 3 * DAY else f"{seconds / DAY:,.0f} days"


def tabulate_stages(benchmarks: Benchmarks) -> str:
    """Lay out time and memory of each stage for the cohort."""
    n_samples = CELLS // SAMPLE
    fragments = next(
        row["per_second"] for row in benchmarks["ingest"]["rows"][::-1] if "per_second" in row
    )
    body = []
    (ingested,) = [row for row in benchmarks["scale"]["rows"] if row["rule"] == "ingest_sample"]
    seconds, memory = ingested["seconds"], ingested["peak_gib"]
    body.append(["ingest_sample, per sample", format_time(seconds), f"{memory:.1f} GiB"])
    body.append(
        [f"ingest_sample, all {n_samples}", format_time(seconds * n_samples), "as per sample"]
    )
    body.append(
        [
            "counting fragments, in addition",
            format_time(CELLS * FRAGMENTS_PER_CELL / fragments),
            "about 1 GiB",
        ]
    )
    for rule in SCALED:
        seconds, memory = (
            extrapolate(benchmarks, rule, key, CELLS) for key in ("seconds", "peak_gib")
        )
        body.append([rule, format_time(seconds), f"{memory:.1f} GiB"])
    matrix = TFS * GENES * 8 / GIB
    for method, words in (("fast", "`fast`, one run"), ("grnboost2", "`grnboost2`, one run")):
        seconds = estimate_grn_seconds(benchmarks, method)
        needed = f"a few times {matrix:.2f} GiB" if method == "fast" else "not extrapolated"
        body.append([f"infer_adjacencies, {words}", format_time(seconds), needed])
    training, inference = compute_rate(benchmarks, "train"), compute_rate(benchmarks, "infer")
    rows = benchmarks["latest"]["rows"]
    peak = max(row["ours"] for row in rows if row["what"] == "peak memory of training")
    body.append(
        ["pretrain, one epoch", format_time(CELLS / training), f"{peak:.1f} GiB, one cell per step"]
    )
    body.append([f"pretrain, {EPOCHS} epochs", format_time(EPOCHS * CELLS / training), "the same"])
    rows = benchmarks["scale"]["rows"]
    memory = max(row["peak_gib"] for row in rows if row["rule"] == "embed")
    body.append(["embed", format_time(CELLS / inference), f"{memory:.1f} GiB, of a small model"])
    return make_table(["rule", "time on two cores", "memory"], body)


def tabulate_needs(benchmarks: Benchmarks) -> str:
    """Lay out the speed that GPUs need to train within a given time."""
    operations = benchmarks["latest"]["profile"]["operations"]
    paper = PAPER_CELLS * EPOCHS / (PAPER_GPUS * PAPER_HOURS * HOUR)
    rates = {
        words: CELLS * EPOCHS / (days * DAY * gpus)
        for words, days, gpus in (
            ("a week on eight GPUs", 7, 8),
            ("a week on one GPU", 7, 1),
            ("a day on eight GPUs", 1, 8),
        )
    }
    rates["measured, two CPU cores, AVX2"] = compute_rate(benchmarks, "train")
    rates["the paper's, an H100"] = paper
    body = [[words, f"{r:.2f}", f"{r * operations / 1e12:.2f}"] for words, r in rates.items()]
    return make_table([f"{EPOCHS} epochs in", "cells/s per GPU", "TFLOP/s per GPU"], body)


def tabulate_scale(benchmarks: Benchmarks) -> str:
    """Lay out time and peak memory of each rule by the number of cells."""
    rows = {
        (row["rule"], row["cells"]): row for row in benchmarks["scale"]["rows"] if "peak_gib" in row
    }
    sizes = sorted({cells for rule, cells in rows if rule == SCALED[0]})[:3]
    body = []
    for rule in dict.fromkeys(rule for rule, _ in rows):
        found = [rows.get((rule, cells)) for cells in sizes]
        if any(found):
            body.append([rule, *(describe_row(row) for row in found)])
    return make_table(["rule", *(f"{cells:,} cells" for cells in sizes)], body)


def describe_row(row: Mapping[str, Any] | None) -> str:
    """Describe time and peak memory of a measurement."""
    return f"{row['seconds']:,.1f} s, {row['peak_gib']:.2f} GiB" if row else ""


def tabulate_bars(benchmarks: Benchmarks) -> str:
    """Lay out the other measurements of the scale: seconds, memory, and cells per second."""
    body = []
    for row in benchmarks["scale"]["rows"]:
        if row["rule"] in ALONE or row["rule"].startswith("loader, "):
            peak = f"{row['peak_gib']:.2f} GiB" if "peak_gib" in row else ""
            rate = f"{row['cells'] / row['seconds']:,.0f}"
            body.append([row["rule"], f"{row['cells']:,}", f"{row['seconds']:.2f}", rate, peak])
    return make_table(["what", "cells", "seconds", "cells/s", "peak memory"], body)


def tabulate_disk(benchmarks: Benchmarks) -> str:
    """Lay out the disk space of the large files."""
    rows = [row for row in benchmarks["scale"]["rows"] if "bytes_per_cell" in row]
    largest = max(row["cells"] for row in rows)
    sizes = {
        row["rule"].removeprefix("disk, "): row["bytes_per_cell"]
        for row in rows
        if row["cells"] == largest
    }
    sizes["in all"] = sum(sizes.values())
    body = [
        [kind, f"{size / 1000:.2f} kB", f"{size * CELLS / 1e9:,.0f} GB"]
        for kind, size in sizes.items()
    ]
    return make_table(["files", "per cell", f"{CELLS / 1e6:.1f} million cells"], body)


def tabulate_rates(benchmarks: Benchmarks) -> str:
    """Lay out the speed of training on the CPU by the size of the model."""
    sizes = {
        "S": "2,000 genes, 4 layers",
        "M": "5,000 genes, 4 layers",
        "F": "22,000 genes, 12 layers",
    }
    body = []
    for size, words in sizes.items():
        training, inference = (compute_rate(benchmarks, what, size) for what in ("train", "infer"))
        epoch = format_time(10_000 / training)
        body.append([words, f"{training:.2g}", epoch, f"{inference:.2g}"])
    head = ["model", "training, cells/s", "an epoch of 10,000 cells", "inference, cells/s"]
    return make_table(head, body)


def tabulate_studies(benchmarks: Benchmarks) -> str:
    """Lay out the cost of a fine-tuning run of each real study."""
    body = []
    for name in ("cortex", "bone_marrow", "spatial", "chimera"):
        config = yaml.safe_load((REAL / f"{name}.yaml").read_text())
        for task, settings in config["tasks"].items():
            model = config["models"][settings["model"]]
            found = benchmarks["evaluation"][name]["tasks"][task]
            cost = found["costs"]["scdynomics"]
            body.append(
                [
                    f"`config/real/{name}.yaml`",
                    f"{found['n_held_out']:,}",
                    model["size"],
                    f"{cost['seconds']:.0f}",
                    f"{cost['peak_memory_gib']:.1f}",
                ]
            )
    return make_table(["study", "labelled cells", "size", "seconds", "GiB"], body)


def make_blocks(benchmarks: Benchmarks) -> dict[str, str]:
    """Make the blocks of the pages: Markdown by name."""
    machine = benchmarks["latest"]["machine"]
    assumed = make_table(
        ["assumed", "value"],
        [
            ["cells", f"{CELLS:,}"],
            ["cells per sample", f"{SAMPLE:,}"],
            ["fragments per cell", f"{FRAGMENTS_PER_CELL:,}"],
            ["genes, TFs", f"{GENES:,}, {TFS:,}"],
            ["metacells for the GRN", f"{METACELLS:,}"],
            ["genes with RNA per cell", f"{RNA_GENES_PER_CELL:,}"],
            ["open promoters per cell", f"{PROMOTERS_PER_CELL:,}"],
        ],
    )
    text = "Measured on {cores} cores of an {processor} with {memory_gib} GiB of memory."
    return {
        "machine": text.format(**machine),
        "assumed": assumed,
        "stages": tabulate_stages(benchmarks),
        "needed": tabulate_needs(benchmarks),
        "disk": tabulate_disk(benchmarks),
        "scale": tabulate_scale(benchmarks),
        "bars": tabulate_bars(benchmarks),
        "rates": tabulate_rates(benchmarks),
        "studies": tabulate_studies(benchmarks),
    }
