from scdyn.grn.expression import read_expression
from scdyn.grn.inference import infer_edges, require_edges, select_targets
from scdyn.log import logged, logger

with logged(snakemake.log[0]):
    settings, wildcards = snakemake.params.settings, snakemake.wildcards
    expression = read_expression(snakemake.input.expression)
    # Rules have this wildcard only if a run has several parts.
    number, n_parts = map(int, wildcards.get("scatteritem", "1-of-1").split("-of-"))
    targets = select_targets(len(expression.genes), number, n_parts)
    edges = infer_edges(
        expression, targets, settings["method"], settings["seed"], settings["left_out"]
    )
    if n_parts == 1:
        require_edges(edges, wildcards.run, wildcards.corpus)
    logger.info("%d edges to %d genes", (edges.importance > 0).sum(), len(targets))
    edges.write(snakemake.output[0])
