from scdyn.data.corpus import Corpus
from scdyn.io.artefacts import read_table
from scdyn.log import logged
from scdyn.plotting.studies import plot_driver_trends
from scdyn.plotting.style import save
from scdyn.studies.development import driver_trends

with logged(snakemake.log[0]):
    files = snakemake.input
    trends = driver_trends(
        Corpus(files.corpus),
        read_table(files.table, dtype={"cell": str, "predicted": str}),
        read_table(files.drivers, dtype={"class": str}),
    )
    figure = plot_driver_trends(*trends, snakemake.params.modalities["rna"])
    save(figure, snakemake.output.figure, snakemake.output.png)
