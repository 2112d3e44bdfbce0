import pandas as pd

from scdyn.grn.inference import require_edges
from scdyn.io.artefacts import read_table
from scdyn.io.files import write_table
from scdyn.log import logged, logger

with logged(snakemake.log[0]):
    edges = pd.concat([read_table(path) for path in snakemake.input])
    require_edges(edges, snakemake.wildcards.run, snakemake.wildcards.corpus)
    logger.info("%d edges", len(edges))
    write_table(snakemake.output[0], edges)
