import pandas as pd

from scdyn.io.artefacts import read_cells, read_table
from scdyn.log import logged
from scdyn.pp import metadata, obs_columns, preflight_findings

with logged(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    for examined in files.examined:
        preflight_findings.require_passed(examined)
    tables = []
    for path, qc, (sample, covariates) in zip(
        files.samples, files.qc, params.covariates.items(), strict=True
    ):
        cells = read_cells(path)
        names = read_table(qc, usecols=["cell"], dtype=str)["cell"]
        tables.append(
            metadata.annotate(
                cells.obs,
                sample,
                covariates,
                params.metadata[sample],
                params.min_overlap,
                cells.obsm.get("spatial"),
                pd.Index(names.str.removeprefix(f"{sample}_")),
            )
        )
    metadata.write_cells(snakemake.output[0], obs_columns.concatenate(tables))
