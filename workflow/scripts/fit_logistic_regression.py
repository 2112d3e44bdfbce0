import anndata as ad

from scdyn import evaluation
from scdyn.files import write_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    cells = ad.read_h5ad(snakemake.input.corpus)
    splits = evaluation.read_splits(snakemake.input.splits)
    calls, weights = evaluation.baseline_fold(cells, splits, snakemake.wildcards.fold)
    write_table(snakemake.output.predictions, calls)
    write_table(snakemake.output.weights, weights)
