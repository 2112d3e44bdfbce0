"""Tables of the benchmarks, from benchmarks/results/*.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from marks import make_table

Row = Mapping[str, Any]

GRN_METHODS = {
    "grnboost2": "GRNBoost2 (arboreto's multiprocessing runner)",
    "fast": "`fast`, one run",
    "fast_of_five": "`fast`, mean of five runs",
    "fast_penalty_of_gcv": "`fast`, penalty of GCV itself",
    "fast_penalty_tenth": "`fast`, a tenth of it",
    "correlation": "Pearson correlation",
    "rank_correlation": "Spearman correlation",
    "spline": "additive spline, block Wald",
    "lightgbm": "LightGBM, one model per gene",
}
REGULONS = {
    "motifs": "motifs (cisTarget)",
    "motifs_and_promoters": "motifs and promoters (`promoter_evidence: prune`)",
    "modules": "50 strongest targets",
    "modules_and_promoters": "50 strongest targets and promoters (no motif database)",
}
STEPS = {"train": "training step", "infer": "inference"}


def describe_machine(result: Row) -> str:
    """Name the machine and, if it is the same for all figures, the instruction set."""
    found = result["machine"]
    words = f"{found['cores']} cores of an {found['processor']}, {found['memory_gib']} GiB"
    return f"Measured on {words}{describe_instructions(found)}; commit {result['commit'][:7]}."


def describe_instructions(machine: Row) -> str:
    """Name the instruction set, if the description of the machine has it."""
    return f", {machine['instructions']}" if "instructions" in machine else ""


def tabulate_speed(rows: Sequence[Row]) -> str:
    """Lay out the comparison with the authors' package."""
    body = [
        [
            *(row["what"], row["size"], row["instructions"]),
            *(f"{row['ours']:.4g}", f"{row['peer']:.4g}", f"{row['ratio']:.2f}", row["unit"]),
        ]
        for row in rows
    ]
    return make_table(
        ["what", "size", "instructions", "ours", "peer", "ratio", "unit"], body, text=3
    )


def tabulate_costs(parts: Sequence[Row]) -> str:
    """Lay out seconds per cell on one core, by instruction set."""
    body = [
        [
            *(STEPS[row["what"]], row["size"], part["instructions"]),
            *(f"{row['seconds']:.3g}", f"{row['estimated']:.3g}"),
        ]
        for part in parts
        for row in part["rows"]
    ]
    head = ["what", "size", "instructions", "seconds per cell, one core", "estimated by scdyn"]
    return make_table(head, body, text=3)


def tabulate_errors(rows: Sequence[Row]) -> str:
    """Lay out relative errors by precision."""
    body = [
        [row["precision"], row["size"], f"{row['output']:.2g}", f"{row['gradient']:.2g}"]
        for row in rows
    ]
    head = ["precision", "size", "error of the output", "error of the gradient"]
    return make_table(head, body, text=2)


def tabulate_step(found: Row) -> str:
    """Lay out the lower bounds of the time of a training step."""
    floor, rates = found["floor_seconds"], found["ceilings"]
    body = [
        [
            f"measured at {found['size']}, {found['instructions']}, cells",
            *(str(found["cells"]), f"{found['seconds']:.3g}"),
        ],
        [
            "lower bound by its products, GFLOP",
            *(f"{found['operations'] / 1e9:.4g}", f"{floor['operations']:.3g}"),
        ],
        [
            "lower bound by memory traffic, GB",
            *(f"{found['bytes'] / 1e9:.3g}", f"{floor['bytes']:.3g}"),
        ],
        ["one large product, GFLOP/s", f"{rates['operations_per_second'] / 1e9:.4g}", ""],
        ["one large copy, GB/s", f"{rates['bytes_per_second'] / 1e9:.3g}", ""],
        ["exponentials of the softmax, 1e9", f"{found['exponentials'] / 1e9:.3g}", ""],
    ]
    parts = [[name, f"{share:.1%}"] for name, share in found["split"].items()]
    attention = [
        [name, "not available" if value is None else f"{value:.4g}"]
        for name, value in found["attention_seconds"].items()
    ]
    return "\n\n".join(
        [
            make_table(["a training step", "", "seconds of a core, or of a GPU"], body),
            make_table(["part of the step", "share of its time"], parts),
            make_table(["attention of a Full layer, forward and backward", "seconds"], attention),
        ]
    )


def tabulate_fragments(rows: Sequence[Row]) -> str:
    """Lay out the time and memory of counting fragments."""
    body = [
        [
            *(f"{row['n']:,}", f"{row['seconds']:.1f}", f"{row['per_second'] / 1e6:.2f} M"),
            f"{row['memory_gib']:.2f}",
        ]
        for row in rows
        if "per_second" in row
    ]
    return make_table(["fragments", "seconds", "fragments/s", "peak memory, GiB"], body, text=0)


def tabulate_samples(rows: Sequence[Row]) -> str:
    """Lay out the time and memory of ingestion by a sample's number of cells."""
    body = [
        [f"{row['n']:,}", f"{row['seconds']:.0f}", f"{row['memory_gib']:.1f}"]
        for row in rows
        if row["what"] == "ingest"
    ]
    return make_table(["cells", "seconds", "peak memory, GiB"], body, text=0)


def tabulate_grn_methods(result: Row) -> str:
    """Lay out AUPRC and early precision on each network, seconds and memory."""
    found = {(row["method"], row["data"]): row for row in result["rows"]}
    sets = list(dict.fromkeys(row["data"] for row in result["rows"]))
    known = [d for d in sets if "auprc" in found["fast", d]]
    body = []
    for method, name in GRN_METHODS.items():
        rows = {data: found[method, data] for data in sets}
        quality = [f"{rows[d]['auprc']:.3f}, {rows[d]['early_precision']:.3f}" for d in known]
        seconds = ", ".join(f"{rows[d]['seconds']:.3g}" for d in sets)
        memory = max(row["memory_gib"] for row in rows.values())
        body.append([name, *quality, seconds, f"{memory:.2f}"])
    body.append(["chance", *(f"{found['fast', d]['chance']:.3f}" for d in known), "", ""])
    head = ["method", *(f"{d}: AUPRC, early precision" for d in known)]
    return make_table([*head, f"seconds ({', '.join(sets)})", "GiB"], body)


def describe_grn_speed(result: Row) -> str:
    """Compare the time and the AUPRC of `fast` and GRNBoost2."""
    found = {(row["method"], row["data"]): row for row in result["rows"]}
    pairs = [
        (found["fast", d], found["grnboost2", d])
        for d in dict.fromkeys(row["data"] for row in result["rows"])
    ]
    ratios = [theirs["seconds"] / fast["seconds"] for fast, theirs in pairs]
    known = [(fast, theirs) for fast, theirs in pairs if "auprc" in fast]
    higher = sum(fast["auprc"] > theirs["auprc"] for fast, theirs in known)
    return (
        f"GRNBoost2 by arboreto's runner took {min(ratios):.0f} to {max(ratios):.0f} times as long "
        f"as one run of `fast`.\nThe AUPRC of `fast` is higher on {higher} of the {len(known)} "
        "matrices with a known network."
    )


def tabulate_regulons(result: Row) -> str:
    """Lay out the embedded study's regulons by evidence."""
    body = []
    for key, name in REGULONS.items():
        row = result["regulons"][key]
        body.append(
            [
                *(name, str(row["n_regulons"]), str(row["n_edges"])),
                *(f"{row[part]:.3f}" for part in ("precision", "adjacency_precision", "recall")),
                *(f"{row[part]['edges']:.2f}" for part in ("two_runs", "disjoint_sets")),
            ]
        )
    head = ["regulons from", "number", "edges", "precision", "as many adjacencies", "recall"]
    return make_table([*head, "Jaccard: two runs", "two sets of five"], body)


def tabulate_support(result: Row) -> str:
    """Lay out the share of each method's strongest edges that accessibility supports."""
    body = [
        [GRN_METHODS.get(row["method"], "any pair of TF and gene"), f"{row['supported']:.3f}"]
        for row in result["support"]
    ]
    return make_table(["edges", "supported"], body)


def tabulate_ablations(runs: Sequence[Row]) -> str:
    """Lay out mean and standard deviation over the seeds, one row per variant."""
    measures = [name for name in runs[0] if name not in ("variant", "seed")]
    body = []
    for variant in dict.fromkeys(row["variant"] for row in runs):
        mine = [row for row in runs if row["variant"] == variant]
        values = ([row[name] for row in mine] for name in measures)
        body.append([variant, *(f"{mean(v):.4f} ± {stdev(v):.4f}" for v in values)])
    return make_table(["variant", *measures], body)
