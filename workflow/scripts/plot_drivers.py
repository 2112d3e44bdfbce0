import json
from pathlib import Path

import pandas as pd

from scdyn import figures
from scdyn.files import write_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    table = pd.read_csv(snakemake.input.attributions, sep="\t")
    checks = json.loads(Path(snakemake.input.checks).read_text())
    figures.save(figures.drivers(table, checks), snakemake.output.figure)
    both = table[table["modality"] == "both"]
    write_table(snakemake.output.table, both.groupby("class").head(50))
