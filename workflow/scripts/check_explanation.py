import json
from pathlib import Path

import pandas as pd

from scdyn import attribution_checks, reference, splits, tokens
from scdyn.files import write_json, write_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    files = snakemake.input
    checks, curves = attribution_checks.check_task(
        tokens.TokenStore(files.tokens),
        reference.read_vocabulary(f"{files.tokens}/vocabulary.tsv"),
        splits.read_splits(files.splits),
        pd.read_csv(files.rankings, sep="\t"),
        files.folds,
        files.model.rsplit("/", 1)[0],
        snakemake.params.task,
    )
    write_json(snakemake.output.checks, json.loads(Path(files.runs).read_text()) | checks)
    write_table(snakemake.output.curves, curves)
