from pathlib import Path

import pandas as pd

from scdyn.io.artefacts import read_cells, read_json, read_table
from scdyn.io.files import atomic, write_json
from scdyn.log import logged
from scdyn.plotting.scores import score_page
from scdyn.settings import MAIN
from scdyn.tasks import evaluation, scores

with logged(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    result = {}
    for corpus, path in zip(params.corpora, files.stability, strict=True):
        name = "grn" if len(params.corpora) == 1 else f"grn.{corpus}"
        result |= scores.stability_scores(name, read_table(path))
    for model, path in zip(params.models, files.pretraining, strict=True):
        name = "pretrain" if len(params.models) == 1 else f"pretrain.{model}"
        result |= {f"{name}.{key}": value for key, value in read_json(path).items()}
    for model, path in zip(params.models, files.embeddings, strict=True):
        result |= {f"embed.{model}.{key}": value for key, value in read_json(path).items()}
    calls = {
        task: evaluation.read_predictions(path)
        for task, path in zip(params.tasks, files.predictions, strict=True)
    }
    variants = {}
    for task, path in zip(params.tasks, files.metrics, strict=True):
        metrics = read_json(path)
        asks = (calls[task]["part"] == "predict").any()
        names = {"test": f"{task}.held_out" if asks else task, "predict": f"{task}.predicted"}
        for part in set(names) & set(metrics):
            result |= scores.task_scores(names[part], metrics[part])
            own = {name for name in metrics[part] if name.startswith(f"{MAIN}_")}
            variants[task] = sorted(own.union(variants.get(task, ())))
    for task, path in zip(params.explained, files.checks, strict=True):
        result |= scores.explanation_scores(f"explain.{task}", read_json(path))
    if files.truth:
        names = (Path(path).stem for path in files.truth)
        weights = {task: [] for task in params.explained}
        for path in files.weights:  # results/finetune/{task}/baselines/...
            weights[Path(path).parts[-3]].append(read_table(path))
        against_truth = scores.truth_scores(
            {name: read_table(path) for name, path in zip(names, files.truth, strict=True)},
            read_table(files.adjacencies[0]),
            read_table(files.regulons[0]),
            read_cells(files.corpora[0]),
            calls,
            dict(zip(params.tasks, map(evaluation.read_predictions, files.runs), strict=True)),
            dict(zip(params.explained, map(read_table, files.attributions), strict=True)),
            {task: pd.concat(tables) for task, tables in weights.items()},
        )
        result = {**against_truth, **result}  # what a reader asks first stands first
    write_json(snakemake.output.scores, result)
    with atomic(snakemake.output.table) as temporary:
        temporary.write_text(score_page(result, variants))
