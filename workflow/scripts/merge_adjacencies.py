from scdyn.grn import consensus
from scdyn.grn.expression import read_expression
from scdyn.io.artefacts import read_cells, read_table
from scdyn.io.files import write_table
from scdyn.log import logged, logger

with logged(snakemake.log[0]):
    params = snakemake.params
    settings = params.settings
    expression = read_expression(snakemake.input.expression)
    cells = read_cells(snakemake.input.expression)
    runs = {
        name: read_table(path) for name, path in zip(params.runs, snakemake.input.runs, strict=True)
    }
    edges = consensus.describe_edges(
        consensus.merge_runs(runs, expression),
        expression,
        settings["mask_dropouts"],
        cells.layers["promoter_log"] if settings["promoters"] else None,
        cells.obs["sample"].astype(str).to_numpy(),
        cells.obs["promoters_measured"].to_numpy(),
        settings["seed"],
    )
    tested = edges["promoter_p"].notna()
    logger.info(
        "%d edges of %d runs; the chromatin tells of %d", len(edges), len(runs), tested.sum()
    )
    write_table(snakemake.output[0], edges)
