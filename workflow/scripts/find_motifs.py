from scdyn import motifs
from scdyn.artefacts import read_table
from scdyn.expression import read_expression
from scdyn.files import write_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    files = snakemake.input
    found = motifs.find_motifs(
        read_table(files.adjacencies),
        read_expression(files.expression),
        files.rankings,
        files.annotations,
        **snakemake.params.settings,
    )
    write_table(snakemake.output[0], found)
