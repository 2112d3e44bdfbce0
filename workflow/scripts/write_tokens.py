from pathlib import Path

from scdyn.data import tokens
from scdyn.io.artefacts import read_cells, read_table
from scdyn.log import logged
from scdyn.pp import reference

with logged(snakemake.log[0]):
    tokens.write_tokens(
        read_cells(snakemake.input.corpus),
        reference.read_vocabulary(snakemake.input.genes),
        read_table(snakemake.input.regulons),
        snakemake.params.n_bins,
        Path(snakemake.input.corpus),
        Path(snakemake.output[0]),
    )
