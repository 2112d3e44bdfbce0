import pandas as pd

import scdyn.training.openmp  # noqa: F401 - before torch
from scdyn.data.corpus import Corpus
from scdyn.io.artefacts import write_parquet
from scdyn.io.files import write_table
from scdyn.log import logged
from scdyn.tasks import peers, splits
from scdyn.training import devices

with logged(snakemake.log[0]):
    devices.take_gpus(1)
    predictions, cost = peers.predict_with_scanvi(
        Corpus(snakemake.input.corpus),
        splits.read_splits(snakemake.input.splits),
        snakemake.wildcards.fold,
        snakemake.params.peers["max_epochs"],
        snakemake.params.seed,
    )
    write_parquet(snakemake.output.predictions, predictions)
    write_table(snakemake.output.costs, pd.DataFrame([cost]))
