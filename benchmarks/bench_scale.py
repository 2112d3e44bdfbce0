"""Time, memory and disk by the number of cells: ``make bench-scale``.

Runs the scripts of the rules, each in a process of its own whose peak memory is reported, on
generated corpora of 25,000, 100,000 and 400,000 cells (22,000 genes, of which 2,500 with RNA and
3,000 with an open promoter per cell; samples of 25,000 cells). Rows are written as they come, and
those of other steps are kept, so that single steps can be measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bench import describe_machine, find_processor_instructions, read_commit
from make_shards import CELLS_OF_SAMPLE, N_TFS, make_genes, write_samples
from run_rule import SCRIPTS, run_script

from scdyn.io.files import write_json, write_table

ROOT = Path(__file__).resolve().parents[1]
N_CELLS = (25_000, 100_000, 400_000)
LABEL, N_REGULONS, N_TARGETS = "kind", 300, 60
# Those that take minutes on these cells.
BASELINES = ("majority", "logistic_regression", "logistic_regression_rna", "knn")
# A manifest of six million cells.
MANY_SAMPLES, MANY_COLUMNS = 240, 20
LOADER_GENES, LOADER_SHARE, LOADER_CELLS, LOADER_BATCH = 20_000, 0.1, 65_536, 64


class Paths:
    """The files of a corpus of some cells."""

    def __init__(self, folder: Path, n_cells: int) -> None:
        self.folder, self.n_cells = folder, n_cells
        self.corpus = folder / f"corpus_{n_cells}"
        self.manifest = str(self.corpus / "manifest.json")
        self.pca = str(self.corpus / "pca.zarr")
        self.cells = str(self.corpus / "cells.parquet")
        self.splits = str(self.corpus / "splits.tsv")
        own = self.corpus / "tokens"
        self.tokens = str(own if own.exists() else folder / "tokens")
        self.model = folder / "model"
        self.embedding = str(self.corpus / "embedding.zarr")
        self.grn = self.corpus / "grn"

    def samples(self) -> list[str]:
        n_samples = self.n_cells // CELLS_OF_SAMPLE
        return [str(self.folder / "samples" / f"s{i}.zarr") for i in range(n_samples)]


def ingest_sample(paths: Paths) -> None:
    row = {"sample": "s", "path": str(paths.folder / "sample.h5"), "kind": "10x"}
    examined = paths.folder / "preflight.tsv"
    examined.write_text("subject\tcheck\tfound\tpassed\n")
    from scdyn.io.sample_files import FILES, LAYERS

    run_script(
        "ingest_sample",
        paths.folder,
        {
            "files": [row["path"]],
            "preflight": str(examined),
            "genes": str(paths.folder / "sample.genes.tsv"),
            "translation": [],
        },
        {"cells": str(paths.folder / "ingested.zarr"), "qc": str(paths.folder / "qc.tsv")},
        row=dict.fromkeys([*FILES, *LAYERS], "") | row,
        windows={"upstream": 1500, "downstream": 500},
        thresholds={},
        qc={"min_promoter_counts": 0, "max_mito_share": 1.0},
        seed=1,
    )


def make_corpus(paths: Paths) -> None:
    run_script(
        "make_corpus",
        paths.folder,
        {"samples": paths.samples()},
        {"manifest": paths.manifest},
        folder=str(paths.corpus),
    )


def open_corpus(paths: Paths) -> None:
    from scdyn.data.corpus import Corpus

    corpus = Corpus(paths.corpus)
    assert len(corpus.obs) == paths.n_cells


def compute_pca(paths: Paths) -> None:
    run_script("compute_pca", paths.folder, {"corpus": paths.manifest}, {"pca": paths.pca})


def read_first_batch(paths: Paths) -> None:
    from scdyn.data.corpus import Corpus
    from scdyn.data.loader import Loader, block_shuffle, cut_rows
    from scdyn.data.tokens import TokenStore

    store = TokenStore(paths.tokens, Corpus(paths.corpus))
    order = block_shuffle(np.arange(len(store)), 64, 256, 0)
    loader = Loader(store, cut_rows(order, LOADER_BATCH))
    next(iter(loader))


def open_store(paths: Paths) -> Any:
    """Open cells as the model reads them, with their table."""
    from scdyn.data.corpus import Corpus
    from scdyn.data.tokens import TokenStore

    store = TokenStore(paths.tokens, Corpus(paths.corpus))
    store.read_cells(np.arange(1))
    return store


def read_all(store: Any) -> None:
    """Read all cells in the order of training, sparse, without binning."""
    from scdyn.data.loader import block_shuffle, cut_rows, read_groups

    order = block_shuffle(np.arange(len(store)), 64, 256, 0)
    n_read = sum(map(len, read_groups(store, cut_rows(order, LOADER_BATCH))))
    assert n_read == len(store)


def read_epoch(paths: Paths) -> None:
    read_all(open_store(paths))


def choose_cells(paths: Paths) -> None:
    settings = {"cells": "drawn", "max_cells": 5000, "seed": 1, "min_cells_share": 0.01}
    run_script(
        "choose_cells",
        paths.folder,
        {"corpus": paths.manifest, "pca": paths.pca},
        {
            "expression": str(paths.grn / "expression.h5ad"),
            "cells": str(paths.grn / "cells.tsv"),
        },
        settings=settings,
    )


def score_regulons(paths: Paths) -> None:
    from scdyn.grn.expression import read_expression

    # As regulons are: of genes that are detected.
    regulons = pd.read_csv(paths.folder / "regulons.tsv", sep="\t")
    detected = read_expression(paths.grn / "expression.h5ad").genes
    regulons = regulons[regulons["tf"].isin(detected) & regulons["target"].isin(detected)]
    write_table(paths.grn / "regulons.tsv", regulons)
    run_script(
        "score_regulons",
        paths.folder,
        {
            "corpus": paths.manifest,
            "expression": str(paths.grn / "expression.h5ad"),
            "regulons": str(paths.grn / "regulons.tsv"),
        },
        {"activity": str(paths.grn / "auc.zarr")},
        settings={"aucell_threshold": 0.05, "seed": 1},
    )


def compare_regulons(paths: Paths) -> None:
    run_script(
        "compare_regulons",
        paths.folder,
        {
            "activity": str(paths.grn / "auc.zarr"),
            "cells": paths.cells,
            "corpus": paths.manifest,
        },
        {
            "specificity": str(paths.grn / "specificity.tsv"),
            "figure": str(paths.grn / "regulons.svg"),
        },
        labels=[LABEL],
        seed=1,
    )


def split_cells(paths: Paths) -> None:
    settings = {"label": LABEL, "split_by": "sample", "folds": min(4, paths.n_cells // 25_000)}
    if settings["folds"] < 2:
        settings |= {"split_by": None, "folds": 4}
    run_script(
        "split_cells",
        paths.folder,
        {"cells": paths.cells},
        {"splits": paths.splits, "left_out": str(paths.corpus / "left_out.tsv")},
        {"task": "kind"},
        settings=settings,
    )


def fit_baselines(paths: Paths) -> None:
    run_script(
        "fit_baselines",
        paths.folder,
        {"splits": paths.splits, "corpus": paths.manifest, "pca": paths.pca},
        {
            "predictions": str(paths.corpus / "baselines.parquet"),
            "costs": str(paths.corpus / "costs.tsv"),
        },
        {"task": "kind", "fold": "0"},
        task={"folds": 4, "seeds": [1], "baselines": list(BASELINES)},
    )


def embed(paths: Paths) -> None:
    run_script(
        "embed",
        paths.folder,
        {
            "tokens": paths.tokens,
            "corpus": paths.manifest,
            "model": str(paths.model / "model.safetensors"),
            "config": str(paths.model / "config.json"),
        },
        {"embedding": paths.embedding},
        model=str(paths.model),
        unfinished=str(paths.corpus / "embedding.unfinished"),
    )


def gather_spaces(paths: Paths) -> None:
    run_script(
        "gather_spaces",
        paths.folder,
        {
            "embedding": paths.embedding,
            "corpus": paths.manifest,
            "cells": paths.cells,
            "pca": paths.pca,
        },
        {"spaces": str(paths.corpus / "spaces.h5ad")},
        labels=[LABEL],
        seed=1,
    )


# Step to the environment of its rule and its function.
STEPS: dict[str, tuple[str, Callable[[Paths], None]]] = {
    "make_corpus": ("analysis", make_corpus),
    "open": ("analysis", open_corpus),
    "compute_pca": ("analysis", compute_pca),
    "first batch": ("torch", read_first_batch),
    "loader": ("torch", read_epoch),
    "choose_cells": ("analysis", choose_cells),
    "score_regulons": ("analysis", score_regulons),
    "compare_regulons": ("analysis", compare_regulons),
    "split_cells": ("analysis", split_cells),
    "fit_baselines": ("analysis", fit_baselines),
    "embed": ("torch", embed),
    "gather_spaces": ("analysis", gather_spaces),
}


def measure(step: str, folder: Path, n_cells: int) -> dict[str, float]:
    """Run a step in a separate process of its environment."""
    environment = "analysis" if step == "ingest_sample" else STEPS[step][0]
    command = [
        ROOT / "tests/in_env.sh", environment, "python", __file__,
        "--step", step, "--folder", str(folder), "--cells", str(n_cells),
    ]  # fmt: skip
    variables = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def run_step(step: str, folder: Path, n_cells: int) -> None:
    """Run a step here, and print its time and peak memory."""
    function = ingest_sample if step == "ingest_sample" else STEPS[step][1]
    paths = Paths(folder, n_cells)
    begun = time.monotonic()
    function(paths)
    seconds = time.monotonic() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": round(seconds, 3), "peak_gib": round(peak, 3)}))


def prepare(folder: Path, n_cells: int) -> None:
    """Write samples, labels, regulons, tokens and a small model, where they are missing."""
    from scdyn.data.corpus import Corpus
    from scdyn.data.tokens import write_tokens
    from scdyn.pp.metadata import write_cells

    paths = Paths(folder, n_cells)
    types = write_samples(folder / "samples", n_cells // CELLS_OF_SAMPLE)
    labels = pd.DataFrame({"sample": types.index.str.split("_").str[0], LABEL: types.astype(str)})
    write_cells(paths.cells, labels.set_index(types.index).astype(object))
    genes, rng = make_genes(), np.random.default_rng(0)
    regulons = pd.DataFrame(
        {
            "regulon": np.repeat([f"Gene{i}(+)" for i in range(N_REGULONS)], N_TARGETS),
            "tf": np.repeat([f"Gene{i}" for i in range(N_REGULONS)], N_TARGETS),
            "target": [
                f"Gene{i}"
                for _ in range(N_REGULONS)
                for i in rng.choice(np.arange(N_TFS, len(genes)), N_TARGETS, replace=False)
            ],
            "weight": 1.0,
        }
    )
    write_table(folder / "regulons.tsv", regulons)
    write_tokens(folder / "tokens", genes, regulons, 14)
    if not (folder / "sample.h5").exists():
        import make_sample

        make_sample.write(folder / "sample.h5", CELLS_OF_SAMPLE)
        write_table(folder / "sample.genes.tsv", make_sample.make_vocabulary())
    if not (folder / "small").exists():
        Corpus.write(folder / "small", [make_few()])


def make_few() -> Any:
    """Make a sample to pretrain a model on, whose weights do not matter here."""
    from make_shards import make_sample

    return make_sample("s0", 160)


def pretrain(folder: Path) -> None:
    """Pretrain a model of the smallest kind for an epoch; its speed is not measured."""
    import scdyn
    from scdyn.settings import PretrainingSettings

    settings = PretrainingSettings(
        width=16, n_layers=2, n_heads=2, n_latents=64, ffn_width=32, training={"epochs": 1}
    )
    scdyn.pretrain(scdyn.Corpus(folder / "small"), folder / "model", settings)


def drop_cache(folder: Path) -> None:
    """Drop the files of a folder from the system's page cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure_loader(folder: Path) -> list[dict[str, float]]:
    """Measure the loader on annbatch's cells: 20,000 genes, a tenth not zero, two modalities."""
    paths = Paths(folder, LOADER_CELLS)
    if not (paths.corpus / "manifest.json").exists():
        write_loader_corpus(paths)
    rows = []
    for rule, is_warm in (("loader, 10% of 20,000 genes, page cache dropped", False),
                          ("loader, 10% of 20,000 genes, page cache warm", True)):  # fmt: skip
        if not is_warm:
            drop_cache(paths.corpus)
        turns = [measure_epoch(paths, is_warm) for _ in range(5 if is_warm else 1)]
        median = sorted(turns)[len(turns) // 2]
        rows.append({"rule": rule, "cells": LOADER_CELLS, "seconds": median})
    return rows


def measure_epoch(paths: Paths, is_warm: bool) -> float:
    """Time an epoch in a process of its own: the first, or if warm the second, its start apart."""
    code = (
        "import sys, time; from pathlib import Path; from bench_scale import Paths, open_store, "
        "read_all; store = open_store(Paths(Path(sys.argv[1]), int(sys.argv[2]))); "
        f"{'read_all(store); ' * is_warm}"
        "begun = time.monotonic(); read_all(store); print(time.monotonic() - begun)"
    )
    command = [ROOT / "tests/in_env.sh", "torch", "python", "-c", code]
    variables = {**os.environ, "PYTHONPATH": f"{SCRIPTS}:{Path(__file__).parent}"}
    done = subprocess.run(
        [*command, str(paths.folder), str(paths.n_cells)],
        env=variables, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout.splitlines()[-1])


def write_loader_corpus(paths: Paths) -> None:
    """Write the cells of :func:`measure_loader`; the counts of the samples are the same."""
    import anndata as ad
    from make_shards import make_obs
    from scipy import sparse

    from scdyn.data.corpus import make_corpus
    from scdyn.data.tokens import write_tokens
    from scdyn.io.shards import write_shard
    from scdyn.pp.counts import describe_sizes

    rng, n_cells = np.random.default_rng(0), LOADER_CELLS // 4
    n_here = int(LOADER_GENES * LOADER_SHARE)
    genes = make_genes(LOADER_GENES)
    parts = []
    for _ in range(2):
        indices = np.sort(np.argpartition(rng.random((512, LOADER_GENES)), n_here)[:, :n_here])
        indices = np.tile(indices, (n_cells // 512, 1)).ravel().astype(np.int32)
        data = rng.integers(1, 9, len(indices)).astype(np.int32)
        indptr = np.arange(0, len(indices) + 1, n_here)
        parts.append(sparse.csr_matrix((data, indices, indptr), (n_cells, LOADER_GENES)))
    samples = []
    for i in range(4):
        cells = ad.AnnData(parts[0], obs=make_obs(f"s{i}", n_cells, rng))
        cells.layers["promoter"], cells.var = parts[1], genes.set_index("gene_id")
        samples.append(paths.corpus / "samples" / f"s{i}.zarr")
        write_shard(samples[-1], describe_sizes(cells))
    make_corpus(paths.corpus, samples)
    write_tokens(paths.corpus / "tokens", genes, None, 14)


def write_manifest(folder: Path) -> None:
    """Write a corpus of six million cells: 240 links to one sample, a table of 20 columns."""
    from scdyn.data.corpus import Corpus, hash_ids, make_corpus
    from scdyn.io.artefacts import writing_parquet

    paths = Paths(folder, MANY_SAMPLES * CELLS_OF_SAMPLE)
    sample = folder / "samples" / "s0.zarr"
    one = folder / "one"
    make_corpus(one, [sample])
    manifest = json.loads((one / "manifest.json").read_text())
    (paths.corpus / "samples").mkdir(parents=True, exist_ok=True)
    listed = []
    for i in range(MANY_SAMPLES):
        link = paths.corpus / "samples" / f"s{i}.zarr"
        if not link.exists():
            link.symlink_to(sample)
        path = f"samples/{link.name}"
        listed.append(manifest["samples"][0] | {"name": f"s{i}", "path": path})
    obs = Corpus(one).obs
    obs = obs.assign(**{f"more_{i}": np.float32(1) for i in range(MANY_COLUMNS - obs.shape[1])})
    many = pd.concat([obs] * MANY_SAMPLES)
    many.index = pd.Index(np.char.add("cell", np.arange(len(many)).astype(str)), dtype=object)
    many = many.astype({"sample": "category", "promoter_source": "category"})
    corpus_id = hash_ids([sample["id"] for sample in listed])
    with writing_parquet(paths.corpus / "obs.parquet", corpus=corpus_id) as write:
        write(many)
    manifest |= {"samples": listed, "n_cells": len(many), "id": corpus_id}
    write_json(paths.corpus / "manifest.json", manifest)


def size_on_disk(path: Path) -> int:
    """Sum the sizes of a file or of the files of a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def measure_disk(paths: Paths) -> list[dict[str, float]]:
    """Measure bytes per cell of each kind of file."""
    kinds = {
        "ingest": [Path(path) for path in paths.samples()],
        "corpus": [paths.corpus / name for name in ("obs.parquet", "cells.parquet", "pca.zarr")],
        "tokens": [Path(paths.tokens)],
        "regulon activity": [paths.grn / "auc.zarr"],
        "embedding": [Path(paths.embedding)],
    }
    return [
        {
            "rule": f"disk, {kind}",
            "cells": paths.n_cells,
            "bytes_per_cell": sum(map(size_on_disk, files)) / paths.n_cells,
        }
        for kind, files in kinds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="JSON of all rows; rows of other steps stay")
    parser.add_argument("--folder", type=Path, help="where the generated cells are kept")
    parser.add_argument("--steps", nargs="+", help="only these steps")
    parser.add_argument("--sizes", nargs="+", type=int, default=N_CELLS, help="numbers of cells")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--cells", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder
    if options.step == "prepare":
        prepare(folder, options.cells)
    elif options.step == "write_manifest":
        write_manifest(folder)
    elif options.step == "pretrain":
        pretrain(folder)
    elif options.step:
        run_step(options.step, folder, options.cells)
    else:
        measure_all(folder, options.output, options.sizes, options.steps)


def measure_all(folder: Path, output: Path, sizes: list[int], steps: list[str] | None) -> None:
    """Measure steps at each size, and write each row as it comes."""
    wanted = steps or ["ingest_sample", *STEPS, "add a sample", "disk", "6 million", "annbatch"]

    def note(*rows: dict[str, Any]) -> None:
        content = json.loads(output.read_text()) if output.exists() else {"rows": []}
        new = {(row["rule"], row["cells"]) for row in rows}
        kept = [row for row in content["rows"] if (row["rule"], row["cells"]) not in new]
        content = {
            "machine": describe_machine() | {"instructions": find_processor_instructions()},
            "commit": read_commit(),
            "rows": sorted([*kept, *rows], key=lambda row: (row["rule"], row["cells"])),
        }
        write_json(output, content)
        for row in rows:
            print(json.dumps(row), flush=True)

    command = ["prepare", "--folder", str(folder), "--cells", str(max(sizes))]
    in_env = [ROOT / "tests/in_env.sh"]
    variables = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    for environment, step in (("analysis", command), ("torch", ["pretrain", *command[1:]])):
        call = [*in_env, environment, "python", __file__, "--step", *step]
        subprocess.run(call, env=variables, check=True)
    for n_cells in sizes:
        subprocess.run(
            [*in_env, "analysis", "python", __file__, "--step", "prepare", "--folder", str(folder),
             "--cells", str(n_cells)], env=variables, check=True,
        )  # fmt: skip
        for step in filter(wanted.__contains__, STEPS):
            note({"rule": step, "cells": n_cells} | measure(step, folder, n_cells))
        if "disk" in wanted:
            note(*measure_disk(Paths(folder, n_cells)))
    if "ingest_sample" in wanted:
        row = {"rule": "ingest_sample", "cells": CELLS_OF_SAMPLE}
        note(row | measure("ingest_sample", folder, CELLS_OF_SAMPLE))
    if "add a sample" in wanted:
        largest = max(sizes)
        added = [*command[:-1], str(largest + CELLS_OF_SAMPLE)]
        call = [*in_env, "analysis", "python", __file__, "--step", *added]
        subprocess.run(call, env=variables, check=True)
        row = {"rule": "add a sample, besides its ingestion", "cells": largest}
        note(row | measure("make_corpus", folder, largest + CELLS_OF_SAMPLE))
    if "6 million" in wanted:
        # In a process of its own, whose memory is not that of the process that is measured.
        call = [*in_env, "analysis", "python", __file__, "--step", "write_manifest"]
        subprocess.run([*call, "--folder", str(folder)], env=variables, check=True)
        n_cells = MANY_SAMPLES * CELLS_OF_SAMPLE
        note({"rule": "open", "cells": n_cells} | measure("open", folder, n_cells))
    if "annbatch" in wanted:
        note(*measure_loader(folder))


if __name__ == "__main__":
    main()
