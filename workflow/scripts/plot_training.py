from scdyn import figures
from scdyn.artefacts import read_json, read_records
from scdyn.log import logged

with logged(snakemake.log[0]):
    history = read_records(snakemake.input.metrics)
    scores = read_json(snakemake.input.scores)
    figures.save(figures.pretraining(history, scores), snakemake.output[0])
