import pandas as pd

from scdyn import aucell, figures_grn
from scdyn.artefacts import read_cells, read_table
from scdyn.expression import read_expression
from scdyn.figures import save
from scdyn.files import atomic, write_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    params = snakemake.params
    regulons = read_table(snakemake.input.regulons)
    genes = read_expression(snakemake.input.expression).genes
    corpus = read_cells(snakemake.input.corpus)
    column = pd.Series(range(corpus.n_vars), index=corpus.var["symbol"].astype(str))
    columns = column[~column.index.duplicated()][genes]
    activity = aucell.aucell(
        corpus.layers["rna_log"][:, columns], genes, regulons, params.threshold, params.seed
    )
    labels = [name for name in params.labels if name in corpus.obs]
    by = labels[0] if labels else "sample"
    cells = aucell.activity_table(activity, regulons, corpus.obs[["sample", *labels]])
    specificity = aucell.specificity(activity, corpus.obs[by])
    table = specificity.rename_axis(by).melt(
        ignore_index=False, var_name="regulon", value_name="rss"
    )
    table = table.reset_index().sort_values([by, "rss"], ascending=[True, False])
    write_table(snakemake.output.specificity, table)
    save(figures_grn.regulon_activity(cells, specificity, by), snakemake.output.figure)
    with atomic(snakemake.output.cells) as temporary:
        cells.write_h5ad(temporary)
