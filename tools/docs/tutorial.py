"""Numbers of the tutorial, from the demo's results: the second part of ``make docs-figures``.

They are kept in docs/figures/numbers.json, with the commit that made them; ``make docs`` writes
their tables, and the sentences that follow from them, into docs/tutorial.md.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marks import table

# Methods of the tables: their prefix in scores.json, and what they are called.
METHODS = {
    "": "scDynOmics",
    "random_start_": "scDynOmics, random start",
    "rna_": "scDynOmics, rna",
    "promoter_": "scDynOmics, promoter",
    "lr_": "logistic regression",
    "lr_rna_": "logistic regression, RNA",
    "lr_l1_": "logistic regression, L1",
    "knn_": "nearest neighbours",
    "xgboost_": "XGBoost",
    "mlp_": "MLP",
    "majority_": "commonest class",
}
# The embeddings and the rankings of genes, by what their scores begin with.
EMBEDDINGS = {"scDynOmics": "", "PCA of RNA": "pca_", "PCA of RNA and promoters": "pca_both_"}
RANKINGS = {
    "Integrated Gradients": "",
    "logistic regression's weights": "lr_",
    "Wilcoxon's test": "wilcoxon_",
}


def rows(path: Path) -> list[dict[str, str]]:
    """Read a tab-separated table."""
    with path.open() as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def read_numbers(results: Path) -> dict[str, Any]:
    """Gather the numbers of the demo's results that the tutorial has."""
    checks = json.loads((results / "explain/fate/checks.json").read_text())
    quality = {
        path.name.removesuffix(".qc.tsv"): [cell["kept"] == "True" for cell in rows(path)]
        for path in sorted(results.glob("ingest/*.qc.tsv"))
    }
    return {
        "commit": json.loads((results / "provenance.json").read_text())["commit"],
        "cells": {name: [len(kept), sum(kept)] for name, kept in quality.items()},
        "tokens": json.loads((results / "tokens/embryo/meta.json").read_text()),
        "scores": json.loads((results / "scores.json").read_text()),
        "stability": checks["stability"]["top50_jaccard"],
        "in_silico": rows(results / "explain/fate/in_silico.tsv"),
        "measured": rows(results / "explain/fate/in_silico_measured.tsv"),
        "composition": rows(results / "studies/perturbation/perturbation.tsv"),
        "coherence": rows(results / "studies/spatial/spatial.tsv"),
        "novelty": rows(results / "finetune/knockout/novelty.tsv"),
        "bytes": {
            path: size(results / path)
            for path in ("tokens/embryo/tokens.zarr", "corpus/embryo.h5ad")
        },
        "n_values": sum(
            json.loads((results / f"tokens/embryo/tokens.zarr/{name}/data/zarr.json").read_text())[
                "shape"
            ][0]
            for name in ("rna", "promoter")
        ),
    }


def three(value: float | str) -> str:
    """Write a number with three decimals."""
    return f"{float(value):.3f}"


def methods(scores: Mapping[str, float], columns: Mapping[str, str]) -> str:
    """Lay out a table of all methods, by falling first column: title to the name of a score."""
    found = [
        (name, [scores.get(text.format(prefix)) for text in columns.values()])
        for prefix, name in METHODS.items()
    ]
    found = sorted((row for row in found if row[1][0] is not None), key=lambda row: -row[1][0])
    body = [[name, *("" if v is None else three(v) for v in values)] for name, values in found]
    return table(["method", *columns], body)


def data_and_model(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Tables of the first stages: cells, regulons, pretraining, embedding."""
    scores, tokens = numbers["scores"], numbers["tokens"]
    edges = {
        "AUPRC of all edges": "auprc",
        "AUPRC by chance": "auprc_chance",
        "share of the regulons' edges that are true": "regulon_precision",
        "share of the true edges that the regulons hold": "regulon_recall",
        "Jaccard of two runs, strongest edges": "seed_jaccard",
        "Jaccard of two runs, regulons": "regulon_seed_jaccard",
    }
    loss = {
        "the model": "",
        "each gene's frequencies": "frequency_",
        "each gene's commonest bin": "mode_",
        "each gene's mean bin": "mean_",
    }
    kept, depth = "embed.hybrid.cell_type.{}neighbour_accuracy", "embed.hybrid.{}library_size_r2"
    return {
        "cells": table(
            ["sample", "barcodes", "cells kept"],
            [[name, str(n), str(kept)] for name, (n, kept) in numbers["cells"].items()],
        ),
        "tokens": table(
            ["cells", "genes", "of these TFs", "highest bin"],
            [[f"{tokens[key]:,}" for key in ("n_cells", "n_genes", "n_tfs", "n_bins")]],
        ),
        "grn": table(
            ["measure", "value"],
            [["regulons", str(scores["grn.n_regulons"])]]
            + [[what, three(scores[f"grn.{name}"])] for what, name in edges.items()],
        ),
        "pretrain": table(
            ["who fills in", "masked loss, nats per gene"],
            [[who, three(scores[f"pretrain.{name}masked_loss"])] for who, name in loss.items()],
        ),
        "embed": table(
            ["embedding", "neighbour accuracy", "library size R2"],
            [
                [name, *(three(scores[score.format(prefix)]) for score in (kept, depth))]
                for name, prefix in EMBEDDINGS.items()
            ],
        ),
    }


def tasks(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Tables of the two tasks: every method against the truth and on held-out cells."""
    fate = {
        "fates, macro-F1 of a run": "fate.{}macro_f1",
        "fates, all runs together": "fate.{}combined_macro_f1",
        "held-out mature cells": "fate.held_out.{}macro_f1",
    }
    knockout = {
        "share of ectopic cells found": "knockout.{}ectopic_share",
        "held-out wild type, macro-F1": "knockout.held_out.{}macro_f1",
    }
    unseen = [
        [f"{row['by']} of {row['method']}", row["class"], three(row["auroc"])]
        for row in numbers["novelty"]
    ]
    return {
        "fate": methods(numbers["scores"], fate),
        "knockout": methods(numbers["scores"], knockout),
        "novelty": table(["detected by", "class left out", "AUROC"], unseen),
    }


def explanation(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Tables of the drivers, of their checks and of genes silenced in the model."""
    scores = numbers["scores"]
    drivers = [
        [name, *(three(scores[f"drivers.{prefix}{score}"]) for score in ("recall20", "tf_auroc"))]
        for name, prefix in RANKINGS.items()
    ]
    checks = [
        ["completeness, median", f"{scores['explain.fate.completeness']:.2%}", "below 2%"],
        [
            "correlation with the same model with random weights",
            three(scores["explain.fate.randomised_correlation"]),
            "about 0",
        ],
        [
            "Jaccard of two seeds' 50 best genes, lowest class",
            three(min(numbers["stability"]["seeds"].values())),
            "near 1",
        ],
    ]
    silenced = [
        [
            *(row["perturbation"], row["class"]),
            *(three(row[name]) for name in ("shift", "random_shift", "shift_p")),
        ]
        for row in numbers["in_silico"]
    ]
    measured = [
        [row["method"], three(row["shift_neural_tube"]), three(row["shift_somite"])]
        for row in numbers["measured"]
    ]
    return {
        "drivers": table(
            ["ranking", "recall at 20", "AUROC among the TFs"],
            [*drivers, ["chance", three(scores["drivers.chance20"]), three(0.5)]],
        ),
        "checks": table(["check", "value", "good is"], checks),
        "in_silico": table(
            ["silenced", "in cells of", "shift of log-odds", "of random genes", "p"], silenced
        ),
        "measured": table(["shift of the mean probability", "neural tube", "somite"], measured),
    }


def studies(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Tables of the spatial and of the perturbation study."""
    order = [
        [
            *(row["section"], row["method"], three(row["morans_i"])),
            f"{three(row['null_low'])} to {three(row['null_high'])}",
            three(row["p_value"]),
        ]
        for row in numbers["coherence"]
        if row["class"] == "somite"
    ]
    composition = [
        [
            *(row["class"], row["cells_control"], row["cells_perturbed"]),
            "{:.2f} ({:.2f} to {:.2f})".format(
                *(float(row[name]) for name in ("log2_ratio", "low", "high"))
            ),
            row["change"] or "none",
        ]
        for row in numbers["composition"]
        if row["method"] == "scdynomics"
    ]
    return {
        "coherence": table(
            ["section", "method", "Moran's I of P(somite)", "permutation null, 95%", "p"], order, 2
        ),
        "composition": table(
            ["predicted", "wild type", "knockout", "log2 ratio (95%)", "change"], composition
        ),
    }


def first_of(values: Mapping[str, float], ours: str) -> str:
    """Name the best of some methods, and the place of one of them."""
    ranked = sorted(values, key=lambda name: -values[name])
    found = f"first of {len(ranked)} is {ranked[0]} ({three(values[ranked[0]])})"
    place = ranked.index(ours) + 1
    return (
        f"{found}." if place == 1 else f"{found}, number {place} is {ours} ({three(values[ours])})."
    )


def readings(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Sentences that follow from the numbers."""
    scores = numbers["scores"]

    def by_method(score: str) -> dict[str, float]:
        names = {name: score.format(prefix) for prefix, name in METHODS.items()}
        return {name: scores[key] for name, key in names.items() if key in scores}

    fates, ectopic = by_method("fate.{}macro_f1"), by_method("knockout.{}ectopic_share")
    neighbours = {
        name: scores[f"embed.hybrid.cell_type.{prefix}neighbour_accuracy"]
        for name, prefix in EMBEDDINGS.items()
    }
    recall = {name: scores[f"drivers.{prefix}recall20"] for name, prefix in RANKINGS.items()}
    silenced = {row["method"]: row["shift_somite"] for row in numbers["measured"]}
    changed = [
        f"`{row['class']}`: {row['change']}"
        for row in numbers["composition"]
        if row["method"] == "scdynomics" and row["change"]
    ]
    ordered = [
        f"{row['method']} in {row['section']}"
        for row in numbers["coherence"]
        if row["class"] == "somite" and float(row["morans_i"]) > float(row["null_high"])
    ]
    return {
        "grn_reading": (
            f"The AUPRC is {scores['grn.auprc'] / scores['grn.auprc_chance']:.1f} times that of "
            f"chance. Of the regulons' edges {1 - scores['grn.regulon_precision']:.0%} are wrong,\n"
            f"and {1 - scores['grn.regulon_recall']:.0%} of the true edges are missing."
        ),
        "embed_reading": f"By neighbour accuracy, {first_of(neighbours, 'scDynOmics')}",
        "fate_reading": f"By macro-F1 of the fates, {first_of(fates, 'scDynOmics')}",
        "knockout_reading": f"By the share of ectopic cells, {first_of(ectopic, 'scDynOmics')}",
        "drivers_reading": (
            f"By recall at 20, {first_of(recall, 'Integrated Gradients')}\n"
            f"Chance is {three(scores['drivers.chance20'])}."
        ),
        "measured_reading": (
            f"Silencing `Som1` in the model shifts the mean probability of somite by "
            f"{three(silenced['silenced'])}; in the measured knockout it\n"
            f"is shifted by {three(silenced['measured'])}."
        ),
        "coherence_reading": (
            f"Ordered beyond the permutation null: {', '.join(ordered) or 'none'}."
        ),
        "composition_reading": (
            f"Predicted classes whose share changes: {', '.join(changed) or 'none'}."
        ),
    }


def blocks(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Name of a block to the Markdown that belongs there."""
    return {
        "commit": f"Numbers and figures of this page are of commit {numbers['commit'][:7]}.",
        **data_and_model(numbers),
        **tasks(numbers),
        **explanation(numbers),
        **studies(numbers),
        **readings(numbers),
    }


def main() -> None:
    """Gather the numbers and keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="results of the demo")
    parser.add_argument("numbers", type=Path, help="JSON to keep them in")
    options = parser.parse_args()
    numbers = read_numbers(options.results)
    options.numbers.write_text(json.dumps(numbers, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
