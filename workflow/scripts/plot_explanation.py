import json
from pathlib import Path

import pandas as pd

from scdyn import figures_explain
from scdyn.figures import save
from scdyn.log import logged


def read_table(path):
    return pd.read_csv(path, sep="\t")


with logged(snakemake.log[0]):
    files = snakemake.input
    checks = json.loads(Path(files.checks).read_text())
    figures = {
        "drivers": figures_explain.drivers(read_table(files.drivers)),
        "regulons": figures_explain.regulons(read_table(files.regulons)),
        "checks": figures_explain.checks(checks, read_table(files.curves)),
        "in_silico": figures_explain.in_silico(
            read_table(files.effects), read_table(files.measured)
        ),
    }
    for name, figure in figures.items():
        save(figure, snakemake.output[name])
        save(figure, Path(snakemake.output[name]).with_suffix(".png"))
