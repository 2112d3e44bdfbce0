import numpy as np

from scdyn import splits
from scdyn.artefacts import read_obs
from scdyn.files import write_table
from scdyn.log import logged, logger
from scdyn.selection import select

with logged(snakemake.log[0]):
    task, where = snakemake.params.task, f"tasks.{snakemake.wildcards.task}"
    obs = read_obs(snakemake.input[0])
    labelled = select(obs, task["train"], f"{where}.train")
    predicted = np.zeros(len(obs), dtype=bool)
    if task["predict"] is not None:
        predicted = select(obs, task["predict"], f"{where}.predict")
    unit = task["split_by"]
    table = splits.make_splits(
        obs,
        labelled,
        predicted,
        task["label"],
        unit,
        task["folds"],
        task["seeds"][0],
        task["validation_share"],
    )
    logger.info("%s", splits.describe_split(table, unit))
    write_table(snakemake.output[0], table)
