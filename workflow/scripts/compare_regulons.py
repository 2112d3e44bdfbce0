from scdyn.grn.activity import compare_activity, specificity_table
from scdyn.io.files import write_table
from scdyn.log import logged
from scdyn.plotting import grn as figures
from scdyn.plotting.style import save
from scdyn.pp.metadata import read_annotated

with logged(snakemake.log[0]):
    cells = read_annotated(snakemake.input.activity, snakemake.input.cells)
    by, specificity = compare_activity(cells, snakemake.params.labels)
    write_table(snakemake.output.specificity, specificity_table(specificity, by))
    save(figures.plot_activity(cells, specificity, by), snakemake.output.figure)
