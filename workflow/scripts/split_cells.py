import numpy as np

from scdyn.io.files import write_table
from scdyn.log import logged, logger
from scdyn.pp.metadata import read_cells_table
from scdyn.pp.selection import select
from scdyn.tasks import splits

with logged(snakemake.log[0]):
    settings, where = snakemake.params.settings, f"tasks.{snakemake.wildcards.task}"
    obs = read_cells_table(snakemake.input[0])
    labelled = select(obs, settings["train"], f"{where}.train")
    predicted = np.zeros(len(obs), dtype=bool)
    if settings["predict"] is not None:
        predicted = select(obs, settings["predict"], f"{where}.predict")
    unit = settings["split_by"]
    table, left_out = splits.make_splits(
        obs,
        labelled,
        predicted,
        settings["label"],
        unit,
        settings["folds"],
        settings["seed"],
        settings["validation_share"],
        settings["min_cells_per_class"],
        settings["min_units"],
    )
    logger.info("%s", splits.describe_split(table, unit))
    for name, n_cells, reason in left_out[["class", "n_cells", "reason"]].to_numpy():
        logger.warning("class '%s' (%d cells) is left out: %s", name, n_cells, reason)
    write_table(snakemake.output.splits, table)
    write_table(snakemake.output.left_out, left_out)
