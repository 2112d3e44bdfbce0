from scdyn import cell_tables, preflight
from scdyn.artefacts import read_cells, read_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    params = snakemake.params
    if snakemake.input.examined:
        found = read_table(snakemake.input.examined)
        found = found[found["subject"].isin(params.covariates)]
        preflight.require(found, snakemake.input.examined)
    tables = []
    for path, (sample, covariates) in zip(
        snakemake.input.samples, params.covariates.items(), strict=True
    ):
        cells = read_cells(path)
        tables.append(
            cell_tables.annotate(
                cells.obs,
                sample,
                covariates,
                params.metadata[sample],
                params.min_overlap,
                cells.obsm.get("spatial"),
            )
        )
    cell_tables.write_cells(snakemake.output[0], cell_tables.join(tables))
