from scdyn.grn import pyscenic
from scdyn.log import logged

with logged(snakemake.log[0]):
    files, settings = snakemake.input, snakemake.params.settings
    # fmt: off
    arguments = [
        files.matrix, files.gmt,
        "--seed", settings["seed"],
        "--auc_threshold", settings["aucell_threshold"],
        "--num_workers", snakemake.threads,
    ]
    # fmt: on
    pyscenic.run("aucell", arguments, snakemake.output[0])
