import anndata as ad
import pandas as pd

from scdyn import figures, figures_studies
from scdyn import studies_development as development
from scdyn.log import logged

MOST_FATES, N_GENES = 4, 10

with logged(snakemake.log[0]):
    cells = ad.read_h5ad(snakemake.input.corpus)
    table = pd.read_csv(snakemake.input.table, sep="\t", dtype={"cell": str, "called": str})
    drivers = pd.read_csv(snakemake.input.drivers, sep="\t", dtype={"class": str})
    trends = development.driver_trends(cells, table, drivers, MOST_FATES, N_GENES)
    figure = figures_studies.driver_heat(*trends, snakemake.params.modalities["rna"])
    for path in snakemake.output.figure, snakemake.output.png:
        figures.save(figure, path)
