from pathlib import Path

import pandas as pd

from scdyn import grn
from scdyn.files import write_table
from scdyn.log import logged, logger

with logged(snakemake.log[0]):
    parts: dict[str, list[pd.DataFrame]] = {str(seed): [] for seed in snakemake.params.seeds}
    for path in snakemake.input.runs:
        parts[Path(path).parent.name].append(pd.read_csv(path, sep="\t"))
    runs = {seed: pd.concat(edges, ignore_index=True) for seed, edges in parts.items()}
    expression = pd.read_csv(snakemake.input.matrix, sep="\t", index_col=0)
    merged = grn.merge_adjacencies(runs, expression)
    logger.info("%d edges over %d runs", len(merged), len(runs))
    write_table(snakemake.output.adjacencies, merged)
    # pyscenic wants its own three columns and no others.
    for_ctx = merged.rename(columns={"tf": "TF"})[["TF", "target", "importance"]]
    write_table(snakemake.output.for_ctx, for_ctx)
    n_top = grn.TOP_EDGES_PER_GENE * expression.shape[1]
    write_table(snakemake.output.stability, grn.stability(runs, n_top))
