from scdyn.io.artefacts import read_json, read_table
from scdyn.log import logged
from scdyn.plotting import explain as figures
from scdyn.plotting.style import save

with logged(snakemake.log[0]):
    files, output = snakemake.input, snakemake.output
    drivers = figures.plot_drivers(read_table(files.drivers))
    save(drivers, output.drivers, output.drivers_png)
    regulons = figures.plot_regulons(read_table(files.regulons))
    save(regulons, output.regulons, output.regulons_png)
    checks = figures.plot_checks(read_json(files.checks), read_table(files.curves))
    save(checks, output.checks, output.checks_png)
    effects = figures.plot_in_silico(
        read_table(files.effects), read_table(files.measured), read_table(files.knockout)
    )
    save(effects, output.in_silico, output.in_silico_png)
