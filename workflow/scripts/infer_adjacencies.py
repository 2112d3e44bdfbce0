from scdyn.expression import read_expression
from scdyn.files import write_table
from scdyn.grn_inference import infer_edges, part_of
from scdyn.log import logged, logger

with logged(snakemake.log[0]):
    params = snakemake.params
    expression = read_expression(snakemake.input.expression)
    number, n_parts = map(int, snakemake.wildcards.scatteritem.split("-of-"))
    targets = part_of(len(expression.genes), number, n_parts)
    edges = infer_edges(expression, targets, params.method, params.seed, params.left_out)
    logger.info("%d edges to %d genes", len(edges), len(targets))
    write_table(snakemake.output[0], edges)
