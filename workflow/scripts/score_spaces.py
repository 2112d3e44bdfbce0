import pandas as pd

import scdyn.training.openmp  # noqa: F401 - before torch
from scdyn.io.artefacts import read_cells
from scdyn.io.files import write_table
from scdyn.log import logged
from scdyn.pp.metadata import add_labels, read_cells_table
from scdyn.tasks import embeddings, scib

with logged(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    labels = read_cells_table(files.cells, [*params.labels, params.batch])
    table = add_labels(read_cells(files.spaces), labels)
    names = [name for name in embeddings.EMBEDDINGS if name in table.obsm]
    scores = [
        scib.score_with_scib(table, names, label, params.batch)
        for label in params.labels
        if label in table.obs
    ]
    write_table(
        snakemake.output[0], pd.concat([pd.DataFrame(columns=embeddings.SCORE_COLUMNS), *scores])
    )
