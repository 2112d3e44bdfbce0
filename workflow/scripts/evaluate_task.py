from scdyn.io.artefacts import read_table
from scdyn.io.files import write_json, write_table
from scdyn.log import logged
from scdyn.plotting import task as figures
from scdyn.plotting.style import save
from scdyn.settings import EvaluationSettings
from scdyn.tasks import evaluation
from scdyn.tasks.splits import read_splits

with logged(snakemake.log[0]):
    files, task = snakemake.input, EvaluationSettings(**snakemake.params.task)
    models = [f"{folder}/predictions.parquet" for folder in files.models]
    report = evaluation.evaluate(
        [*models, *files.baselines, *files.scanvi],
        evaluation.read_costs(files.models, [*files.costs, *files.scanvi_costs]),
        read_splits(files.splits),
        task.all_variants(),
        task.split_by,
        read_table(files.left_out, dtype=str, keep_default_na=False),
        predictions=snakemake.output.predictions,
        runs=snakemake.output.runs,
    )
    for name in ("scores", "summary", "classes", "efficiency", "novelty"):
        write_table(snakemake.output[name], report[name])
    write_json(snakemake.output.metrics, report["metrics"])
    save(figures.plot_task(report), snakemake.output.figure, snakemake.output.png)
