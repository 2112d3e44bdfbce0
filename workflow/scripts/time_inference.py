from scdyn.grn import inference as grn_inference
from scdyn.io.files import write_json
from scdyn.log import format_duration, logged, logger

with logged(snakemake.log[0]):
    settings = snakemake.params.settings
    found = grn_inference.pilot(
        snakemake.input[0],
        settings["method"],
        settings["seed"],
        settings["n_runs"],
        settings["n_parts"],
    )
    logger.info(
        "GRN inference (%s) of %d genes from %d TFs in %d cells will take about %s on one core: "
        "%d jobs of %s and %.1f GB each",
        *(settings["method"], found["n_genes"], found["n_tfs"], found["n_cells"]),
        format_duration(3600 * found["core_hours"]),
        *(settings["n_runs"] * settings["n_parts"], format_duration(60 * found["job_minutes"])),
        found["job_memory_mb"] / 1000,
    )
    write_json(snakemake.output[0], found)
