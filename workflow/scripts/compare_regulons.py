from scdyn.grn import aucell
from scdyn.io.files import write_table
from scdyn.log import logged
from scdyn.plotting import grn as figures_grn
from scdyn.plotting.style import save
from scdyn.pp.metadata import read_annotated

with logged(snakemake.log[0]):
    cells = read_annotated(snakemake.input.activity, snakemake.input.cells)
    labels = [name for name in snakemake.params.labels if name in cells.obs]
    by = labels[0] if labels else "sample"
    specificity = aucell.specificity(cells.to_df(), cells.obs[by])
    table = specificity.rename_axis(by).melt(
        ignore_index=False, var_name="regulon", value_name="rss"
    )
    table = table.reset_index().sort_values([by, "rss"], ascending=[True, False])
    write_table(snakemake.output.specificity, table)
    save(figures_grn.regulon_activity(cells, specificity, by), snakemake.output.figure)
