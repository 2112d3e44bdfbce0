import pandas as pd

from scdyn.artefacts import read_table
from scdyn.errors import InputError
from scdyn.files import write_table
from scdyn.log import logged, logger

with logged(snakemake.log[0]):
    edges = pd.concat([read_table(path) for path in snakemake.input])
    if edges.empty:
        raise InputError(
            f"GRN run {snakemake.wildcards.run} of corpus {snakemake.wildcards.corpus} found no "
            "edge: no TF explains any gene. Are there enough cells (grn.max_cells), and counts?"
        )
    logger.info("%d edges", len(edges))
    write_table(snakemake.output[0], edges)
