"""Tables of the studies' results, from evaluation.json and model.json in benchmarks/results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marks import make_table

from scdyn.settings import is_compared
from scdyn.tasks.methods import choose_model, method_name

Content = Mapping[str, Any]

PARTS = {"test": "held out", "predict": "predicted"}
SCORES = {
    "macro_f1": "macro-F1",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "ece": "ECE",
}
STUDIES = {
    "embedded": "simulated embryo",
    "cortex": "mouse cortex",
    "kang": "PBMC of 8 donors",
    "pbmc_facs": "PBMC by FACS gate",
    "pancreas": "mouse pancreas",
    "bone_marrow": "human bone marrow",
    "spatial": "section of a mouse embryo",
    "chimera": "Tal1 chimeras",
}
# Scores compared with the simulation's truth, and those that the page leaves out.
TRUTHS = ("fate.", "knockout.", "drivers.", "embed.", "explain.")
LEFT = (".held_out", ".predicted", "_low", "_high", "accuracy", "n_cells", "majority", "tf_recall")


def format_commit(commit: str) -> str:
    """Shorten a commit, with a mark if files were changed."""
    return commit[:7] + (" with changes" if " " in commit else "")


def format_interval(row: Mapping[str, Any]) -> str:
    """Format a mean with its interval, if it has one."""
    text = f"{row['mean']:.3f}"
    return text if row.get("low") is None else f"{text} ({row['low']:.3f}-{row['high']:.3f})"


def describe_task(content: Content) -> str:
    """Lay out a task's scores, one row per method by decreasing macro-F1."""
    lines = [f"Split {content['split']}; {content['n_held_out']:,} held-out cells.", ""]
    for part, words in PARTS.items():
        found = {(r["method"], r["score"]): r for r in content["summary"] if r["part"] == part}
        if found:
            head = [words, *SCORES.values(), "p, macro-F1", "runs", "s per run"]
            lines += [make_table(head, list_method_rows(found, content["costs"])), ""]
    for row in content["efficiency"]:
        if row["labels"] < 1:
            name = method_name(row["method"])
            if "n_training_cells" in row:
                name += f", {row['n_training_cells']:,.0f} training cells"
            # Tables of earlier versions have the macro-F1 alone.
            score = SCORES[row.get("score", "macro_f1")]
            share = f"{row['labels']:.0%} of the labels"
            lines.append(f"- {share}, {name}, {score}: {format_interval(row)}")
    for row in content["novelty"]:
        lines.append(
            f"- cells of {row['class']}, left out of the training set, detected by {row['by']} of "
            f"{method_name(row['method'])}: AUROC {row['auroc']:.3f}"
        )
    return "\n".join(lines).strip()


def list_method_rows(found: Content, costs: Content) -> list[Sequence[str]]:
    """List the scores of each method."""
    body = []
    names = {method for method, _ in found}
    for method in sorted(names, key=lambda m: (-found[m, "macro_f1"]["mean"], m)):
        row = found[method, "macro_f1"]
        seconds = costs.get(method, {}).get("seconds")
        body.append(
            [
                *(
                    method_name(method),
                    *(format_interval(found[method, score]) for score in SCORES),
                ),
                "" if row.get("p") is None else f"{row['p']:.2g}",
                *(str(row["n_runs"]), "" if seconds is None else f"{seconds:.1f}"),
            ]
        )
    return body


def tabulate_scores(flat: Mapping[str, float]) -> str:
    """Lay out the scores compared with the truth, with their intervals if they have them."""
    body = []
    for name, value in flat.items():
        # The accuracy of neighbours is the only one of an embedding.
        words = name.replace("neighbour_accuracy", "")
        if name.startswith(TRUTHS) and not any(part in words for part in LEFT):
            low, high = (flat.get(f"{name}_{bound}") for bound in ("low", "high"))
            bounds = "" if low is None else f" ({low:.3f}-{high:.3f})"
            body.append([f"`{name}`", f"{value:.3f}{bounds}"])
    return make_table(["score", "value"], body)


SPACE_SCORES = ("neighbour_accuracy", "depth_r2_within")
# Data sets of model.json, as the page names them; with a tenth of the labels where there is one.
DATA_SETS = {
    "cortex": "mouse cortex, by batch",
    "kang": "PBMC of 8 donors, by donor",
    "pbmc_facs": "PBMC by FACS gate",
    "pancreas": "mouse pancreas, cells",
    "seqfish": "mouse embryo, seqFISH",
    "bone_marrow": "bone marrow, other batch",
    "larry": "LARRY, progenitors",
    "fate": "simulated progenitors",
}


def tabulate_model(model: Content) -> str:
    """Lay out the scores of model.json: macro-F1 / accuracy per data set."""

    def format_scores(key: str) -> str:
        values = [model.get(f"{key}macro_f1"), model.get(f"{key}accuracy")]
        return " / ".join(f"{value:.3f}" for value in values if value is not None)

    body = []
    for name, words in DATA_SETS.items():
        for key, share in ((name, ""), (f"{name}_10", ", 10% of the labels")):
            if f"{key}.macro_f1" in model:
                best = method_name(model[f"{key}.best_baseline"])
                body.append([
                    words + share, format_scores(f"{key}."), format_scores(f"{key}.single_"),
                    best, format_scores(f"{key}.best_baseline_"),
                    format_scores(f"{key}.random_start_"), format_commit(model[f"{name}.commit"]),
                ])  # fmt: skip
    head = [
        "data", "scDynOmics", "mean of single seeds", "best baseline", "its scores",
        "random start", "commit",
    ]  # fmt: skip
    return make_table(head, body)


def tabulate_spaces(model: Content) -> str:
    """Lay out the scores of the embeddings of model.json, beside the better PCA's."""
    body = [
        [words, *(f"{model[f'{name}.{prefix}{score}']:.3f}" for score in SPACE_SCORES
                  for prefix in ("", "best_pca_"))]
        for name, words in (DATA_SETS | {"fate": STUDIES["embedded"]}).items()
        if f"{name}.neighbour_accuracy" in model
    ]  # fmt: skip
    head = [
        "data", "neighbour accuracy", "of the best PCA", "depth R2 within labels",
        "lowest of any PCA",
    ]  # fmt: skip
    return make_table(head, body)


def make_blocks(content: Content) -> dict[str, str]:
    """Make the blocks of docs/results.md, by name."""
    found = {}
    for study, result in content.items():
        for name, values in result["tasks"].items():
            seeds = ", ".join(map(str, result["seeds"][name]))
            head = f"Commit {format_commit(result['commit'])}, seeds {seeds}. "
            found[f"{study}.{name}"] = head + describe_task(values)
    # The real studies have no known truth.
    found["embedded.scores"] = tabulate_scores(content["embedded"]["scores"])
    return found


def tabulate_comparison(content: Content) -> str:
    """Compare the model with the best baseline on the held-out cells of every task."""
    body = []
    for study, words in STUDIES.items():
        for name, values in content.get(study, {"tasks": {}})["tasks"].items():
            found = {
                row["method"]: row
                for row in values["summary"]
                if (row["part"], row["score"]) == ("test", "macro_f1")
            }
            ours = found[choose_model(found)]
            baselines = [row for method, row in found.items() if not is_compared(method)]
            best = max(baselines, key=lambda row: row["mean"])
            p = "" if ours.get("p") is None else f"{ours['p']:.2g}"
            labels = [words, f"`{name}`", method_name(best["method"])]
            body.append([*labels, format_interval(best), format_interval(ours), p])
    head = ["study", "task", "best baseline", "its macro-F1", "scDynOmics", "p"]
    return make_table(head, body, text=3)
