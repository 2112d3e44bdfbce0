from scdyn.grn.activity import score_regulons
from scdyn.grn.expression import read_expression
from scdyn.io.artefacts import read_cells, read_table, write_h5ad
from scdyn.log import logged

with logged(snakemake.log[0]):
    files, settings = snakemake.input, snakemake.params.settings
    activity = score_regulons(
        read_cells(files.corpus),
        read_expression(files.expression).genes,
        read_table(files.regulons),
        threshold=settings["aucell_threshold"],
        seed=settings["seed"],
    )
    write_h5ad(snakemake.output[0], activity)
