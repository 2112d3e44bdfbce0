from scdyn.grn.edges import Edges
from scdyn.grn.inference import join_parts, require_edges
from scdyn.log import logged, logger

with logged(snakemake.log[0]):
    edges = join_parts([Edges.read(path) for path in snakemake.input])
    require_edges(edges, snakemake.wildcards.run, snakemake.wildcards.corpus)
    logger.info("%d edges", (edges.importance > 0).sum())
    edges.write(snakemake.output[0])
