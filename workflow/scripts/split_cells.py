import numpy as np
from scdyn.cell_tables import read_cells_table

from scdyn import splits
from scdyn.files import write_table
from scdyn.log import logged, logger
from scdyn.selection import select

with logged(snakemake.log[0]):
    settings, where = snakemake.params.settings, f"tasks.{snakemake.wildcards.task}"
    obs = read_cells_table(snakemake.input[0])
    labelled = select(obs, settings["train"], f"{where}.train")
    predicted = np.zeros(len(obs), dtype=bool)
    if settings["predict"] is not None:
        predicted = select(obs, settings["predict"], f"{where}.predict")
    unit = settings["split_by"]
    table = splits.make_splits(
        obs,
        labelled,
        predicted,
        settings["label"],
        unit,
        settings["folds"],
        settings["seed"],
        settings["validation_share"],
    )
    logger.info("%s", splits.describe_split(table, unit))
    write_table(snakemake.output[0], table)
