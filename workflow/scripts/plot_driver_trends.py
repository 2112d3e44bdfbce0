from scdyn.io.artefacts import read_cells, read_table
from scdyn.log import logged
from scdyn.plotting import studies as figures_studies
from scdyn.plotting import style
from scdyn.studies import development

MOST_FATES, N_GENES = 4, 10

with logged(snakemake.log[0]):
    cells = read_cells(snakemake.input.corpus)
    table = read_table(snakemake.input.table, dtype={"cell": str, "called": str})
    drivers = read_table(snakemake.input.drivers, dtype={"class": str})
    trends = development.driver_trends(cells, table, drivers, MOST_FATES, N_GENES)
    figure = figures_studies.driver_heat(*trends, snakemake.params.modalities["rna"])
    for path in snakemake.output.figure, snakemake.output.png:
        style.save(figure, path)
