from scdyn.data.corpus import Corpus
from scdyn.grn.activity import score_regulons
from scdyn.grn.expression import read_expression
from scdyn.io.artefacts import read_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    files, settings = snakemake.input, snakemake.params.settings
    score_regulons(
        Corpus(files.corpus),
        snakemake.output[0],
        read_expression(files.expression).genes,
        read_table(files.regulons),
        threshold=settings["aucell_threshold"],
        seed=settings["seed"],
    )
