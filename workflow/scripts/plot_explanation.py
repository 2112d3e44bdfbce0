from pathlib import Path

from scdyn.io.artefacts import read_json, read_table
from scdyn.log import logged
from scdyn.plotting import explain as figures_explain
from scdyn.plotting.style import save

with logged(snakemake.log[0]):
    files = snakemake.input
    checks = read_json(files.checks)
    figures = {
        "drivers": figures_explain.drivers(read_table(files.drivers)),
        "regulons": figures_explain.regulons(read_table(files.regulons)),
        "checks": figures_explain.checks(checks, read_table(files.curves)),
        "in_silico": figures_explain.in_silico(
            read_table(files.effects), read_table(files.measured)
        ),
    }
    for name, figure in figures.items():
        save(figure, snakemake.output[name])
        save(figure, Path(snakemake.output[name]).with_suffix(".png"))
