from pathlib import Path

import pandas as pd

from scdyn.files import write_table
from scdyn.grn_inference import infer_edges, part_of
from scdyn.log import logged, logger

with logged(snakemake.log[0]):
    # The default parser of floats, as pySCENIC's: another one's last digits would move splits.
    expression = pd.read_csv(snakemake.input.matrix, sep="\t", index_col=0)
    tfs = Path(snakemake.input.tfs).read_text().split()
    number, n_parts = map(int, snakemake.wildcards.scatteritem.split("-of-"))
    targets = part_of(list(expression.columns), number, n_parts)
    seed = int(snakemake.wildcards.seed)
    edges = infer_edges(expression, tfs, targets, snakemake.params.method, seed)
    logger.info("%d edges to %d genes", len(edges), len(targets))
    write_table(snakemake.output[0], edges)
