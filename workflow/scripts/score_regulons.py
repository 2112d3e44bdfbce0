import pandas as pd

from scdyn.grn import aucell
from scdyn.grn.expression import read_expression
from scdyn.io.artefacts import read_cells, read_table, write_h5ad
from scdyn.log import logged

with logged(snakemake.log[0]):
    settings = snakemake.params.settings
    regulons = read_table(snakemake.input.regulons)
    genes = read_expression(snakemake.input.expression).genes
    corpus = read_cells(snakemake.input.corpus)
    column = pd.Series(range(corpus.n_vars), index=corpus.var["symbol"].astype(str))
    columns = column[~column.index.duplicated()][genes]
    activity = aucell.aucell(
        corpus.layers["rna_log"][:, columns],
        genes,
        regulons,
        settings["aucell_threshold"],
        settings["seed"],
    )
    table = aucell.activity_table(activity, regulons, corpus.obs[["sample"]])
    write_h5ad(snakemake.output[0], table)
