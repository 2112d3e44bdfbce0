from scdyn.grn import motifs
from scdyn.grn.edges import Edges
from scdyn.grn.expression import read_expression
from scdyn.io.files import write_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    files = snakemake.input
    found = motifs.find_motifs(
        Edges.read(files.adjacencies),
        read_expression(files.expression),
        files.rankings,
        files.annotations,
        **snakemake.params.settings,
    )
    write_table(snakemake.output[0], found)
