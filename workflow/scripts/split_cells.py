import anndata as ad
import numpy as np

from scdyn import evaluation
from scdyn.files import write_table
from scdyn.log import logged
from scdyn.selection import select

with logged(snakemake.log[0]):
    task, where = snakemake.params.task, f"tasks.{snakemake.wildcards.task}"
    obs = ad.read_h5ad(snakemake.input[0], backed="r").obs
    labelled = select(obs, task["train"], f"{where}.train")
    predicted = np.zeros(len(obs), dtype=bool)
    if task["predict"] is not None:
        predicted = select(obs, task["predict"], f"{where}.predict")
    unit = task["split_by"]
    splits = evaluation.make_splits(
        obs, labelled, predicted, task["label"], unit, task["folds"], task["seed"]
    )
    write_table(snakemake.output[0], splits)
