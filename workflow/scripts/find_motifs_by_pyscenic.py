from scdyn import motifs, pyscenic
from scdyn.artefacts import read_table
from scdyn.expression import read_expression
from scdyn.files import write_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    expression = read_expression(files.expression)
    modules = {
        run: motifs.make_modules(read_table(path), expression, **params.modules)
        for run, path in zip(params.runs, files.adjacencies, strict=True)
    }
    found = pyscenic.find_motifs(
        modules, files.rankings, files.annotations, threads=snakemake.threads, **params.thresholds
    )
    for run, path in zip(params.runs, snakemake.output, strict=True):
        write_table(path, found[run])
