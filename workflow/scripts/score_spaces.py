import pandas as pd

import scdyn.training.openmp  # noqa: F401 - before torch
from scdyn.io.files import write_table
from scdyn.log import logged
from scdyn.pp.metadata import read_annotated
from scdyn.tasks import embeddings, scib

with logged(snakemake.log[0]):
    table = read_annotated(snakemake.input.spaces, snakemake.input.cells)
    names = [space for space in embeddings.EMBEDDINGS if space in table.obsm]
    scores = [
        scib.score_with_scib(table, names, label, snakemake.params.batch, snakemake.params.seed)
        for label in snakemake.params.labels
        if label in table.obs
    ]
    write_table(
        snakemake.output[0], pd.concat([pd.DataFrame(columns=embeddings.SCORE_COLUMNS), *scores])
    )
