import json
from pathlib import Path

import pandas as pd

from scdyn import figures
from scdyn.log import logged

with logged(snakemake.log[0]):
    history = pd.read_json(snakemake.input.metrics, lines=True)
    scores = json.loads(Path(snakemake.input.scores).read_text())
    figures.save(figures.pretraining(history, scores), snakemake.output[0])
