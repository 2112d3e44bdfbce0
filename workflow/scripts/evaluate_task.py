from pathlib import Path

from scdyn import evaluation, figures
from scdyn.files import write_json, write_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    paths = [Path(folder) / "predictions.tsv" for folder in snakemake.input.models]
    tables = [evaluation.read_predictions(path) for path in [*paths, *snakemake.input.baselines]]
    calls = evaluation.combine(tables)
    metrics = evaluation.summarise(calls)
    write_table(snakemake.output.predictions, calls)
    write_json(snakemake.output.metrics, metrics)
    figures.save(figures.calls(calls, metrics), snakemake.output.figure)
