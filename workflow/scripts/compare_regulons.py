from scdyn.data.corpus import Corpus
from scdyn.grn.activity import draw_activity, regulon_specificity, specificity_table
from scdyn.io.files import write_table
from scdyn.log import logged
from scdyn.plotting import grn as figures
from scdyn.plotting.style import save
from scdyn.pp.metadata import read_cells_table

with logged(snakemake.log[0]):
    labels = snakemake.params.labels
    table = read_cells_table(snakemake.input.cells, ["sample", *labels])
    by, cells = draw_activity(
        snakemake.input.activity,
        Corpus(snakemake.input.corpus),
        table,
        labels,
        snakemake.params.seed,
    )
    specificity = regulon_specificity(cells.to_df(), cells.obs[by])
    write_table(snakemake.output.specificity, specificity_table(specificity, by))
    save(figures.plot_activity(cells, specificity, by), snakemake.output.figure)
