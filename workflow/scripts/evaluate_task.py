import pandas as pd

from scdyn.io.artefacts import read_json, read_table
from scdyn.io.files import write_json, write_table
from scdyn.log import logged
from scdyn.plotting import task as figures_task
from scdyn.settings import EvaluationSettings
from scdyn.tasks import evaluation, splits

with logged(snakemake.log[0]):
    files, task = snakemake.input, EvaluationSettings(**snakemake.params.task)
    split = splits.read_splits(files.splits)
    paths = [
        *(f"{folder}/predictions.tsv" for folder in files.models),
        *files.baselines,
        *files.scanvi,
    ]
    runs = pd.concat(map(evaluation.read_predictions, paths), ignore_index=True)
    costs = pd.concat(
        [
            pd.DataFrame([read_json(f"{folder}/task.json") for folder in files.models]),
            *(read_table(path) for path in files.costs),
        ]
    )
    report = evaluation.evaluate(runs, costs, split, task.all_variants(), task.split_by)
    rare = read_table(files.left_out, dtype=str, keep_default_na=False)
    report["metrics"]["classes_left_out"] = dict(zip(rare["class"], rare["reason"], strict=True))
    for name in ("predictions", "runs", "scores", "summary", "classes", "efficiency", "novelty"):
        write_table(snakemake.output[name], report[name])
    write_json(snakemake.output.metrics, report["metrics"])
    figure = figures_task.task(report)
    figures_task.save(figure, snakemake.output.figure)
    figures_task.save(figure, snakemake.output.png)
