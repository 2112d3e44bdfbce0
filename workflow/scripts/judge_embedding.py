import pandas as pd

from scdyn.io.artefacts import read_cells, read_table
from scdyn.io.files import write_json, write_table
from scdyn.log import logged, logger
from scdyn.plotting import embeddings as figures
from scdyn.plotting.style import save
from scdyn.pp.metadata import add_labels, read_cells_table
from scdyn.tasks import embeddings

with logged(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    table = read_cells_table(files.cells, [*params.labels, params.batch])
    cells = add_labels(read_cells(files.spaces), table)
    labels = [name for name in params.labels if name in cells.obs]
    scores = embeddings.score_embeddings(cells, labels)
    if files.scib:
        scores = pd.concat([scores, read_table(files.scib, dtype={"label": str})])
    else:
        logger.info("scib-metrics are left out: the config has no peers")
    write_table(snakemake.output.table, scores)
    write_json(snakemake.output.scores, embeddings.flatten_scores(scores))
    layouts = embeddings.lay_out_embeddings(cells, params.seed)
    figure = figures.plot_embeddings(scores, layouts, cells.obs, labels, params.batch)
    save(figure, snakemake.output.figure)
