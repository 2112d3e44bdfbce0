"""Gather what the studies' tasks came to, for docs/results.md: ``make collect-results``.

Reads the results folders of studies that have been run, keeps their scores with the commit and the
config's seeds that made them, and writes the tables between the marks of the page:
``<!-- TASK -->`` and ``<!-- end -->``. The words around them are written by hand.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
from marks import fill

from scdyn.io.files import atomic, write_json
from scdyn.tasks.methods import method_name

PARTS = {"test": "held out", "predict": "predicted"}
SCORES = {
    "macro_f1": "macro-F1",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "ece": "ECE",
}


def read_table(path):
    table = pd.read_csv(path, sep="\t")
    return table.astype(object).where(table.notna(), None).to_dict("records")


def read_task(results, task):
    """What one task came to: its summary, label curve, unseen classes, costs and split."""
    folder = results / "finetune" / task
    metrics = json.loads((folder / "metrics.json").read_text())
    summary = [row for row in read_table(folder / "summary.tsv") if row["score"] in SCORES]
    return {
        "split": metrics["split"],
        "n_held_out": metrics["n_held_out"],
        "costs": metrics["costs"],
        "summary": summary,
        "efficiency": read_table(folder / "label_efficiency.tsv"),
        "novelty": read_table(folder / "novelty.tsv"),
    }


def read_study(results):
    """What a study came to, with what made it."""
    provenance = json.loads((results / "provenance.json").read_text())
    tasks = provenance["config"]["tasks"]
    return {
        "commit": provenance["commit"],
        "seeds": {task: settings["seeds"] for task, settings in tasks.items()},
        "tasks": {task: read_task(results, task) for task in tasks},
        "scores": json.loads((results / "scores.json").read_text()),
    }


def number(row, digits=3):
    """A mean with its interval, if it has one."""
    text = f"{row['mean']:.{digits}f}"
    if row.get("low") is None:
        return text
    return f"{text} ({row['low']:.{digits}f}-{row['high']:.{digits}f})"


def task_table(content):
    """Markdown of a task's scores: a row a method, by falling macro-F1, a column a score."""
    lines = []
    for part, words in PARTS.items():
        rows = [row for row in content["summary"] if row["part"] == part]
        if not rows:
            continue
        found = {(row["method"], row["score"]): row for row in rows}
        methods = sorted(
            {row["method"] for row in rows}, key=lambda m: (-found[m, "macro_f1"]["mean"], m)
        )
        lines += [
            f"| {words} | {' | '.join(SCORES.values())} | p, macro-F1 | runs | s a run |",
            "|---" * (len(SCORES) + 4) + "|",
        ]
        for method in methods:
            values = [number(found[method, score]) for score in SCORES]
            row = found[method, "macro_f1"]
            p = "" if row.get("p") is None else f"{row['p']:.2g}"
            seconds = content["costs"].get(method, {}).get("seconds")
            cost = "" if seconds is None else f"{seconds:.1f}"
            cells = [method_name(method), *values, p, str(row["n_runs"]), cost]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    for row in content["efficiency"]:
        if row["labels"] < 1:
            lines.append(
                f"- {row['labels']:.0%} of the labels, {method_name(row['method'])}: {number(row)}"
            )
    for row in content["novelty"]:
        lines.append(
            f"- cells of {row['class']}, never seen, told by {row['by']} of "
            f"{method_name(row['method'])}: AUROC {row['auroc']:.3f}"
        )
    return "\n".join(
        [f"Split {content['split']}; {content['n_held_out']:,} held-out cells.", "", *lines]
    )


def score_table(scores, names):
    """Markdown of some flat scores, with their bounds where they have any."""
    lines = ["| score | value |", "|---|--:|"]
    for name in names:
        low, high = (scores.get(f"{name}_{bound}") for bound in ("low", "high"))
        bounds = "" if low is None else f" ({low:.3f}-{high:.3f})"
        lines.append(f"| `{name}` | {scores[name]:.3f}{bounds} |")
    return "\n".join(lines)


TRUTHS = ("fate.", "knockout.", "drivers.", "embed.", "explain.")
# What the table of scores against the truth leaves to the others, or to scores.json.
LEFT = (".held_out", ".predicted", "_low", "_high", "accuracy", "n_cells", "majority", "tf_recall")


def blocks(content):
    """Name of a mark to the Markdown that belongs there."""
    found = {}
    for study, result in content.items():
        for task, values in result["tasks"].items():
            seeds = ", ".join(map(str, result["seeds"][task]))
            head = f"Commit {result['commit'][:7]}, seeds {seeds}. "
            found[f"{study}.{task}"] = head + task_table(values)
        kept = [
            name
            for name in result["scores"]
            if name.startswith(TRUTHS) and not any(part in name for part in LEFT)
        ]
        found[f"{study}.scores"] = score_table(result["scores"], kept)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="results folders of studies")
    parser.add_argument("--output", type=Path, required=True, help="JSON of all of it")
    parser.add_argument("--page", type=Path, required=True, help="Markdown with the marks")
    options = parser.parse_args()
    content = json.loads(options.output.read_text()) if options.output.exists() else {}
    for folder in options.results:
        name = "embedded" if folder.name == "results" else folder.name
        content[name] = read_study(folder)
    write_json(options.output, content)
    with atomic(options.page) as temporary:
        temporary.write_text(fill(options.page.read_text(), blocks(content)))


if __name__ == "__main__":
    main()
