import pandas as pd

from scdyn import figures
from scdyn.artefacts import read_json
from scdyn.log import logged

with logged(snakemake.log[0]):
    history = pd.read_json(snakemake.input.metrics, lines=True)
    scores = read_json(snakemake.input.scores)
    figures.save(figures.pretraining(history, scores), snakemake.output[0])
