from scdyn import pyscenic
from scdyn.log import logged

with logged(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    # fmt: off
    arguments = [
        files.matrix, files.gmt,
        "--seed", params.seed,
        "--auc_threshold", params.threshold,
        "--num_workers", snakemake.threads,
    ]
    # fmt: on
    pyscenic.run("aucell", arguments, snakemake.output[0])
