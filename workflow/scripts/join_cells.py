import pandas as pd

from scdyn.io.artefacts import read_cells, read_table
from scdyn.log import logged
from scdyn.pp import cell_tables
from scdyn.pp import findings as checked

with logged(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    for examined in files.examined:
        checked.require(examined)
    tables = []
    for path, qc, (sample, covariates) in zip(
        files.samples, files.qc, params.covariates.items(), strict=True
    ):
        cells = read_cells(path)
        names = read_table(qc, usecols=["cell"], dtype=str)["cell"]
        tables.append(
            cell_tables.annotate(
                cells.obs,
                sample,
                covariates,
                params.metadata[sample],
                params.min_overlap,
                cells.obsm.get("spatial"),
                pd.Index(names.str.removeprefix(f"{sample}_")),
            )
        )
    cell_tables.write_cells(snakemake.output[0], cell_tables.join(tables))
