import pandas as pd

from scdyn import corpus, figures, figures_spaces, spaces
from scdyn.artefacts import read_annotated, read_table
from scdyn.files import write_json, write_table
from scdyn.log import logged, logger

with logged(snakemake.log[0]):
    params = snakemake.params
    table = read_annotated(snakemake.input.spaces, snakemake.input.cells)
    labels = [name for name in params.labels if name in table.obs]
    scores = spaces.judge(table, labels)
    if snakemake.input.scib:
        more = read_table(snakemake.input.scib, dtype={"label": str})
        scores = pd.concat([scores, more])
    else:
        logger.info("scib-metrics are left out: the config has no peers")
    write_table(snakemake.output.table, scores)
    write_json(snakemake.output.scores, spaces.flat(scores))
    layouts = {
        space: corpus.neighbour_map(table.obsm[space], params.seed)
        for space in spaces.SPACES
        if space in table.obsm
    }
    figure = figures_spaces.embeddings(scores, layouts, table.obs, labels, params.batch)
    figures.save(figure, snakemake.output.figure)
