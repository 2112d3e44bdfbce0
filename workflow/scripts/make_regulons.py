import pandas as pd

from scdyn import grn
from scdyn.files import write_table
from scdyn.log import logged, logger

with logged(snakemake.log[0]):
    params = snakemake.params
    if snakemake.input.motifs:
        edges = grn.read_ctx(snakemake.input.motifs)
    else:
        logger.info("no motif database: regulons are each TF's strongest targets")
        adjacencies = pd.read_csv(snakemake.input.adjacencies, sep="\t")
        edges = grn.modules(adjacencies, params.n_targets)
    regulons = grn.finish_regulons(edges, params.min_targets)
    logger.info("%d regulons, %d edges", regulons["tf"].nunique(), len(regulons))
    write_table(snakemake.output.regulons, regulons)
    grn.write_gmt(regulons, snakemake.output.gmt)
