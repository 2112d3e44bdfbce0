from scdyn.data.corpus import Corpus
from scdyn.explain.drivers import rank_drivers
from scdyn.explain.gene_sets import read_gmt
from scdyn.io.artefacts import read_table
from scdyn.io.files import write_table
from scdyn.log import logged
from scdyn.tasks.splits import read_splits

with logged(snakemake.log[0]):
    files = snakemake.input
    ranked = rank_drivers(
        read_table(files.attributions),
        [read_table(path) for path in files.weights],
        read_table(files.regulons),
        read_gmt(files.gene_sets) if files.gene_sets else {},
        Corpus(files.corpus),
        read_splits(files.splits),
        seed=snakemake.params.seed,
    )
    for name, table in ranked.items():
        write_table(snakemake.output[name], table)
