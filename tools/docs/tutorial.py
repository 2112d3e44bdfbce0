"""Numbers of the tutorial, from the demo's results: the second part of ``make docs-figures``.

They are saved in docs/figures/numbers.json with the commit of the demo; ``make docs`` writes
tables and sentences from them into docs/tutorial.md.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marks import make_table

# Methods of the tables: prefix in scores.json to name.
METHODS = {
    "": "scDynOmics",
    "random_start_": "scDynOmics, random start",
    "rna_": "scDynOmics, rna",
    "promoter_": "scDynOmics, promoter",
    "lr_": "logistic regression",
    "lr_rna_": "logistic regression, RNA",
    "lr_l1_": "logistic regression, L1",
    "lr_pca_": "logistic regression, PCA",
    "knn_": "nearest neighbours",
    "xgboost_": "XGBoost",
    "mlp_": "MLP",
    "majority_": "commonest class",
}
# Embeddings and rankings of genes: name to prefix of their scores.
EMBEDDINGS = {
    "scDynOmics": "",
    "PCA of RNA": "pca_",
    "PCA of scaled RNA": "pca_scaled_",
    "PCA of RNA and promoters": "pca_both_",
    "PCA of scaled RNA and promoters": "pca_both_scaled_",
}
RANKINGS = {
    "Integrated Gradients": "",
    "logistic regression's weights": "lr_",
    "Wilcoxon's test": "wilcoxon_",
}


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a tab-separated table."""
    with path.open() as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def measure_size(path: Path) -> int:
    """Measure the bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def read_numbers(results: Path) -> dict[str, Any]:
    """Gather the numbers of the tutorial from the demo's results."""
    checks = json.loads((results / "explain/fate/checks.json").read_text())
    quality = {
        path.name.removesuffix(".qc.tsv"): [cell["kept"] == "True" for cell in read_rows(path)]
        for path in sorted(results.glob("ingest/*.qc.tsv"))
    }
    return {
        "commit": json.loads((results / "provenance.json").read_text())["commit"],
        "cells": {name: [len(kept), sum(kept)] for name, kept in quality.items()},
        "tokens": json.loads((results / "tokens/embryo/meta.json").read_text()),
        "n_cells": json.loads((results / "corpus/embryo/manifest.json").read_text())["n_cells"],
        "scores": json.loads((results / "scores.json").read_text()),
        "stability": checks["stability"]["top50_jaccard"],
        "in_silico": read_rows(results / "explain/fate/in_silico.tsv"),
        "measured": read_rows(results / "explain/fate/in_silico_measured.tsv"),
        "composition": read_rows(results / "studies/perturbation/perturbation.tsv"),
        "coherence": read_rows(results / "studies/spatial/spatial.tsv"),
        "novelty": read_rows(results / "finetune/knockout/novelty.tsv"),
    }


def format_number(value: float | str) -> str:
    """Format a number with three decimals."""
    return f"{float(value):.3f}"


def tabulate_methods(scores: Mapping[str, float], columns: Mapping[str, str]) -> str:
    """Lay out the scores of all methods, by decreasing first column.

    ``columns`` maps titles to the names of scores.
    """
    found = [
        (name, [scores.get(text.format(prefix)) for text in columns.values()])
        for prefix, name in METHODS.items()
    ]
    found = sorted((row for row in found if row[1][0] is not None), key=lambda row: -row[1][0])
    body = [
        [name, *("" if v is None else format_number(v) for v in values)] for name, values in found
    ]
    return make_table(["method", *columns], body)


def tabulate_data_and_model(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Lay out the tables of the first stages: cells, regulons, pretraining, embedding."""
    scores, tokens = numbers["scores"], numbers["tokens"]
    edges = {
        "AUPRC of all edges": "auprc",
        "AUPRC by chance": "auprc_chance",
        "share of the regulons' edges that are true": "regulon_precision",
        "share of the true edges that the regulons hold": "regulon_recall",
        "Jaccard of two runs, strongest edges": "seed_jaccard",
        "Jaccard of two runs, regulons": "regulon_seed_jaccard",
    }
    loss = {"the model": "", "the mean profile": "mean_"}
    kept, depth = "embed.hybrid.cell_type.{}neighbour_accuracy", "embed.hybrid.{}library_size_r2"
    return {
        "cells": make_table(
            ["sample", "barcodes", "cells kept"],
            [[name, str(n), str(kept)] for name, (n, kept) in numbers["cells"].items()],
        ),
        "tokens": make_table(
            ["cells", "genes", "of these TFs"],
            [[f"{n:,}" for n in (numbers["n_cells"], tokens["n_genes"], tokens["n_tfs"])]],
        ),
        "grn": make_table(
            ["measure", "value"],
            [["regulons", str(scores["grn.n_regulons"])]]
            + [[what, format_number(scores[f"grn.{name}"])] for what, name in edges.items()],
        ),
        "pretrain": make_table(
            ["predictor", "RNA, nats per count", "promoters, nats per count"],
            [
                [
                    who,
                    *(
                        format_number(scores[f"pretrain.{name}{modality}_cell_loss"])
                        for modality in ("rna", "promoter")
                    ),
                ]
                for who, name in loss.items()
            ],
        ),
        "embed": make_table(
            ["embedding", "neighbour accuracy", "library size R2"],
            [
                [name, *(format_number(scores[score.format(prefix)]) for score in (kept, depth))]
                for name, prefix in EMBEDDINGS.items()
            ],
        ),
    }


def tabulate_tasks(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Lay out the tables of the two tasks: all methods, compared with truth and labels."""
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
        [f"{row['by']} of {row['method']}", row["class"], format_number(row["auroc"])]
        for row in numbers["novelty"]
    ]
    return {
        "fate": tabulate_methods(numbers["scores"], fate),
        "knockout": tabulate_methods(numbers["scores"], knockout),
        "novelty": make_table(["detected by", "class left out", "AUROC"], unseen),
    }


def tabulate_explanation(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Lay out the tables of drivers, checks, and in-silico perturbations."""
    scores = numbers["scores"]
    drivers = [
        [
            name,
            *(
                format_number(scores[f"drivers.{prefix}{score}"])
                for score in ("recall20", "tf_auroc")
            ),
        ]
        for name, prefix in RANKINGS.items()
    ]
    checks = [
        ["completeness, median", f"{scores['explain.fate.completeness']:.2%}", "below 2%"],
        [
            "correlation with the same model with random weights",
            format_number(scores["explain.fate.randomised_correlation"]),
            "about 0",
        ],
        [
            "Jaccard of two seeds' 50 best genes, lowest class",
            format_number(min(numbers["stability"]["seeds"].values())),
            "near 1",
        ],
    ]
    silenced = [
        [
            *(row["perturbation"], row["class"]),
            *(format_number(row[name]) for name in ("shift", "random_shift", "shift_p")),
        ]
        for row in numbers["in_silico"]
    ]
    measured = [
        [row["method"], format_number(row["shift_neural_tube"]), format_number(row["shift_somite"])]
        for row in numbers["measured"]
        if row["rmse"]  # the others predict expression alone
    ]
    return {
        "drivers": make_table(
            ["ranking", "recall at 20", "AUROC among the TFs"],
            [*drivers, ["chance", format_number(scores["drivers.chance20"]), format_number(0.5)]],
        ),
        "checks": make_table(["check", "value", "good is"], checks),
        "in_silico": make_table(
            ["silenced", "in cells of", "shift of log-odds", "of random genes", "p"], silenced
        ),
        "measured": make_table(
            ["shift of the mean probability", "neural tube", "somite"], measured
        ),
    }


def tabulate_studies(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Lay out the tables of the spatial and the perturbation study."""
    order = [
        [
            *(row["section"], row["method"], format_number(row["morans_i"])),
            f"{format_number(row['null_low'])} to {format_number(row['null_high'])}",
            format_number(row["p_value"]),
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
        "coherence": make_table(
            ["section", "method", "Moran's I of P(somite)", "permutation null, 95%", "p"], order, 2
        ),
        "composition": make_table(
            ["predicted", "wild type", "knockout", "log2 ratio (95%)", "change"], composition
        ),
    }


def describe_rank(values: Mapping[str, float], ours: str) -> str:
    """Name the best of several methods, and the rank of one of them."""
    ranked = sorted(values, key=lambda name: -values[name])
    found = f"first of {len(ranked)} is {ranked[0]} ({format_number(values[ranked[0]])})"
    place = ranked.index(ours) + 1
    return (
        f"{found}."
        if place == 1
        else f"{found}, number {place} is {ours} ({format_number(values[ours])})."
    )


def describe_results(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Write the sentences that depend on the numbers."""
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
        "embed_reading": f"By neighbour accuracy, {describe_rank(neighbours, 'scDynOmics')}",
        "fate_reading": f"By macro-F1 of the fates, {describe_rank(fates, 'scDynOmics')}",
        "knockout_reading": (
            f"By the share of ectopic cells, {describe_rank(ectopic, 'scDynOmics')}"
        ),
        "drivers_reading": (
            f"By recall at 20, {describe_rank(recall, 'Integrated Gradients')}\n"
            f"Chance is {format_number(scores['drivers.chance20'])}."
        ),
        "measured_reading": (
            f"Silencing `Som1` in the model shifts the mean probability of somite by "
            f"{format_number(silenced['silenced'])}; in the measured knockout it\n"
            f"is shifted by {format_number(silenced['measured'])}."
        ),
        "coherence_reading": (
            f"Ordered beyond the permutation null: {', '.join(ordered) or 'none'}."
        ),
        "composition_reading": (
            f"Predicted classes whose share changes: {', '.join(changed) or 'none'}."
        ),
    }


def make_blocks(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Make the blocks of the page: Markdown by name."""
    return {
        "commit": f"Numbers and figures of this page are from commit {numbers['commit'][:7]}.",
        **tabulate_data_and_model(numbers),
        **tabulate_tasks(numbers),
        **tabulate_explanation(numbers),
        **tabulate_studies(numbers),
        **describe_results(numbers),
    }


def main() -> None:
    """Gather and save the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="results of the demo")
    parser.add_argument("numbers", type=Path, help="JSON to save them in")
    options = parser.parse_args()
    numbers = read_numbers(options.results)
    options.numbers.write_text(json.dumps(numbers, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
