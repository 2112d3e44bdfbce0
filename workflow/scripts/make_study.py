import anndata as ad

from scdyn import evaluation, figures, studies
from scdyn.files import write_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    study = snakemake.params.study
    cells = ad.read_h5ad(snakemake.input.corpus)
    calls = evaluation.read_predictions(snakemake.input.predictions)
    make = studies.KINDS[study["kind"]]
    table, figure = make(cells, calls, snakemake.params.label, study, snakemake.params.seed)
    write_table(snakemake.output.table, table)
    figures.save(figure, snakemake.output.figure)
    figures.save(figure, snakemake.output.png)
