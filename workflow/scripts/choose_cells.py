from scdyn.grn import cells as grn_cells
from scdyn.io.artefacts import read_cells
from scdyn.io.files import write_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    settings = snakemake.params.settings
    cells, report = grn_cells.choose_cells(
        read_cells(snakemake.input.corpus),
        settings["cells"],
        settings["max_cells"],
        settings["seed"],
    )
    genes = grn_cells.choose_genes(cells, settings["min_cells_share"])
    grn_cells.write_expression(cells, genes, snakemake.output.expression)
    write_table(snakemake.output.cells, report)
