from scdyn import figures, figures_studies
from scdyn import studies_development as development
from scdyn.artefacts import read_cells, read_table
from scdyn.log import logged

MOST_FATES, N_GENES = 4, 10

with logged(snakemake.log[0]):
    cells = read_cells(snakemake.input.corpus)
    table = read_table(snakemake.input.table, dtype={"cell": str, "called": str})
    drivers = read_table(snakemake.input.drivers, dtype={"class": str})
    trends = development.driver_trends(cells, table, drivers, MOST_FATES, N_GENES)
    figure = figures_studies.driver_heat(*trends, snakemake.params.modalities["rna"])
    for path in snakemake.output.figure, snakemake.output.png:
        figures.save(figure, path)
