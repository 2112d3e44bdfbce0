from scdyn.data.corpus import Corpus
from scdyn.data.pca import Pca
from scdyn.grn import cells as grn_cells
from scdyn.io.files import write_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    settings, corpus = snakemake.params.settings, Corpus(snakemake.input.corpus)
    cells, report = grn_cells.choose_cells(
        corpus,
        Pca(snakemake.input.pca, corpus)["rna"],
        settings["cells"],
        settings["max_cells"],
        settings["seed"],
    )
    genes = grn_cells.choose_genes(cells, settings["min_cells_share"])
    grn_cells.write_expression(cells, genes, snakemake.output.expression)
    write_table(snakemake.output.cells, report)
