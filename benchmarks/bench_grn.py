"""Benchmark of GRN inference: ``make bench-grn``.

All methods run on the same matrices: the embedded study, two simulators with other mechanisms, and
the mouse cortex if ``make real`` has been run. Total time and peak memory are those of a process
per method; short methods are repeated, and the median is reported. Then regulons of the embedded
study are inferred with ten seeds and compared with the truth, with and without promoter evidence,
and between two disjoint sets of five seeds.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import grn_candidates
import grn_simulators
import h5py
import numpy as np
import pandas as pd
from bench import describe_machine, find_processor_instructions, read_commit
from scipy import sparse
from sklearn.metrics import average_precision_score

from scdyn.grn import consensus, regulons
from scdyn.grn import inference as grn_inference
from scdyn.grn.edges import Edges, MergedEdges
from scdyn.grn.expression import Expression, read_expression
from scdyn.grn.motifs import find_motifs
from scdyn.io.files import write_json

SIZES = {"steady_state": (1000, 2000, 150), "bursts": (1000, 2000, 150)}
TURNS = 3
LONG = ("grnboost2", "lightgbm")
RESULTS = Path(__file__).parent / "results" / "grn.json"


def write_matrix(path: Path, expression: Expression) -> None:
    """Write a matrix as the workflow does, and as a loom for arboreto."""
    import loompy

    values = expression.values.tocsc()
    with h5py.File(path, "w") as file:
        x = file.create_group("X")
        x.attrs["shape"] = values.shape
        for name in ("data", "indices", "indptr"):
            x[name] = getattr(values, name)
        file["var/symbol"] = np.array(expression.genes, dtype=object)
        file["var/is_tf"] = expression.is_tf
    cells = np.arange(values.shape[0]).astype(str)
    loompy.create(
        str(path.with_suffix(".loom")), values.T.tocoo(), {"Gene": np.array(expression.genes)},
        {"CellID": cells},
    )  # fmt: skip


def data_sets(demo: Path, real: Path) -> dict[str, tuple[Expression, pd.DataFrame | None]]:
    """Gather the matrices with their true edges, or None if these are unknown."""
    truth = pd.read_csv(demo / "simulation" / "truth" / "edges.tsv", sep="\t")
    sets = {"embedded": (read_expression(demo / "grn/embryo/expression.h5ad"), truth)}
    for name, (n_cells, n_genes, n_tfs) in SIZES.items():
        table, tfs, edges = grn_simulators.SIMULATORS[name](n_cells, n_genes, n_tfs, seed=2)
        values = sparse.csc_matrix(table.to_numpy())
        sets[name] = Expression(list(table), np.isin(table.columns, tfs), values), edges
    cortex = real / "grn/cortex/expression.h5ad"
    if cortex.exists():
        sets["cortex"] = read_expression(cortex), None
    return sets


def score_edges(
    scores: np.ndarray, expression: Expression, edges: pd.DataFrame
) -> dict[str, float]:
    """Compute the AUPRC, and the precision among the top edges, as many as there are true ones."""
    true = grn_candidates.as_matrix(
        edges[edges["tf"].isin(expression.genes) & edges["target"].isin(expression.genes)]
        .rename(columns={"tf": "TF"})
        .assign(importance=1.0),
        expression,
    )
    pairs = expression.tfs[:, None] != np.arange(len(expression.genes))
    labels, values = true[pairs] > 0, scores[pairs]
    best = np.argsort(-values, kind="stable")[: labels.sum()]
    return {
        "auprc": float(average_precision_score(labels, values)),
        "early_precision": float(labels[best].mean()),
        "chance": float(labels.mean()),
    }


def measure(method: str, path: Path, scores: Path) -> dict[str, float]:
    """Run one method on one matrix in a separate process."""
    before = time.monotonic()
    child = subprocess.run(
        [sys.executable, __file__, "--method", method, "--matrix", path, "--scores", scores],
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    seconds = time.monotonic() - before
    return {"seconds": seconds, "memory_gib": json.loads(child.stdout)["memory_gib"]}


def run_method(method: str, matrix: Path, scores: Path) -> None:
    """Score the edges of a matrix; print the peak memory of this process and its children."""
    found = grn_candidates.CANDIDATES[method](read_expression(matrix), matrix)
    np.save(scores, found.astype(np.float32))
    # From /proc, because getrusage would include memory of the parent before exec.
    status = Path("/proc/self/status").read_text()
    own = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
    started = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({"memory_gib": max(own, started) / 2**20}))


def compare_methods(demo: Path, real: Path, folder: Path) -> list[dict[str, object]]:
    """Measure every method on every matrix."""
    rows = []
    for data, (expression, edges) in data_sets(demo, real).items():
        path = folder / f"{data}.h5"
        write_matrix(path, expression)
        taken: dict[str, list[dict[str, float]]] = {}
        for turn in range(TURNS):
            for method in grn_candidates.CANDIDATES:
                if turn and method in LONG:
                    continue
                found = measure(method, path, folder / f"{data}.{method}.npy")
                taken.setdefault(method, []).append(found)
                print(data, method, found, file=sys.stderr, flush=True)
        for method, turns in taken.items():
            row = {
                "method": method,
                "data": data,
                "shape": [*expression.values.shape, len(expression.tfs)],
                "seconds": median(turn["seconds"] for turn in turns),
                "memory_gib": median(turn["memory_gib"] for turn in turns),
            }
            if edges is not None:
                scores = np.load(folder / f"{data}.{method}.npy")
                row |= score_edges(scores, expression, edges)
            rows.append(row)
    return rows


def find_regulons(expression: Expression, demo: Path, edges: Edges) -> pd.DataFrame:
    """Prune a run's modules by the demo's motifs, as the workflow does."""
    study = demo / "simulation"
    found = find_motifs(
        edges, expression, [study / "motifs.genes_vs_motifs.rankings.feather"],
        study / "motifs.annotation.tbl", rank_threshold=500, auc_threshold=0.05, nes_threshold=3.0,
        min_genes=10, mask_dropouts=False, repressing=False,
    )  # fmt: skip
    return regulons.build_motif_regulons(found, edges)


def compare_with_truth(
    kept: pd.DataFrame, adjacencies: pd.DataFrame, true: pd.DataFrame
) -> dict[str, float]:
    """Compare regulons, and the same number of the strongest adjacencies, with the truth."""
    known = pd.MultiIndex.from_frame(true[["tf", "target"]])
    found = pd.MultiIndex.from_frame(kept[["tf", "target"]].drop_duplicates())
    raw = pd.MultiIndex.from_frame(adjacencies.head(len(found))[["tf", "target"]])
    return {
        "n_regulons": int(kept["regulon"].nunique()),
        "n_edges": len(found),
        "precision": float(found.isin(known).mean()),
        "adjacency_precision": float(raw.isin(known).mean()),
        "recall": float(known.isin(found).mean()),
    }


def collect_targets(table: pd.DataFrame) -> dict[str, set[str]]:
    """Collect the targets of each regulon."""
    return table.groupby("regulon")["target"].agg(set).to_dict()


def compare_regulons(one: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    """Compare two tables of regulons: all edges, and each regulon that is in both."""
    edges = [set(zip(t["regulon"], t["target"], strict=True)) for t in (one, other)]
    a, b = collect_targets(one), collect_targets(other)
    both = sorted(set(a) & set(b))
    return {
        "edges": consensus.jaccard(*edges),
        "regulons": consensus.jaccard(set(a), set(b)),
        "median_regulon": float(np.median([consensus.jaccard(a[name], b[name]) for name in both])),
        "n_in_both": len(both),
    }


def read_promoters(path: Path) -> SimpleNamespace:
    """Read what the merge needs of the cells; pySCENIC's environment has no anndata."""
    with h5py.File(path) as file:
        layer = file["layers/promoter_log"]
        arrays = (layer[name][:] for name in ("data", "indices", "indptr"))
        promoters = sparse.csc_matrix(tuple(arrays), shape=tuple(layer.attrs["shape"]))
        samples = file["obs/sample"].asstr()[:]
        measured = file["obs/promoters_measured"][:].astype(bool)
    obs = pd.DataFrame({"sample": samples, "promoters_measured": measured})
    return SimpleNamespace(obs=obs, layers={"promoter_log": promoters})


def merge(runs: Mapping[str, Edges], expression: Expression, path: Path) -> MergedEdges:
    """Average the edges of runs and add the evidence, as the workflow does."""
    return consensus.merge_adjacencies(
        runs, expression, read_promoters(path), mask_dropouts=False, promoters=True, seed=1
    )


def score_regulons(demo: Path) -> dict[str, object]:
    """Infer the embedded study's regulons with ten seeds and compare them with the truth."""
    matrix = demo / "grn/embryo/expression.h5ad"
    expression = read_expression(matrix)
    true = pd.read_csv(demo / "simulation" / "truth" / "edges.tsv", sep="\t")
    genes = range(len(expression.genes))
    runs, by_motif, by_rank = {}, {}, {}
    for seed in range(1, 11):
        runs[str(seed)] = grn_inference.infer_edges(expression, genes, "fast", seed)
    merged = merge(runs, expression, matrix)
    for seed, run in runs.items():
        by_motif[seed] = find_regulons(expression, demo, run)
        by_rank[seed] = regulons.take_strongest_targets(run, merged.correlation, 50, False)
        print("regulons of seed", seed, file=sys.stderr, flush=True)
    first = [str(seed) for seed in range(1, 6)]
    of_first = merge({seed: runs[seed] for seed in first}, expression, matrix)
    adjacencies = pd.concat(of_first.iter_tables())
    result: dict[str, object] = {"adjacencies": score_edges(of_first.importance, expression, true)}
    for name, found in (("motifs", by_motif), ("modules", by_rank)):
        for suffix, max_p in (("", None), ("_and_promoters", 0.05)):
            pruned = {
                seed: run if max_p is None else regulons.keep_supported(run, merged, max_p)
                for seed, run in found.items()
            }
            sets = [{seed: pruned[seed] for seed in pruned if (seed in first) is one}
                    for one in (True, False)]  # fmt: skip
            kept = [regulons.build_consensus(runs_of, 4, 10) for runs_of in sets]
            single = regulons.drop_small(pruned["1"], 10)
            result[name + suffix] = {
                **compare_with_truth(kept[0], adjacencies, true),
                "one_run_precision": compare_with_truth(single, adjacencies, true)["precision"],
                "two_runs": compare_regulons(single, regulons.drop_small(pruned["2"], 10)),
                "disjoint_sets": compare_regulons(*kept),
            }
    return result


def compare_with_promoters(real: Path, folder: Path) -> list[dict[str, object]]:
    """Compute how many of the strongest edges the cortex' promoters support, unused by methods."""
    path = real / "grn/cortex/expression.h5ad"
    if not path.exists():
        return []
    expression = read_expression(path)
    cells = read_promoters(path)
    samples, measured = (cells.obs[name].to_numpy() for name in ("sample", "promoters_measured"))
    promoters = cells.layers["promoter_log"]
    found = consensus.compute_evidence(expression, False, promoters, samples, measured, seed=1)
    pairs = expression.tfs[:, None] != np.arange(len(expression.genes))
    tested = (np.isfinite(found["promoter_p"]) & pairs).ravel()
    agrees = np.sign(found["promoter_score"]) == np.sign(found["correlation"])
    supported = ((found["promoter_p"] <= 0.05) & agrees).ravel()
    rows = [{"method": "any pair", "n_edges": int(tested.sum()),
             "supported": float(supported[tested].mean())}]  # fmt: skip
    for method in grn_candidates.CANDIDATES:
        scores = np.load(folder / f"cortex.{method}.npy").ravel()
        best = np.argsort(-np.where(tested, scores, -np.inf), kind="stable")[:2000]
        rows.append({"method": method, "n_edges": len(best),
                     "supported": float(supported[best].mean())})  # fmt: skip
    return rows


def main() -> None:
    """Measure everything and write the JSON; ``make docs`` writes it into docs/grn.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path("results"))
    parser.add_argument("--real", type=Path, default=Path("results/real/cortex"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    parser.add_argument("--matrix", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--scores", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.method:
        run_method(options.method, options.matrix, options.scores)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result = {
            "commit": read_commit(),
            "machine": describe_machine() | {"instructions": find_processor_instructions()},
            "regulons": score_regulons(options.demo),
            "rows": compare_methods(options.demo, options.real, folder),
        }
        result["support"] = compare_with_promoters(options.real, folder)
    write_json(options.output, result)


if __name__ == "__main__":
    main()
