from scdyn.grn import motifs, pyscenic
from scdyn.grn.edges import Edges
from scdyn.grn.expression import read_expression
from scdyn.io.files import write_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    expression = read_expression(files.expression)
    modules = {
        run: motifs.make_modules(Edges.read(path), expression, **params.modules)
        for run, path in zip(params.runs, files.adjacencies, strict=True)
    }
    found = pyscenic.find_motifs(
        modules, files.rankings, files.annotations, threads=snakemake.threads, **params.thresholds
    )
    for run, path in zip(params.runs, snakemake.output, strict=True):
        write_table(path, found[run])
