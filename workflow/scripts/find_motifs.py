from scdyn import pyscenic
from scdyn.log import logged

with logged(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    # fmt: off
    arguments = [
        files.adjacencies, *files.rankings,
        "--annotations_fname", files.annotations,
        "--expression_mtx_fname", files.matrix,
        "--mode", "custom_multiprocessing",
        "--rank_threshold", params.rank_threshold,
        "--auc_threshold", params.auc_threshold,
        "--nes_threshold", params.nes_threshold,
        "--min_genes", params.min_targets,
        "--num_workers", snakemake.threads,
    ]
    # fmt: on
    if params.mask_dropouts:
        arguments.append("--mask_dropouts")
    if params.repressing:
        arguments.append("--all_modules")
    pyscenic.run("ctx", arguments, snakemake.output[0])
