from scdyn.data.tokens import write_tokens
from scdyn.io.artefacts import read_table
from scdyn.log import logged
from scdyn.pp.reference import read_vocabulary

with logged(snakemake.log[0]):
    write_tokens(
        snakemake.output[0],
        read_vocabulary(snakemake.input.genes),
        read_table(snakemake.input.regulons),
    )
