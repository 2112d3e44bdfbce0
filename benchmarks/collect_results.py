"""Collect the scores of finished studies: ``make collect-results``.

They are saved with commit and seeds; ``make docs`` writes them into docs/results.md.
"""

import argparse
import json
from pathlib import Path

import pandas as pd

from scdyn.io.files import write_json

SCORES = ("macro_f1", "accuracy", "balanced_accuracy", "ece")


def read_table(path):
    table = pd.read_csv(path, sep="\t")
    return table.astype(object).where(table.notna(), None).to_dict("records")


def read_task(results, task):
    """Read the scores of one task, its costs and its split."""
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
    """Read the scores of a study, its commit and its seeds."""
    provenance = json.loads((results / "provenance.json").read_text())
    tasks = provenance["config"]["tasks"]
    return {
        "commit": provenance["commit"],
        "seeds": {task: settings["seeds"] for task, settings in tasks.items()},
        "tasks": {task: read_task(results, task) for task in tasks},
        "scores": json.loads((results / "scores.json").read_text()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="results folders of studies")
    parser.add_argument("--output", type=Path, required=True, help="JSON of all scores")
    options = parser.parse_args()
    content = json.loads(options.output.read_text()) if options.output.exists() else {}
    for folder in options.results:
        name = "embedded" if folder.name == "results" else folder.name
        content[name] = read_study(folder)
    write_json(options.output, content)


if __name__ == "__main__":
    main()
