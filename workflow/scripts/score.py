from scdyn.data.corpus import Corpus
from scdyn.io.artefacts import read_json, read_table
from scdyn.io.files import atomic, write_json
from scdyn.log import logged
from scdyn.plotting.scores import render_scores
from scdyn.tasks.predictions import read_predictions
from scdyn.tasks.scores import collect_scores, model_variants
from scdyn.tasks.truth import score_truth


def read_each(names, paths, read=read_table):
    return dict(zip(names, map(read, paths), strict=True))


with logged(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    metrics = read_each(params.tasks, files.metrics, read_json)
    scores = collect_scores(
        stability=read_each(params.corpora, files.stability),
        pretraining=read_each(params.models, files.pretraining, read_json),
        embeddings=read_each(params.models, files.embeddings, read_json),
        metrics=metrics,
        explanations=read_each(params.explained, files.checks, read_json),
    )
    if files.truth:
        weights = list(zip(params.weights, map(read_table, files.weights), strict=True))
        compared = score_truth(
            read_each(params.truth, files.truth),
            read_table(files.adjacencies[0]),
            read_table(files.regulons[0]),
            Corpus(files.corpora[0]),
            read_each(params.tasks, files.predictions, read_predictions),
            read_each(params.tasks, files.runs, read_predictions),
            read_each(params.explained, files.attributions),
            {task: [table for name, table in weights if name == task] for task in params.explained},
            seed=params.seed,
        )
        scores = compared | scores  # comparisons with the truth first
    write_json(snakemake.output.scores, scores)
    with atomic(snakemake.output.table) as temporary:
        temporary.write_text(render_scores(scores, model_variants(metrics)))
