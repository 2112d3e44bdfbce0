from scdyn.io.artefacts import read_json, read_records
from scdyn.log import logged
from scdyn.plotting import style, training

with logged(snakemake.log[0]):
    history = read_records(snakemake.input.metrics)
    scores = read_json(snakemake.input.scores)
    style.save(training.plot_pretraining(history, scores), snakemake.output[0])
