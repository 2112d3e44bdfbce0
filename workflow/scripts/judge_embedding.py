import pandas as pd

from scdyn.io.artefacts import read_table
from scdyn.io.files import write_json, write_table
from scdyn.log import logged, logger
from scdyn.plotting import spaces as figures_spaces
from scdyn.plotting import style
from scdyn.pp import corpus
from scdyn.pp.metadata import read_annotated
from scdyn.tasks import spaces

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
        space: corpus.compute_umap(table.obsm[space], params.seed)
        for space in spaces.SPACES
        if space in table.obsm
    }
    figure = figures_spaces.embeddings(scores, layouts, table.obs, labels, params.batch)
    style.save(figure, snakemake.output.figure)
